from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from mothkit.agreement import (
    Tolerance,
    check_import,
    compare,
    first_difference,
    make_probes,
    tolerance_for,
    torch_predict,
)
from mothkit.classifier import open_source
from mothkit.errors import ParityError
from mothkit.inputs import InputSpec
from mothkit.runtime import Session
from tests.tiny import SIDE, open_tiny, tiny_images, tiny_model, write_tiny

CPU = torch.device("cpu")
SHAPE = (3, SIDE, SIDE)
UNIT = InputSpec(name="unit", layout="nchw", channels="rgb")


def constant(*rows: list[float]) -> Tensor:
    return torch.tensor(rows)


def test_gaps_flips_and_tolerance_are_counted_by_hand() -> None:
    expected, found = constant([1.0, 2.0], [3.0, 1.0]), constant([1.0, 2.5], [0.0, 1.0])
    parity = compare(
        lambda x: expected[: len(x)], lambda x: found[: len(x)], {"p": torch.zeros(2, 1)}, Tolerance()
    )
    whole = parity.results[1]
    assert (whole.max_absolute, whole.max_relative, whole.flips, whole.agrees) == (3.0, 1.0, 1, False)
    assert (parity.agrees, parity.max_absolute) == (False, 3.0)


@pytest.mark.parametrize(("gap", "agrees"), [(0.0, True), (1.09e-3, True), (1.2e-3, False)])
def test_tolerance_is_absolute_plus_relative(gap: float, agrees: bool) -> None:
    def score(value: float) -> Tensor:
        return torch.tensor([[value, 0.0]], dtype=torch.float64)

    parity = compare(lambda x: score(1), lambda x: score(1 + gap), {"p": torch.zeros(1, 1)}, Tolerance())
    assert parity.agrees is agrees


def test_nan_on_either_side_never_agrees() -> None:
    nan = constant([float("nan"), 0.0])
    for one, other in ((nan, constant([0.0, 0.0])), (constant([0.0, 0.0]), nan), (nan, nan)):
        parity = compare(
            lambda x, one=one: one, lambda x, other=other: other, {"p": torch.zeros(1, 1)}, Tolerance()
        )
        assert not parity.agrees
        assert parity.max_absolute == float("inf")


def test_torch_computes_in_whole_floats_and_stays_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier = open_tiny(write_tiny(tmp_path / "tiny.onnx"))
    seen, forward = [], type(classifier).forward

    def spy(self: nn.Module, x: Tensor) -> Tensor:
        seen.append(torch.backends.cudnn.allow_tf32)
        return forward(self, x)

    monkeypatch.setattr(type(classifier), "forward", spy)
    before = torch.backends.cudnn.allow_tf32
    torch_predict(classifier, CPU)(torch.zeros(1, *SHAPE))
    assert seen == [False]
    assert torch.backends.cudnn.allow_tf32 is before


def test_other_numbers_of_classes_are_refused() -> None:
    with pytest.raises(ParityError, match=r"the two give \(1, 2\) and \(1, 3\)"):
        compare(
            lambda x: torch.zeros(1, 2), lambda x: torch.zeros(1, 3), {"p": torch.zeros(1, 1)}, Tolerance()
        )


def test_every_probe_runs_alone_and_as_a_batch() -> None:
    sizes: list[int] = []

    def predict(x: Tensor) -> Tensor:
        sizes.append(len(x))
        return torch.zeros(len(x), 2)

    probes = make_probes(SHAPE, tiny_images(20), seed=0)
    parity = compare(predict, predict, probes, Tolerance())
    assert [(r.probe, r.batch, r.count) for r in parity.results] == [
        (name, batch, count) for name in ("clean", "stamped", "random") for batch, count in ((1, 8), (32, 32))
    ]
    assert sizes.count(1) == 3 * 2 * 8
    assert sizes.count(32) == 3 * 2


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 5, 9), (3, 1, 1)])
def test_probes_are_pixels_and_a_stamp_is_one_opaque_patch(shape: tuple[int, int, int]) -> None:
    probes = make_probes(shape, None, seed=3)
    assert list(probes) == ["stamped", "random"]
    for x in probes.values():
        assert x.shape == (32, *shape)
        assert float(x.min()) >= 0 and float(x.max()) <= 1
    same = (probes["stamped"] == probes["random"].flip(0)).all(1)  # [N, H, W]
    patch = ~same.all(0)
    assert patch.sum() == max(1, round(0.2 * shape[1])) * max(1, round(0.2 * shape[2]))


def test_the_same_seed_makes_the_same_probes() -> None:
    images = tiny_images(20)
    first, again, other = (make_probes(SHAPE, images, seed) for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["clean"], other["clean"])


