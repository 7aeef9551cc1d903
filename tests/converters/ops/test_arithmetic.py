"""Arithmetic on two tensors or more, at every version and in every dtype."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.converters.ops.single import (
    Array,
    assert_agrees,
    assert_same,
    imported,
    kinds,
    one,
    ours,
    versions,
)

BINARY = ("Add", "Sub", "Mul", "Div", "Mod")
VARIADIC = ("Max", "Min", "Mean", "Sum")


def drawn(kind: str, shape: tuple[int, ...], seed: int = 0) -> Array:
    """Return numbers that are not zero, over the whole range where they are unsigned."""
    generator, dtype = np.random.default_rng(seed), np.dtype(kind)
    if dtype.kind == "u":
        return generator.integers(1, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    values: NDArray[np.float64] = generator.uniform(1, 20, shape) * generator.choice([-1, 1], shape)
    return values.astype(dtype)


@pytest.mark.parametrize(("op", "version"), versions(*BINARY))
def test_arithmetic_agrees_with_onnxs_reference(op: str, version: int) -> None:
    for kind in kinds(op, version):
        modes = [{"fmod": 1}] if op == "Mod" and kind.startswith("float") and version < 28 else [{}]
        modes += [{"fmod": 1}] if op == "Mod" and version >= 13 else []
        for mode in modes:
            a, b = drawn(kind, (2, 3, 4)), drawn(kind, (2, 3, 4), seed=1)
            assert_agrees(op, a, b, opset=version, expected=_expected(op, a, b, mode), **mode)
            if version >= 7:  # which broadcast as numpy does
                b = drawn(kind, (3, 1), seed=1)
                assert_agrees(op, a, b, opset=version, expected=_expected(op, a, b, mode), **mode)


def _expected(op: str, a: Array, b: Array, mode: dict[str, int]) -> list[Array] | None:
    """Return quotients of integers, which the reference rounds down, and None for what it gets right."""
    if op != "Div" or a.dtype.kind == "f":
        return None
    quotient = np.abs(a.astype(object)) // np.abs(b.astype(object))
    return [(quotient * np.sign(a.astype(object)) * np.sign(b.astype(object))).astype(a.dtype)]


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div", "Pow"])
@pytest.mark.parametrize("version", [1, 6])
@pytest.mark.parametrize(
    ("shape", "axis", "seen"),
    [
        ((5,), None, (5,)),
        ((4, 5), None, (4, 5)),
        ((3, 4), 1, (3, 4, 1)),
        ((2,), 0, (2, 1, 1, 1)),
        ((3,), 1, (3, 1, 1)),
        ((3,), -3, (3, 1, 1)),
        ((5,), -1, (5,)),
        ((4, 5), -1, (4, 5)),
        ((1, 1), None, (1, 1)),
        ((), None, ()),
        ((1,), 0, (1,)),
    ],
)
def test_old_versions_broadcast_from_an_axis(
    op: str, version: int, shape: tuple[int, ...], axis: int | None, seen: tuple[int, ...]
) -> None:
    a, b = np.abs(drawn("float32", (2, 3, 4, 5))), np.abs(drawn("float32", shape, seed=1)) / 10
    function = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide, "Pow": np.power}[op]
    given = {"broadcast": 1} | ({} if axis is None else {"axis": axis})
    assert_agrees(op, a, b, opset=version, expected=[function(a, b.reshape(seen))], **given)


@pytest.mark.parametrize("stored", [(), (1,)])
def test_old_broadcasting_lets_gradients_through(stored: tuple[int, ...]) -> None:
    a, b = drawn("float32", (2, 3, 4)), drawn("float32", (3,), seed=1)
    bound = imported(one("Mul", a, b, opset=6, stored=stored, broadcast=1, axis=1)[0])
    bias = bound.bindings["i1"] if stored else torch.from_numpy(b).requires_grad_()
    bound(*[torch.from_numpy(a), *([] if stored else [bias])]).sum().backward()
    np.testing.assert_allclose(bias.grad, a.sum((0, 2)), rtol=1e-5)


@pytest.mark.parametrize(("op", "version"), versions(*VARIADIC))
def test_any_number_of_tensors(op: str, version: int) -> None:
    for kind in kinds(op, version):
        tensors = [drawn(kind, (2, 3, 4), seed) for seed in range(3)]
        if version >= 8:
            tensors += [drawn(kind, (3, 1), 3), drawn(kind, (), 4)]
        assert_agrees(op, *tensors, opset=version)
        assert_agrees(op, tensors[0], opset=version)


def test_extremes_of_what_is_no_number_are_none() -> None:
    a, b = np.array([np.nan, 1, 2], "float32"), np.array([0, np.nan, 1], "float32")
    assert_agrees("Max", a, b, opset=13)
    assert_agrees("Min", a, b, opset=13)


@pytest.mark.parametrize("version", [13, 28])
def test_remainders_at_the_edges(version: int) -> None:
    a = np.array([0.0, -0.0, 1, -1, np.inf, 1, 2.5, -2.5, np.nan], "float32")
    b = np.array([-1, 1, np.inf, np.inf, 1, 0, -2, 2, 1], "float32")
    with np.errstate(invalid="ignore"):
        assert_agrees("Mod", a, b, opset=version, fmod=1, expected=[np.fmod(a, b)])
    if version == 28:
        found = ours(*one("Mod", a, b, opset=28))
        assert_same(found, [np.array([-0.0, 0.0, 1, np.inf, np.nan, np.nan, -1.5, 1.5, np.nan], "float32")])
        assert np.signbit(found[0][:2]).tolist() == [True, False]


@pytest.mark.parametrize(("op", "version"), versions("Pow"))
def test_a_power_has_the_dtype_of_its_base(op: str, version: int) -> None:
    for base in kinds(op, version):
        for exponent in kinds(op, version, 1) if version >= 12 else [base]:
            a, b = np.array([[1, 2, 3], [4, 5, 6]], base), np.array([0, 1, 3], exponent)
            wide = np.power(a.astype("float64"), b.astype("float64")).astype(base)
            shape = (3,) if version >= 7 else (2, 3)
            assert_agrees(op, a, np.broadcast_to(b, shape).copy(), opset=version, expected=[wide])
            if version >= 7:
                squared = np.array(2, exponent)
                for stored in [(), (1,)]:
                    assert_agrees(op, a, squared, opset=version, stored=stored, expected=[a * a])


def test_roots_of_integers_are_cut() -> None:
    a = np.array([4, 8, 2**30], "int32")
    expected = [np.array([2, 2, 2**15], "int32")]
    for stored in [(), (1,)]:
        assert_agrees("Pow", a, np.array(0.5, "float32"), opset=15, stored=stored, expected=expected)


def test_integers_to_a_negative_power() -> None:
    a, b = np.array([1, -1, 2, -3], "int64"), np.array(-1, "int64")
    for stored in [(), (1,)]:
        assert_agrees("Pow", a, b, opset=15, stored=stored, expected=[np.array([1, -1, 0, 0])])


def test_a_square_has_a_gradient_at_zero() -> None:
    bound = imported(one("Pow", np.zeros(3, "f4"), np.array(2, "f4"), opset=15, stored=[1])[0])
    x = torch.tensor([0.0, -1.0, 2.0], requires_grad=True)
    bound(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, -2, 4]


@pytest.mark.parametrize(("op", "version"), [entry for entry in versions("Clip") if entry[1] >= 11])
def test_clip_by_inputs(op: str, version: int) -> None:
    for kind in kinds(op, version):
        x, low, high = drawn(kind, (2, 3, 4)), np.array(3, kind), np.array(9, kind)
        assert_agrees(op, x, low, high, opset=version)
        assert_agrees(op, x, high, low, opset=version, stored=(1, 2), expected=[np.full_like(x, 3)])
        assert_agrees(op, x, low, opset=version, stored=(1,))
        assert_agrees(op, x, None, high, opset=version)


def test_clip_with_one_bound_stored_or_none_given() -> None:
    x, low, high = drawn("float32", (2, 3, 4)), np.array(3, "float32"), np.array(9, "float32")
    assert_agrees("Clip", x, low, high, opset=13, stored=(1,))
    assert_agrees("Clip", x, low, high, opset=13, stored=(2,))
    assert_agrees("Clip", x, opset=13)


@pytest.mark.parametrize("version", [1, 6])
def test_clip_by_attributes(version: int) -> None:
    for kind in kinds("Clip", version):
        x = drawn(kind, (2, 3, 4))
        for given in [{"min": -2.5, "max": 3.5}, {"min": 1.0}, {"max": 0.0}, {}]:
            expected = np.clip(x, given.get("min", -np.inf), given.get("max", np.inf)).astype(kind)
            assert_agrees("Clip", x, opset=version, expected=[expected], **given)
    largest = np.finfo("float32").max
    x, expected = np.array([np.inf, -np.inf], "float32"), np.array([largest, -largest])
    assert_agrees("Clip", x, opset=version, expected=[expected])


def test_clip_lets_gradients_through_between_bounds_that_are_computed() -> None:
    model, _ = one("Clip", *(np.zeros(shape, "f4") for shape in [(3,), (), ()]), opset=13)
    x = torch.tensor([-2.0, 0.5, 2.0], requires_grad=True)
    low = torch.tensor(-1.0, requires_grad=True)
    imported(model)(x, low, torch.tensor(1.0)).sum().backward()
    assert x.grad is not None
    assert low.grad is not None
    assert (x.grad.tolist(), low.grad.item()) == ([0, 1, 0], 1)
