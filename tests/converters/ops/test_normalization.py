"""Layers that normalise, against onnxruntime, or onnx's reference where that lacks the version."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from mothkit_converters import Role, UnsupportedOpError, normalises
from tests.converters.ops.single import (
    Array,
    assert_agrees,
    assert_same,
    imported,
    one,
    ours,
    reference,
    runtime,
)


def drawn(*shape: int) -> Array:
    return np.random.default_rng(shape).uniform(0.2, 1.5, shape).astype("f4")


def statistics(*shape: int) -> list[Array]:
    return [drawn(*shape) + i / 10 for i in range(4)]


def check(op: str, *inputs: Any, opset: int, **given: Any) -> None:
    model, values = one(op, *inputs, opset=opset, **given)
    assert_same(ours(model, values), runtime(model, values))


SHAPES = [(2, 3), (2, 3, 5), (2, 3, 4, 5), (2, 3, 4, 2, 5)]


@pytest.mark.parametrize("opset", [7, 9, 14, 15])
@pytest.mark.parametrize("stored", [range(1, 5), (1, 2, 3), (3, 4), ()])
@pytest.mark.parametrize("shape", SHAPES)
def test_batch_normalisation(shape: tuple[int, ...], stored: Any, opset: int) -> None:
    check("BatchNormalization", drawn(*shape), *statistics(3), opset=opset, stored=stored, epsilon=0.1)


@pytest.mark.parametrize("opset", [1, 6])
def test_batch_normalisation_of_the_first_versions(opset: int) -> None:
    x, numbers = drawn(2, 3, 4, 5), statistics(3)
    newer, values = one("BatchNormalization", x, *numbers, opset=7)
    given: dict[str, Any] = {"consumed_inputs": [0, 0, 0, 1, 1]} if opset == 1 else {}
    wanted = runtime(newer, values)
    assert_agrees("BatchNormalization", x, *numbers, opset=opset, expected=wanted, is_test=1, **given)
    with pytest.raises(UnsupportedOpError, match="is_test is 0"):
        imported(one("BatchNormalization", x, *numbers, opset=opset, **given)[0])


def test_statistics_of_each_place() -> None:
    for stored in ((), range(1, 5)):
        inputs = (drawn(2, 3, 4, 5), *statistics(3, 4, 5))
        check("BatchNormalization", *inputs, opset=7, stored=stored, spatial=0)


@pytest.mark.parametrize(("opset", "outputs"), [(7, 5), (9, 5), (14, 3), (15, 3)])
def test_batch_normalisation_in_training_mode(opset: int, outputs: int) -> None:
    mode = {"training_mode": 1} if opset > 9 else {}
    given = {"outputs": outputs, "opset": opset, "momentum": 0.7, **mode}
    model, values = one("BatchNormalization", drawn(2, 3, 4, 5), *statistics(3), **given)
    assert_same(ours(model, values)[:3], runtime(model, values)[:3])


def test_the_first_version_in_training_mode() -> None:
    x, numbers = drawn(2, 3, 4, 5), statistics(3)
    model, values = one("BatchNormalization", x, *numbers, opset=14, outputs=3, training_mode=1)
    wanted = runtime(model, values)
    model, values = one("BatchNormalization", x, *numbers, opset=6, outputs=5)
    assert_same(ours(model, values)[:3], wanted)


def test_an_unused_output_does_not_end_training_mode() -> None:
    model, values = one("BatchNormalization", drawn(2, 3, 4), *statistics(3), opset=9, outputs=5)
    del model.graph.output[1:]
    assert_same(ours(model, values), runtime(model, values))


def test_statistics_move_only_where_they_are_stored() -> None:
    inputs = (drawn(8, 3), *statistics(3))
    moving = imported(one("BatchNormalization", *inputs, opset=15, stored=range(1, 5))[0]).train()
    x = torch.from_numpy(inputs[0])
    assert moving(x).mean(0).sub(torch.from_numpy(inputs[2])).abs().max() < 1e-5
    assert moving.ties["i3"].role is Role.STATISTIC
    assert not np.array_equal(moving.tensor("i3").numpy(), inputs[3])
    computed = imported(one("BatchNormalization", *inputs, opset=15, stored=[1, 2])[0])
    numbers = [torch.from_numpy(inputs[i]) for i in (0, 3, 4)]
    assert torch.equal(computed.train()(*numbers), computed.eval()(*numbers))
    assert torch.equal(numbers[1], torch.from_numpy(inputs[3]))


@pytest.mark.parametrize("opset", [6, 22])
@pytest.mark.parametrize("shape", [*SHAPES[1:], (2, 3, 1)])
def test_instance_normalisation(shape: tuple[int, ...], opset: int) -> None:
    inputs = (drawn(*shape), drawn(3), drawn(3) / 2)
    newer, values = one("InstanceNormalization", *inputs, opset=7, epsilon=0.01)
    wanted = runtime(newer, values)
    given: dict[str, Any] = {"opset": opset, "expected": wanted, "epsilon": 0.01}
    assert_agrees("InstanceNormalization", *inputs, stored=[1, 2], **given)
    assert_agrees("InstanceNormalization", *inputs, **given)


def test_instance_normalisation_of_the_first_version() -> None:
    inputs = (drawn(2, 3, 4), drawn(3), drawn(3) / 2)
    newer, values = one("InstanceNormalization", *inputs, opset=7)
    given: dict[str, Any] = {"consumed_inputs": [0, 0, 0], "expected": runtime(newer, values)}
    assert_agrees("InstanceNormalization", *inputs, opset=1, **given)


@pytest.mark.parametrize(
    ("axis", "scale", "bias"),
    [
        (-1, (5,), (5,)),
        (2, (4, 5), (4, 5)),
        (-3, (3, 4, 5), None),
        (0, (2, 3, 4, 5), (2, 3, 4, 5)),
        (1, (5,), (4, 1)),
    ],
)
@pytest.mark.parametrize("outputs", [1, 2, 3])
def test_layer_normalisation(axis: int, scale: Any, bias: Any, outputs: int) -> None:
    inputs = [drawn(2, 3, 4, 5), drawn(*scale), *([] if bias is None else [drawn(*bias)])]
    model, values = one("LayerNormalization", *inputs, opset=17, outputs=outputs, axis=axis, epsilon=0.01)
    expected = judged(model, values, exact=tuple(scale) == inputs[0].shape[axis:])
    assert_same(ours(model, values), expected)


def judged(model: Any, values: Any, *, exact: bool) -> list[Array]:
    return runtime(model, values) if exact else reference(model, values)


def test_means_of_a_double_are_kept_in_float32() -> None:
    inputs = [drawn(2, 3, 4).astype("f8"), drawn(4).astype("f8")]
    model, values = one("LayerNormalization", *inputs, opset=17, outputs=3)
    assert [y.dtype.name for y in ours(model, values)] == ["float64", "float32", "float32"]


@pytest.mark.parametrize(("opset", "scale"), [(18, 2), (21, 6)])
@pytest.mark.parametrize("shape", [(2, 6, 5), (3, 6, 4, 5), (1, 6, 1, 1)])
def test_group_normalisation(shape: tuple[int, ...], opset: int, scale: int) -> None:
    x, factors, bias = drawn(*shape), drawn(scale), drawn(scale) / 2
    groups = x.reshape(shape[0], 2, -1)
    normal = (groups - groups.mean(-1, keepdims=True)) / np.sqrt(groups.var(-1, keepdims=True) + 0.01)
    each = [np.repeat(v, 6 // scale).reshape(6, *[1] * (len(shape) - 2)) for v in (factors, bias)]
    wanted = [normal.reshape(shape) * each[0] + each[1]]
    given: dict[str, Any] = {"num_groups": 2, "epsilon": 0.01, "expected": wanted}
    assert_agrees("GroupNormalization", x, factors, bias, opset=opset, stored=[1, 2], **given)


@pytest.mark.parametrize(
    ("axis", "scale"), [(-1, (5,)), (1, (3, 4, 5)), (1, (5,)), (-2, (4, 1)), (0, (2, 3, 4, 5))]
)
def test_rms_normalisation(axis: int, scale: tuple[int, ...]) -> None:
    assert_agrees("RMSNormalization", drawn(2, 3, 4, 5), drawn(*scale), opset=23, axis=axis, epsilon=0.01)


@pytest.mark.parametrize("opset", [1, 22])
@pytest.mark.parametrize(("axis", "p"), [(-1, 1), (1, 2), (0, 2), (-2, 1)])
def test_lp_normalisation(axis: int, p: int, opset: int) -> None:
    x = drawn(2, 3, 4)
    x[:, 1] = 0
    model, values = one("LpNormalization", x, opset=7, axis=axis, p=p)
    assert_agrees("LpNormalization", x, opset=opset, axis=axis, p=p, expected=runtime(model, values))
    zeros = torch.zeros(2, 3, 4, requires_grad=True)
    imported(model)(zeros).sum().backward()
    assert zeros.grad is not None
    assert torch.isfinite(zeros.grad).all()


@pytest.mark.parametrize("opset", [7, 13])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 9])
def test_local_response_normalisation(size: int, opset: int) -> None:
    given: dict[str, Any] = {"alpha": 0.5, "beta": 0.6, "bias": 2.0}
    x = drawn(7, 7, 4, 5)  # the reference normalises as many channels as there are images
    model, values = one("LRN", x, opset=opset, size=size, **given)
    expected = runtime(model, values) if size % 2 else reference(model, values)
    assert_same(ours(model, values), expected)


@pytest.mark.parametrize("opset", [9, 13])
@pytest.mark.parametrize("axes", [None, [0, 2, 3], [1, -1], [2]])
def test_mean_variance_normalisation(axes: list[int] | None, opset: int) -> None:
    given: dict[str, Any] = {} if axes is None else {"axes": axes}
    check("MeanVarianceNormalization", drawn(2, 3, 4, 5), opset=opset, **given)


@pytest.mark.parametrize(
    ("op", "shapes", "attributes"),
    [
        ("BatchNormalization", [(2, 4, 5), (4,), (4,), (4,), (4,)], {}),
        ("InstanceNormalization", [(2, 4, 5), (4,), (4,)], {}),
        ("LayerNormalization", [(2, 4, 5), (5,)], {}),
        ("GroupNormalization", [(2, 4, 5), (4,), (4,)], {"num_groups": 2}),
        ("RMSNormalization", [(2, 4, 5), (5,)], {}),
        ("Relu", [(2, 4, 5)], {}),
    ],
)
def test_a_layer_that_normalises_is_told(op: str, shapes: Any, attributes: dict[str, Any]) -> None:
    model, _ = one(op, *(drawn(*shape) for shape in shapes), opset=23, **attributes)
    assert any(map(normalises, imported(model).modules())) == (op != "Relu")


def test_torchs_own_layers_are_told() -> None:
    assert normalises(torch.nn.BatchNorm2d(3))
    assert not normalises(torch.nn.Linear(3, 3))
