"""Small graphs in ONNX's text form, and onnxruntime to hold against them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

Array = NDArray[Any]
SHARED = Path(__file__).parents[2] / "../shared/models"
REAL = sorted([*SHARED.glob("*.onnx"), *SHARED.glob("zoo/*.onnx")])

CNN = """
<ir_version: 8, opset_import: ["" : 17], producer_name: "mothkit tests", metadata_props: ["classes": "4"]>
cnn (float[N, 3, 8, 8] x) => (float[N, 4] probabilities)
{
    conv = Conv<pads = [1, 1, 1, 1]>(x, conv_w, conv_b)
    norm = BatchNormalization<momentum = 0.8>(conv, scale, shift, mean, var)
    relu = Relu(norm)
    pool = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(relu)
    shape = Constant<value = int64[2] {-1, 80}>()
    flat = Reshape(pool, shape)
    logits = Gemm<transB = 1>(flat, head_w, head_b)
    probabilities = Softmax<axis = 1>(logits)
}
"""


def cnn_weights() -> dict[str, Array]:
    generator = np.random.default_rng(7)
    shapes = {"conv_w": (5, 3, 3, 3), "conv_b": (5,), "scale": (5,), "shift": (5,), "mean": (5,), "var": (5,)}
    shapes |= {"head_w": (4, 80), "head_b": (4,)}
    return {name: generator.uniform(0.1, 1.0, shape).astype(np.float32) for name, shape in shapes.items()}


Save = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Write a graph given as text, with these initializers, and return its path."""

    def build(text: str, weights: Mapping[str, Array] | None = None, name: str = "model.onnx") -> Path:
        model = onnx.parser.parse_model(text)
        for key, values in (weights or {}).items():
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(values), key))
        path = tmp_path / name
        path.write_bytes(model.SerializeToString())
        return path

    return build


@pytest.fixture
def cnn(save: Save) -> Path:
    return save(CNN, cnn_weights())


Run = Callable[..., list[Array]]


@pytest.fixture(scope="session")
def run() -> Run:
    """Return what onnxruntime makes of a file; ``values`` names intermediate ones to return instead."""

    def infer(path: Path, *inputs: Array, values: Sequence[str] | None = None) -> list[Array]:
        model = onnx.load(path)
        if values is not None:
            del model.graph.output[:]
            model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in values)
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 4
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        data = model.SerializeToString()
        session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        names = [value.name for value in session.get_inputs()]
        return session.run(None, dict(zip(names, inputs, strict=True)))

    return infer


@pytest.fixture
def images() -> Callable[..., Array]:
    def draw(*shape: int) -> Array:
        return np.random.default_rng(0).random(shape, dtype=np.float32)

    return draw


@pytest.fixture(params=REAL or [None], ids=lambda path: path.stem if path else "none")
def real_model(request: pytest.FixtureRequest) -> Path:
    """Each real model that lies beside the repository."""
    if request.param is None:
        pytest.skip("real models are not here: ../shared/models is absent")
    return request.param
