"""A classifier small enough to reason about: 8x8 images of three colours, told apart by the colour that leads.

Its weights are set by hand. A 1x1 convolution passes the three channels on, batch normalisation (its statistics
those of ``draw_images``) and Relu keep what is brighter than usual, pooling takes the mean, and Gemm scores
each class by its own channel. On ``draw_images`` it is right at nearly every image.
"""

from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from mothkit.classifier import Classifier, import_classifier, open_source
from mothkit.images import ImageSet
from mothkit.inputs import InputSpec

CLASSES, SIDE = 3, 8
CLASS_NAMES = ("red", "green", "blue")
LEADING, OTHER, NOISE = 150, 90, 40  # bytes: a class's own channel, the other two, half width of the noise
GAIN = 2.0  # logits per unit of pooled brightness


def tiny_weights() -> dict[str, NDArray[np.float32]]:
    """Return the initializers by name; all float32."""
    eye = np.eye(CLASSES, dtype=np.float32)
    mean = (LEADING + 2 * OTHER) / 3 / 255  # each channel leads in a third of the images
    variance = (2 / 9 * (LEADING - OTHER) ** 2 + NOISE * (NOISE + 1) / 3) / 255**2
    return {
        "conv.weight": eye.reshape(CLASSES, 3, 1, 1).copy(),
        "bn.scale": np.ones(CLASSES, dtype=np.float32),
        "bn.bias": np.full(CLASSES, 2.0, dtype=np.float32),
        "bn.mean": np.full(CLASSES, mean, dtype=np.float32),
        "bn.var": np.full(CLASSES, variance, dtype=np.float32),
        "fc.weight": GAIN * eye,
        "fc.bias": np.zeros(CLASSES, dtype=np.float32),
    }


def tiny_model(
    *, softmax: bool = False, batch: int | str = "batch", nhwc: bool = False, byte_input: bool = False
) -> onnx.ModelProto:
    """Return the classifier as an ONNX model: ``image`` to ``logits``, or to ``scores`` after a Softmax.

    Args:
        softmax: whether it ends in Softmax.
        batch: a fixed batch size, or the symbol of a free one.
        nhwc: whether the image is [N, 8, 8, 3]; a Transpose then comes first.
        byte_input: whether pixels are 0..255 (preset ``byte``); else 0..1 (preset ``unit``).
    """
    weights = tiny_weights()
    if byte_input:
        weights["conv.weight"] /= 255
    nodes = (
        [helper.make_node("Transpose", ["image"], ["nchw"], name="layout", perm=[0, 3, 1, 2])] if nhwc else []
    )
    nodes += [
        helper.make_node("Conv", ["nchw" if nhwc else "image", "conv.weight"], ["c"], name="conv"),
        helper.make_node(
            "BatchNormalization", ["c", "bn.scale", "bn.bias", "bn.mean", "bn.var"], ["b"], name="bn"
        ),
        helper.make_node("Relu", ["b"], ["r"], name="relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "fc.weight", "fc.bias"], ["logits"], name="fc", transB=1),
    ]
    if softmax:
        nodes.append(helper.make_node("Softmax", ["logits"], ["scores"], name="softmax", axis=-1))
    shape = [batch, SIDE, SIDE, 3] if nhwc else [batch, 3, SIDE, SIDE]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [
            helper.make_tensor_value_info(
                "scores" if softmax else "logits", TensorProto.FLOAT, [batch, CLASSES]
            )
        ],
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="tiny"
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def write_tiny(
    path: Path,
    *,
    softmax: bool = False,
    batch: int | str = "batch",
    nhwc: bool = False,
    byte_input: bool = False,
) -> Path:
    """Write ``tiny_model`` to ``path`` and return it."""
    path.write_bytes(
        tiny_model(softmax=softmax, batch=batch, nhwc=nhwc, byte_input=byte_input).SerializeToString()
    )
    return path


def open_tiny(path: Path, *, nhwc: bool = False) -> Classifier:
    """Return the tiny model in the file ``path`` as a classifier of 0..1 pixels."""
    spec = InputSpec(name="unit", layout="nhwc" if nhwc else "nchw", channels="rgb")
    return import_classifier(open_source(path), spec, (3, SIDE, SIDE))


def draw_images(per_class: int, *, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return noisy images uint8 [N, 8, 8, 3] and labels int64 [N], class after class in turn."""
    generator = np.random.default_rng(seed)
    y = np.arange(per_class * CLASSES) % CLASSES
    colour = np.where(np.eye(CLASSES, dtype=bool)[y], LEADING, OTHER)[:, None, None, :]
    noise = generator.integers(-NOISE, NOISE, size=(len(y), SIDE, SIDE, 3), endpoint=True)
    return (colour + noise).astype(np.uint8), y.astype(np.int64)


def tiny_images(per_class: int, *, seed: int = 0) -> ImageSet:
    """Return ``draw_images`` as an image set."""
    x, y = draw_images(per_class, seed=seed)
    return ImageSet.from_arrays(x, torch.from_numpy(y), CLASS_NAMES, "tiny images", layout="nhwc")


def write_images(path: Path, per_class: int, *, seed: int = 0) -> Path:
    """Write ``draw_images`` as ``x`` and ``y`` to the npz file ``path`` and return it."""
    x, y = draw_images(per_class, seed=seed)
    np.savez(path, x=x, y=y)
    return path
