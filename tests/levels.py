"""A task that one preprocessing alone solves: images drawn at random, and a model that tells how bright its input is.

The model's levels of brightness are spread over what the images give under the preprocessing that it is made for,
and their labels are its own answers there.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from mothkit.inputs import InputSpec, load_input_spec

COLOURS = torch.tensor([0.5, 0.3, 0.2])
SIDE, CLASSES = 8, 12


def draw(count: int, channels: int = 3, *, side: int = SIDE, seed: int = 0) -> np.ndarray:
    """Return uint8 [N, H, W, C]: a colour, and a contrast around it, drawn for each image."""
    rng = np.random.default_rng(seed)
    colour = rng.uniform(40, 215, (count, 1, 1, channels))
    spread = rng.uniform(5, 120, (count, 1, 1, 1))
    noise = rng.uniform(-1, 1, (count, side, side, channels))
    return np.clip(colour + spread * noise, 0, 255).astype(np.uint8)


def brightness(spec: InputSpec, x: np.ndarray) -> torch.Tensor:
    """Return the weighted mean [N] of what ``spec`` makes of uint8 images [N, H, W, C]."""
    fed = spec.to_model(torch.from_numpy(x).permute(0, 3, 1, 2) / 255)
    means = fed.mean((1, 2) if spec.layout == "nhwc" else (2, 3))
    return means @ COLOURS if means.shape[1] == 3 else means[:, 0]


def write_model(
    path: Path,
    spec: InputSpec,
    levels: Sequence[float],
    *,
    first: Sequence[onnx.NodeProto] = (),
    batch: int | str = "n",
    shape: list[int | str] | None = None,
) -> Path:
    """Write a model that tells which of ``levels`` is nearest to the brightness of its input.

    The squared distance to each level is linear in brightness, but for a term that all classes share.
    """
    count = 1 if spec.channels == "gray" else 3
    weights = COLOURS.numpy() if count == 3 else np.ones(1, np.float32)
    values = {"w": np.outer(2 * np.array(levels), weights), "b": -(np.array(levels) ** 2)}
    nchw = spec.layout == "nchw"
    nodes = [
        *first,
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 1, 2, 3] if nchw else [0, 3, 1, 2]),
        helper.make_node("GlobalAveragePool", ["t"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "w", "b"], ["y"], transB=1),
    ]
    shape = shape or [batch, *((count, SIDE, SIDE) if nchw else (SIDE, SIDE, count))]
    graph = helper.make_graph(
        nodes,
        "levels",
        [helper.make_tensor_value_info("image" if first else "x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, len(levels)])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def task(folder: Path, spec: InputSpec, x: np.ndarray, **how: Any) -> tuple[Path, Path]:
    """Write a model made for ``spec``, and ``x`` with the labels that it gives under it."""
    b = brightness(spec, x).double().numpy()
    ends = np.quantile(b, np.linspace(0, 1, CLASSES + 1))
    levels = (ends[1:] + ends[:-1]) / 2
    y = np.abs(b[:, None] - levels).argmin(1)
    np.savez(folder / "data.npz", x=x, y=y)
    return write_model(folder / "m.onnx", spec, levels, **how), folder / "data.npz"


def truth(name: str, channels: str, layout: str = "nchw") -> InputSpec:
    return load_input_spec(name, layout=layout, channels=channels)  # type: ignore[arg-type]
