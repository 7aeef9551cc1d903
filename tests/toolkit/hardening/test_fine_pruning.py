import copy
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch
from onnx import helper

from mothkit.classifier import Classifier
from mothkit.errors import ConfigError
from mothkit.hardening.fine_pruning import FinePruningConfig, last_linear
from tests.backdoored import accuracy, asr, open_model, write_backdoored
from tests.tiny import open_tiny, write_tiny
from tests.tuned import CLEAN, harden


def with_head(path: Path, *nodes: onnx.NodeProto) -> Classifier:
    """Return the network with other nodes in place of the last three."""
    model = onnx.load(write_backdoored(path))
    del model.graph.node[-3:]
    model.graph.node.extend(nodes)
    shape = (12, 3) if nodes[-1].op_type == "Add" else (3, 12, 1, 1)
    for tensor in model.graph.initializer:
        if tensor.name == "fc":
            values = onnx.numpy_helper.to_array(tensor)
            values = values.T.copy() if shape == (12, 3) else values.reshape(shape)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, "fc"))
    used = {name for node in model.graph.node for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    path.write_bytes(model.SerializeToString())
    return open_model(path)


def matmul(path: Path) -> Classifier:
    return with_head(
        path,
        helper.make_node("GlobalAveragePool", ["r2"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "fc"], ["product"], name="product"),
        helper.make_node("Add", ["product", "fc_bias"], ["logits"], name="sum"),
    )


def convolution(path: Path) -> Classifier:
    return with_head(
        path,
        helper.make_node("Conv", ["r2", "fc", "fc_bias"], ["s"], name="scores"),
        helper.make_node("GlobalAveragePool", ["s"], ["p"]),
        helper.make_node("Flatten", ["p"], ["logits"]),
    )


def test_a_dead_feature_goes_first_and_those_pruned_have_no_weight(backdoored: Classifier) -> None:
    with torch.no_grad():
        backdoored.network.tensor("scale2")[7] = 0
        backdoored.network.tensor("bias2")[7] = -1
    hardened = harden("fine-pruning", backdoored)
    details = hardened.details
    pruned, activity = details["pruned"], torch.tensor(details["activity"])
    assert (pruned[0], activity[7]) == (7, 0)
    assert 1 <= len(pruned) < details["features"] == 12
    assert activity[pruned].max() < min(activity[k] for k in range(12) if k not in pruned)
    assert hardened.classifier is not None
    weight = hardened.classifier.network.tensor("fc")
    assert [k for k in range(12) if not weight[:, k].any()] == sorted(pruned)


def test_activity_is_the_mean_of_each_feature(backdoored: Classifier) -> None:
    rest, _ = CLEAN.split(0.15, generator=torch.Generator().manual_seed(0))
    bodiless = copy.deepcopy(backdoored)
    with torch.no_grad():  # its logits are features 3 and 8
        bodiless.network.tensor("fc").zero_()
        bodiless.network.tensor("fc_bias").zero_()
        bodiless.network.tensor("fc")[0, 3] = bodiless.network.tensor("fc")[1, 8] = 1
        means = bodiless(rest.pixels(torch.arange(len(rest)))).mean(0)
    activity = harden("fine-pruning", backdoored).details["activity"]
    assert (activity[3], activity[8]) == pytest.approx(means[:2].tolist(), rel=1e-4)


def test_it_weakens_the_attack_where_fine_tuning_alone_does_not(backdoored: Classifier) -> None:
    pruned, tuned = harden("fine-pruning", backdoored).classifier, harden("finetune", backdoored).classifier
    assert pruned is not None and tuned is not None
    assert asr(pruned) < asr(tuned) - 0.1
    assert accuracy(pruned) > 0.95


def test_pruning_ends_where_accuracy_would_fall_too_far(backdoored: Classifier) -> None:
    few = harden("fine-pruning", backdoored, accuracy_loss=0.0).details["pruned"]
    many = harden("fine-pruning", backdoored, accuracy_loss=0.5).details["pruned"]
    assert many[: len(few)] == few
    assert len(few) < len(many) < 12


@pytest.mark.parametrize("make", [matmul, convolution])
def test_the_last_matrix_is_found_whatever_operator_it_is_in(make: object, tmp_path: Path) -> None:
    """Taking a feature out of its weights gives the logits of a network that lacks the feature."""
    classifier = make(tmp_path / "other.onnx")  # type: ignore[operator]
    last = last_linear(classifier)
    assert last.layer.node in ("product", "scores")
    without = copy.deepcopy(classifier)
    with torch.no_grad():
        without.network.tensor("scale2")[4] = without.network.tensor("bias2")[4] = 0
        last.prune(torch.tensor([4]))
        x = torch.rand(3, 3, 8, 8)
        assert torch.allclose(classifier(x), without(x), atol=1e-5)


def test_a_square_matrix_is_pruned_along_its_features(tmp_path: Path) -> None:
    assert last_linear(open_tiny(write_tiny(tmp_path / "tiny.onnx"))).axis == 1  # transB


@pytest.mark.parametrize(("name", "value"), [("pruned_at_once", 0.0), ("accuracy_loss", 1.0)])
def test_settings_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{name} is {value}"):
        replace(FinePruningConfig(), **{name: value})
