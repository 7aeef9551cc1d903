"""Hardened weights in a new graph, where that is asked for."""

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper

from mothkit.errors import ConfigError, ModelError, OutputError
from mothkit.exporting import write_model
from mothkit.hardening.base import Budget
from mothkit.measuring import evaluate_file
from mothkit.opening import Settings
from mothkit.pipeline import HardenSettings, harden_file
from mothkit_converters import diff, read_source, to_torch
from tests.tiny import open_tiny, tiny_model, write_images

SETTINGS = HardenSettings(
    preprocess="unit", device="cpu", budget=Budget(steps=14, max_accuracy_drop=50), export="torch"
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a model that ends in Softmax, and clean images."""
    monkeypatch.chdir(tmp_path)
    onnx.save(tiny_model(softmax=True), "model.onnx")
    write_images(Path("clean.npz"), 20)
    return tmp_path


def test_a_hardened_model_is_written_as_a_new_graph(folder: Path) -> None:
    record = harden_file(Path("model.onnx"), "clean.npz", Path("out.onnx"), SETTINGS).record
    assert (record["written"], record["export"]) == (True, "torch")
    old, new = read_source("model.onnx"), read_source("out.onnx")
    assert new.inputs == old.inputs
    assert [value.name for value in new.outputs] == [value.name for value in old.outputs] == ["scores"]
    assert new.metadata["mothkit.export"] == "torch"
    assert set(to_torch(new).bindings) == set(to_torch(old).bindings)
    assert {change.name for change in diff(old, new).changes} == {
        entry["name"] for entry in record["changed"]
    }
    assert record["changed"]
    again = evaluate_file(
        Path("out.onnx"), "clean.npz", Settings(preprocess="unit", device="cpu"), triggers=[]
    )
    assert again["result"]["accuracy"] == record["after"]["accuracy"]
    assert {file.name for file in folder.iterdir()} == {
        "clean.npz",
        "model.onnx",
        "out.onnx",
        "out.record.json",
    }


def test_what_follows_the_logits_and_a_fixed_batch_are_kept(folder: Path) -> None:
    onnx.save(tiny_model(softmax=True, batch=3), "model.onnx")
    classifier = open_tiny(Path("model.onnx"))
    with torch.no_grad():
        classifier.network.tensor("fc.bias").add_(torch.tensor([0.5, 0, -0.5]))
    write_model(classifier, Path("out.onnx"), kind="torch")
    x = torch.rand(3, 3, 8, 8)
    session = onnxruntime.InferenceSession("out.onnx", providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == [3, 3, 8, 8]
    (scores,) = session.run(None, {"image": x.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(scores, classifier(x).softmax(1), rtol=1e-4)


def test_two_inputs_are_refused_before_the_work(folder: Path) -> None:
    model = tiny_model()
    model.graph.input.append(helper.make_tensor_value_info("more", 1, ["batch", 3]))
    model.graph.output.append(helper.make_tensor_value_info("less", 1, ["batch", 3]))
    model.graph.node.append(helper.make_node("Relu", ["more"], ["less"]))
    onnx.save(model, "model.onnx")
    with pytest.raises(ModelError, match="has 2 inputs; a new graph is written for one alone"):
        harden_file(Path("model.onnx"), "clean.npz", Path("out.onnx"), SETTINGS)


def test_a_missing_exporter_is_told_before_the_work(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(OutputError, match=r"pip install 'mothkit\[export\]'"):
        harden_file(Path("model.onnx"), "clean.npz", Path("out.onnx"), SETTINGS)
    assert not Path("out.onnx").exists()


def test_an_unknown_export_is_refused() -> None:
    with pytest.raises(ConfigError, match="export is 'magic', not one of surgery, torch"):
        HardenSettings(export="magic")