@pytest.mark.parametrize("nhwc", [False, True])
def test_an_import_agrees_with_its_file(tmp_path: Path, nhwc: bool) -> None:
    classifier = open_tiny(write_tiny(tmp_path / "m.onnx", nhwc=nhwc, softmax=True), nhwc=nhwc)
    session = Session(classifier.source, classifier.spec, ["logits"], CPU)
    probes = make_probes(SHAPE, tiny_images(12), seed=0)
    parity = check_import(classifier, session, probes)
    assert parity.agrees
    assert parity.max_absolute < 1e-5
    assert parity.flips == 0
    fed = classifier.spec.to_model(probes["clean"]).numpy()
    direct = onnxruntime.InferenceSession(tmp_path / "m.onnx").run(["scores"], {"image": fed})[0]
    assert torch.allclose(
        torch_predict(classifier, CPU)(probes["clean"]).softmax(1), torch.from_numpy(direct), atol=1e-6
    )


def in_halves(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return ``model`` in float16, its logits small differences of large numbers."""
    large = {"fc.weight": 100 * np.eye(3), "fc.bias": np.full(3, -250.0)}
    for tensor in model.graph.initializer:
        values = large.get(tensor.name, numpy_helper.to_array(tensor))
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), tensor.name))
    for info in (*model.graph.input, *model.graph.output):
        info.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    return model


def test_a_file_in_half_precision_may_differ_by_what_its_rounding_makes(tmp_path: Path) -> None:
    onnx.save(in_halves(tiny_model()), path := tmp_path / "half.onnx")
    classifier = open_tiny(path)
    session = Session(classifier.source, classifier.spec, [classifier.head.value], CPU)
    probes = make_probes(SHAPE, tiny_images(12), seed=0)
    assert check_import(classifier, session, probes).agrees
    whole = compare(session.logits, torch_predict(classifier, CPU), probes, Tolerance())
    assert not whole.agrees
    assert "no single node" in first_difference(classifier.source, UNIT, probes["random"])
    with torch.no_grad():
        classifier.network.tensor("fc.bias").add_(5)
    with pytest.raises(ParityError, match="differ by up to 5"):
        check_import(classifier, session, probes)


def test_the_tolerance_is_wider_for_halves_alone(tmp_path: Path) -> None:
    onnx.save(in_halves(tiny_model()), half := tmp_path / "half.onnx")
    whole = open_source(write_tiny(tmp_path / "whole.onnx"))
    assert tolerance_for(whole) == Tolerance()
    assert tolerance_for(whole, open_source(half)).spread > 0


def test_an_import_that_differs_stops_the_run(tmp_path: Path) -> None:
    classifier = open_tiny(write_tiny(tmp_path / "m.onnx"))
    session = Session(classifier.source, classifier.spec, ["logits"], CPU)
    with torch.no_grad():
        classifier.network.tensor("fc.bias").add_(0.5)
    with pytest.raises(
        ParityError, match=r"m\.onnx: onnxruntime and the imported network differ by up to 0\.5 on"
    ) as caught:
        check_import(classifier, session, make_probes(SHAPE, None, seed=0))
    assert "no single node differs" in str(caught.value)  # a fresh import of the file itself is right


def write(path: Path, nodes: list[onnx.NodeProto]) -> Path:
    """Write a model of ``nodes``, which make ``y`` of ``x`` [N, 3, 8, 8]."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [numpy_helper.from_array(torch.full((1,), 2.0).numpy(), "two")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_the_first_node_that_differs_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [
        helper.make_node("Mul", ["x", "two"], ["m"], name="double"),
        helper.make_node("LeakyRelu", ["m"], ["r"], name="cut"),
        helper.make_node("Add", ["r", "two"], ["y"], name="last"),
    ]
    path = write(tmp_path / "m.onnx", nodes)
    x = torch.rand(4, *SHAPE)
    assert "no single node" in first_difference(open_source(path), UNIT, x)
    original = nn.functional.leaky_relu
    monkeypatch.setattr(nn.functional, "leaky_relu", lambda x, alpha: original(x, alpha) + 0.5)
    assert (
        first_difference(open_source(path), UNIT, x)
        == "the first node that differs is 'cut' (LeakyRelu), output 'r'"
    )


def test_a_graph_of_one_node_can_be_searched(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", [helper.make_node("Mul", ["x", "two"], ["y"])])
    assert "no single node" in first_difference(open_source(path), UNIT, torch.rand(2, *SHAPE))


def test_a_search_that_fails_says_why_and_hides_nothing(tmp_path: Path) -> None:
    nodes = [helper.make_node("Mul", ["x", "two"], ["m"]), helper.make_node("RandomNormalLike", ["m"], ["y"])]
    path = write(tmp_path / "m.onnx", nodes)
    words = first_difference(open_source(path), UNIT, torch.rand(2, *SHAPE))
    assert "could not be found" in words
    assert "RandomNormalLike" in words


def test_a_fixed_batch_can_be_searched(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "m.onnx", batch=1)
    assert "no single node" in first_difference(open_source(path), UNIT, torch.rand(4, *SHAPE))
    assert tiny_model(batch=1).graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1
