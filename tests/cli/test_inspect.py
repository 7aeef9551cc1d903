import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper
from typer.testing import Result

Run = Callable[..., Result]
MakeModel = Callable[..., Path]


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_the_record_says_what_the_file_is(run: Run, make_model: MakeModel, layout: str) -> None:
    model = make_model(layout=layout, metadata={"task": "signs"})
    record = json.loads(run("inspect", model, "--json", "-").stdout)
    assert record["files"] == {model.name: hashlib.sha256(model.read_bytes()).hexdigest()}
    assert (record["producer"], record["opsets"], record["layout"]) == ("a test", {"": 13}, layout)
    assert record["metadata"] == {"task": "signs"}
    head = {"value": "logits", "output": "scores", "stripped": ["Softmax"], "classes": 4, "one_logit": False}
    assert record["head"] == head
    assert record["training"]["trainable"] == {"tensors": 3, "parameters": 5 * 3 * 9 + 5 + 4 * 5}
    assert record["training"]["unbound"] == []
    assert record["refusal"] == ""


def test_the_table_says_it_too(run: Run, make_model: MakeModel) -> None:
    result = run("inspect", make_model())
    rows = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert result.exit_code == 0
    assert rows["input"] == "image: float [n, 3, 8, 8]"
    assert rows["logits"] == "logits, before Softmax"
    assert rows["classes"] == "4"
    assert rows["trainable"] == "3 tensors, 160 parameters"


def test_a_file_that_cannot_be_imported_is_described_with_the_reason(run: Run, tmp_path: Path) -> None:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 7]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Gizmo", ["x"], ["y"], domain="made.up")], "g", [x], [y])
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid("made.up", 1)]
    path = tmp_path / "gizmo.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    result = run("inspect", path, "--json", "-")
    record = json.loads(result.stdout)
    assert result.exit_code == 0
    assert record["training"] is None
    assert "Gizmo" in record["refusal"]
    assert (record["layout"], "expected one of 4 dimensions" in record["layout_why"]) == (None, True)
    assert "Gizmo" in result.stderr


def test_names_in_the_file_cannot_drive_the_terminal(run: Run, make_model: MakeModel) -> None:
    result = run("inspect", make_model(producer="\x1b]0;owned\x07"))
    assert "\x1b" not in result.stdout
    assert r"\x1b]0;owned\x07" in result.stdout


@pytest.mark.parametrize("content", [b"", b"no model", b"\x08\x07"])
def test_what_is_no_model_is_refused_in_one_line(run: Run, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "odd.onnx"
    path.write_bytes(content)
    result = run("inspect", path)
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith(f"error: {path}: ")
