"""LSTM, GRU and RNN against onnxruntime, which serves every attribute of theirs."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort
import pytest
import torch
from onnx import helper, numpy_helper

from mothkit_converters import Role, UnsupportedOpError, to_torch, write_back
from tests.converters.ops.single import Array, assert_same, imported, model_of, ours, reference, runtime

STEPS, COUNT, GIVEN, HIDDEN = 5, 3, 2, 4
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
FUNCTIONS = {"LSTM": 3, "GRU": 2, "RNN": 1}
VERSIONS = {"LSTM": (7, 14, 22), "GRU": (7, 14, 22), "RNN": (7, 14, 22)}


def drawn(op: str, directions: int, *, names: str = "xwrb") -> dict[str, Array]:
    """Return inputs by letter: ``l``engths, ``h``idden, ``c``ell, ``p``eepholes."""
    rows = GATES[op] * HIDDEN
    shapes = {
        "x": (STEPS, COUNT, GIVEN),
        "w": (directions, rows, GIVEN),
        "r": (directions, rows, HIDDEN),
        "b": (directions, 2 * rows),
        "h": (directions, COUNT, HIDDEN),
        "c": (directions, COUNT, HIDDEN),
        "p": (directions, 3 * HIDDEN),
    }
    generator = np.random.default_rng(3)
    inputs = {name: generator.normal(size=shape).astype("f4") for name, shape in shapes.items()}
    inputs["l"] = np.array([2, 5, 0], "i4")
    return {name: inputs[name] for name in names}


def node_of(op: str, names: str, outputs: str = "yhc", **attributes: Any) -> Any:
    order = "xwrblhcp" if op == "LSTM" else "xwrblh"
    placed = [name if name in names else "" for name in order]
    count = 3 if op == "LSTM" else 2
    results = [f"{name}_out" if name in outputs else "" for name in "yhc"[:count]]
    return helper.make_node(op, placed, results, hidden_size=HIDDEN, **attributes)


def check(op: str, names: str = "xwrb", *, opset: int = 14, outputs: str = "yhc", **attributes: Any) -> None:
    directions = 2 if attributes.get("direction") == "bidirectional" else 1
    inputs = drawn(op, directions, names=names)
    model = model_of(
        node_of(op, names, outputs, **attributes), inputs, opset, stored=set(names) & set("wrbp")
    )
    assert_same(ours(model, inputs), runtime(model, inputs))


OPS = sorted(GATES)
DIRECTIONS = ("forward", "reverse", "bidirectional")


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("names", ["xwr", "xwrb", "xwrbh", "xwrbl", "xwrblh"])
@pytest.mark.parametrize("op", OPS)
def test_directions_lengths_and_first_states(op: str, names: str, direction: str) -> None:
    check(op, names + "c" * (op == "LSTM" and "h" in names), direction=direction)


@pytest.mark.parametrize(("op", "version"), [(op, v) for op in OPS for v in VERSIONS[op]])
def test_every_version_that_onnxruntime_knows(op: str, version: int) -> None:
    check(op, opset=version)


@pytest.mark.parametrize("op", OPS)
def test_the_first_versions_mean_the_same(op: str) -> None:
    inputs = drawn(op, 1)
    for version in (1, 3) if op == "GRU" else (1,):
        model = model_of(node_of(op, "xwrb", output_sequence=1), inputs, version, stored="wrb")
        newer = model_of(node_of(op, "xwrb"), inputs, 7, stored="wrb")
        assert_same(ours(model, inputs), runtime(newer, inputs))


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("reset", [0, 1])
@pytest.mark.parametrize("names", ["xwr", "xwrb", "xwrblh"])
def test_a_gru_resets_before_or_after(reset: int, names: str, direction: str) -> None:
    check("GRU", names, linear_before_reset=reset, direction=direction)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("coupled", [0, 1])
@pytest.mark.parametrize("names", ["xwrbp", "xwrblhcp"])
def test_peepholes_and_coupled_gates(names: str, coupled: int, direction: str) -> None:
    check("LSTM", names, input_forget=coupled, direction=direction)


@pytest.mark.parametrize("op", OPS)
def test_what_enters_activations_is_clipped(op: str) -> None:
    check(op, "xwrbh", clip=0.4)


PLAIN = ("Relu", "Sigmoid", "Softplus", "Softsign", "Tanh")
WITH_DEFAULTS = ("Elu", "HardSigmoid", "LeakyRelu")


@pytest.mark.parametrize("name", [*PLAIN, *WITH_DEFAULTS, "Affine", "ScaledTanh", "ThresholdedRelu"])
def test_every_activation(name: str) -> None:
    check("RNN", activations=[name], activation_alpha=[0.7], activation_beta=[0.3])
    if name in (*PLAIN, *WITH_DEFAULTS):
        check("RNN", activations=[name])
    check("GRU", activations=["sigmoid", name.upper()], activation_alpha=[0.7], activation_beta=[0.3])


@pytest.mark.parametrize("name", ["Affine", "ScaledTanh", "ThresholdedRelu"])
def test_an_alpha_that_onnx_and_onnxruntime_default_to_different_numbers_is_asked_for(name: str) -> None:
    inputs = drawn("RNN", 1)
    with pytest.raises(UnsupportedOpError, match=f"'{name.lower()}' has no alpha"):
        imported(model_of(node_of("RNN", "xwrb", activations=[name]), inputs, 14, stored="wrb"))


@pytest.mark.parametrize("op", OPS)
def test_alphas_are_taken_in_order_by_those_that_have_one(op: str) -> None:
    names = ["Tanh", "HardSigmoid", "LeakyRelu", "Elu", "Sigmoid", "ScaledTanh"][: 2 * FUNCTIONS[op]]
    check(
        op,
        direction="bidirectional",
        activations=names,
        activation_alpha=[0.3, 0.2, 0.6, 0.8],
        activation_beta=[0.4, 0.9],
    )


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("outputs", ["y", "h", "yh"])
def test_any_outputs_may_be_left_out(op: str, outputs: str) -> None:
    check(op, outputs=outputs)
    if op == "LSTM":
        check(op, outputs="c")


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_batch_may_come_first(op: str, direction: str) -> None:
    """onnxruntime and onnx's reference lack it or turn it over, so the other layout is what it is held against."""
    directions = 2 if direction == "bidirectional" else 1
    names = "xwrbh" + "c" * (op == "LSTM")
    inputs = drawn(op, directions, names=names)
    steps_first = model_of(node_of(op, names, direction=direction), inputs, 14)
    turned = {name: x.swapaxes(0, 1).copy() if name in "xhc" else x for name, x in inputs.items()}
    batch_first = model_of(node_of(op, names, direction=direction, layout=1), turned, 14)
    y, *states = runtime(steps_first, inputs)
    expected = [y.transpose(2, 0, 1, 3), *(state.swapaxes(0, 1) for state in states)]
    assert_same(ours(batch_first, turned), expected)


