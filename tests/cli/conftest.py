import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner, Result

from mothkit_cli.main import assemble

Run = Callable[..., Result]
MakeModel = Callable[..., Path]


@pytest.fixture
def run() -> Run:
    """Run ``mothkit`` with these arguments, in this process."""

    def run(*args: object) -> Result:
        words = [str(arg) for arg in args]
        return CliRunner().invoke(assemble(words), words, prog_name="mothkit")

    return run


@pytest.fixture
def make_model(tmp_path: Path) -> MakeModel:
    """Write a classifier of four classes: convolution, global pooling, dense layer, and what is asked for."""

    def make(
        name: str = "tiny.onnx",
        *,
        seed: int = 0,
        layout: str = "nchw",
        tail: str | None = "Softmax",
        producer: str = "a test",
        metadata: dict[str, str] | None = None,
    ) -> Path:
        path = tmp_path / name
        onnx.save(_model(seed, layout, tail, producer, metadata or {}), path)
        return path

    return make


def _model(
    seed: int, layout: str, tail: str | None, producer: str, metadata: dict[str, str]
) -> onnx.ModelProto:
    rng = np.random.default_rng(seed)
    weights = {
        "conv.weight": rng.standard_normal((5, 3, 3, 3), dtype=np.float32),
        "conv.bias": rng.standard_normal(5, dtype=np.float32),
        "dense.weight": rng.standard_normal((4, 5), dtype=np.float32),
    }
    to_nchw = [helper.make_node("Transpose", ["image"], ["x"], perm=[0, 3, 1, 2])]
    nodes = [
        *(to_nchw if layout == "nhwc" else []),
        helper.make_node(
            "Conv", ["x" if to_nchw and layout == "nhwc" else "image", *list(weights)[:2]], ["c"]
        ),
        helper.make_node("GlobalAveragePool", ["c"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "dense.weight"], ["logits"], transB=1),
        *([helper.make_node(tail, ["logits"], ["scores"])] if tail else []),
    ]
    shape = ["n", 3, 8, 8] if layout == "nchw" else ["n", 8, 8, 3]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8, producer_name=producer
    )
    helper.set_model_props(model, metadata)
    return model


@pytest.fixture(scope="session")
def mothkit() -> str:
    """The installed console script."""
    found = shutil.which("mothkit", path=str(Path(sys.executable).parent))
    assert found is not None
    return found
