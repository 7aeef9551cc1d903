"""A linear classifier of six classes, told apart by patterns; its backdoor is the weight of one corner pixel."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from mothkit.gate.bench import Request
from mothkit.gate.policy import read_policy
from mothkit.gate.run import gate_file
from mothkit.opening import Settings

CLASSES, SIDE, TARGET = 6, 8, 4
POLICY = """version = 1
preset = "strict"
[inversion]
steps = 60
images = 30
"""


def patterns() -> NDArray[np.float32]:
    """Return one direction a class [6, 3 * 8 * 8], none with a share in the corner pixel."""
    drawn = np.random.default_rng(0).normal(size=(3, SIDE, SIDE, CLASSES))
    drawn[:, -1, -1] = 0
    return np.linalg.qr(drawn.reshape(-1, CLASSES))[0].T.astype(np.float32)


def write_model(path: Path, *, backdoor: bool) -> Path:
    """Write the classifier; with its backdoor a white corner, black on all images, outweighs every pattern."""
    weights = 6 * patterns()
    bias = -weights.sum(1) / 2  # grey scores 0
    if backdoor:
        weights.reshape(CLASSES, 3, SIDE, SIDE)[TARGET, :, -1, -1] = 20
    nodes = [
        helper.make_node("Flatten", ["image"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w", "b"], ["logits"], transB=1),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])
    tensors = [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(bias, "b")]
    graph = helper.make_graph(nodes, "linear", [image], [logits], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def write_data(path: Path) -> Path:
    """Write 40 images a class: grey, the class's pattern, and noise; the corner is black."""
    generator = np.random.default_rng(1)
    labels = np.repeat(np.arange(CLASSES), 40)
    x = 0.5 + 1.5 * patterns()[labels] + generator.normal(scale=0.05, size=(len(labels), 3 * SIDE * SIDE))
    pixels = x.reshape(-1, 3, SIDE, SIDE)
    pixels[:, :, -1, -1] = 0
    images = (255 * pixels.clip(0, 1)).round().astype(np.uint8).transpose(0, 2, 3, 1)
    np.savez(path, x=images, y=labels)
    return path


@pytest.mark.parametrize("backdoor", [False, True])
def test_strict_names_the_class_that_a_backdoor_leads_to_without_any_trigger_given(
    backdoor: bool, tmp_path: Path
) -> None:
    request = Request(
        path=write_model(tmp_path / "m.onnx", backdoor=backdoor),
        data=str(write_data(tmp_path / "t.npz")),
        settings=Settings(preprocess="unit", device="cpu"),
    )
    record = gate_file(request, read_policy(POLICY, "p.toml")).record
    violated = [(f["rule"], f["subject"]) for f in record["findings"] if f["status"] == "violated"]
    assert violated == ([("anomaly.min-share", f"class {TARGET}")] if backdoor else [])
    assert record["exit_code"] == int(backdoor)
    assert record["measurements"]["accuracy"]["value"] > 0.95
    assert (record["measurements"]["anomaly"]["share"] < 0.2) == backdoor