@pytest.mark.parametrize("op", OPS)
def test_a_first_state_for_one_serves_all(op: str) -> None:
    names = "xwrbh" + "c" * (op == "LSTM")
    inputs = drawn(op, 1, names=names)
    alone = {name: x[:, :1] if name in "hc" else x for name, x in inputs.items()}
    spread = {name: x.repeat(COUNT, 1) if name in "hc" else x for name, x in alone.items()}
    model = model_of(node_of(op, names), alone, 14, stored="h")
    expected = runtime(model_of(node_of(op, names), spread, 14), spread)
    assert_same(ours(model, alone), expected)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("special", [{}, {"clip": 100.0}], ids=["fused", "stepped"])
def test_weights_are_the_files_own_and_all_get_gradients(op: str, special: dict[str, Any]) -> None:
    names = "xwrbhcp" if op == "LSTM" and special else "xwrbhc" if op == "LSTM" else "xwrbh"
    inputs = drawn(op, 2, names=names)
    weights = set(names) & set("wrbp")
    node = node_of(op, names, direction="bidirectional", linear_before_reset=1, **special)
    if op != "GRU":
        node.attribute.remove(next(a for a in node.attribute if a.name == "linear_before_reset"))
    bound = imported(model_of(node, inputs, 14, stored=[*weights, "h"]))
    assert {name for name, tie in bound.ties.items() if tie.role is Role.WEIGHT} == weights
    given = [torch.from_numpy(inputs[name]).double() for name in names if name not in weights | {"h"}]
    for module in (bound, copy.deepcopy(bound), pickle.loads(pickle.dumps(bound))):  # noqa: S301 - our own
        module.double().zero_grad()
        sum(y.square().sum() for y in module(*given)).backward()
        for name in weights:
            parameter = module.tensor(name)
            assert parameter.grad.isfinite().all()
            assert (parameter.grad != 0).any()


@pytest.mark.parametrize("op", OPS)
def test_gradients_of_kernel_and_steps_agree(op: str) -> None:
    inputs = drawn(op, 2)
    attributes = {"direction": "bidirectional"} | ({"linear_before_reset": 1} if op == "GRU" else {})
    found = []
    for special in ({}, {"clip": 100.0}):
        model = model_of(node_of(op, "xwrb", **attributes, **special), inputs, 14, stored="wrb")
        bound = imported(model)
        x = torch.from_numpy(inputs["x"]).requires_grad_()
        bound(x)[0].square().sum().backward()
        found.append([x.grad.numpy(), *(bound.tensor(name).grad.numpy() for name in "wrb")])
    assert_same(*found)


@pytest.mark.parametrize("op", OPS)
def test_onnxs_reference_agrees_too(op: str) -> None:
    inputs = drawn(op, 1)
    model = model_of(node_of(op, "xwrb"), inputs, 22, stored="wrb")
    assert_same(ours(model, inputs), reference(model, inputs))


@pytest.mark.parametrize(
    ("attributes", "why"),
    [
        ({"activations": ["Swish", "Tanh", "Tanh"]}, "no activation 'swish'"),
        ({"activations": ["Tanh"]}, "names 1 activations, expected 3"),
        ({"direction": "backward"}, "direction is 'backward'"),
    ],
)
def test_what_cannot_be_right_is_refused_at_conversion(attributes: dict[str, Any], why: str) -> None:
    inputs = drawn("LSTM", 1)
    with pytest.raises(UnsupportedOpError, match=why):
        imported(model_of(node_of("LSTM", "xwrb", **attributes), inputs, 14, stored="wrb"))


def test_a_number_that_fills_a_first_state_is_no_weight(tmp_path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[5, N, 6] x) => (float[5, 1, N, 2] y) {
        n = Shape<start = 1, end = 2>(x) s = Concat<axis = 0>(one, n, two) h = Expand(zero, s)
        y, z = RNN<hidden_size = 2>(x, w, r, , , h) }"""
    model = onnx.parser.parse_model(text)
    stored = {"one": np.array([1]), "two": np.array([2]), "zero": np.zeros(1, "f4")}
    stored |= {"w": np.ones((1, 2, 6), "f4"), "r": np.ones((1, 2, 2), "f4")}
    model.graph.initializer.extend(numpy_helper.from_array(x, name) for name, x in stored.items())
    onnx.save(model, tmp_path / "rnn.onnx")
    assert set(to_torch(tmp_path / "rnn.onnx").bindings) == {"w", "r"}


REAL = Path(__file__).parents[3] / "../shared/models/zoo"


@pytest.mark.parametrize(("name", "shape"), [("nids_cnn_lstm", (6, 77)), ("tract_byte_lstm", (3, 11))])
def test_real_models_train_and_are_written_back(name: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    if not (REAL / f"{name}.onnx").exists():
        pytest.skip("real models are not here: ../shared/models is absent")
    path, generator = REAL / f"{name}.onnx", np.random.default_rng(0)
    bound = to_torch(path)
    given = (
        generator.random(shape, "f4") if name.startswith("nids") else generator.integers(0, 255, shape, "u1")
    )
    labels = torch.arange(len(given)) % 2
    before = {name: parameter.detach().clone() for name, parameter in bound.bindings.items()}
    optimiser = torch.optim.Adam(bound.parameters(), lr=1e-3)
    losses = []
    for _ in range(8):
        scores = bound(torch.from_numpy(given))
        scores = scores.flatten(0, -2)[: len(labels)]
        losses.append(torch.nn.functional.cross_entropy(scores, labels))
        optimiser.zero_grad()
        losses[-1].backward()
        optimiser.step()
    assert losses[-1] < losses[0]
    assert all((parameter != before[name]).any() for name, parameter in bound.bindings.items())
    write_back(bound, tmp_path / "trained.onnx")
    session = ort.InferenceSession(tmp_path / "trained.onnx", providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {session.get_inputs()[0].name: given})
    np.testing.assert_allclose(bound(torch.from_numpy(given)).detach(), expected, rtol=1e-4, atol=1e-4)
