"""Comparisons, logic and bits, at every version and in every dtype."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mothkit_converters.binding import Role
from tests.converters.ops.single import Array, assert_agrees, imported, kinds, one, versions

COMPARISONS = {
    "Equal": np.equal,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
}
LOGIC = {"And": np.logical_and, "Or": np.logical_or, "Xor": np.logical_xor}
BITS = ("BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitwiseNot")


def drawn(kind: str, shape: tuple[int, ...], seed: int = 0) -> Array:
    """Return numbers from the ends of the range and its middle, with many equal ones."""
    dtype = np.dtype(kind)
    ends = [0, 1] if dtype.kind == "b" else [-1e30, 1e30] if dtype.kind == "f" else [*_ends(dtype)]
    return np.random.default_rng(seed).choice(np.array([0, 1, *ends], dtype), shape)


def _ends(dtype: np.dtype) -> tuple[int, int, int]:
    return np.iinfo(dtype).min, np.iinfo(dtype).max, np.iinfo(dtype).max - 1


@pytest.mark.parametrize(("op", "version"), versions(*COMPARISONS, *LOGIC))
def test_comparisons_and_logic(op: str, version: int) -> None:
    function = {**COMPARISONS, **LOGIC}[op]
    for kind in kinds(op, version):
        a, b = drawn(kind, (2, 3, 4)), drawn(kind, (2, 3, 4), seed=1)
        assert_agrees(op, a, b, opset=version, expected=[function(a, b)])
        if version >= 7:  # which broadcast as numpy does
            b = drawn(kind, (3, 1), seed=1)
            assert_agrees(op, a, b, opset=version, expected=[function(a, b)])


@pytest.mark.parametrize("op", ["Equal", "Greater", "Less", *LOGIC])
def test_version_1_broadcasts_from_an_axis(op: str) -> None:
    (kind, *_) = kinds(op, 1)
    a, b = drawn(kind, (2, 3, 4)), drawn(kind, (3,), seed=1)
    expected = {**COMPARISONS, **LOGIC}[op](a, b[:, None])
    assert_agrees(op, a, b, opset=1, expected=[expected], broadcast=1, axis=1)


def test_nothing_compares_to_what_is_no_number() -> None:
    a, b = np.array([np.nan, 1], "float32"), np.array([np.nan, np.nan], "float32")
    for op, function in COMPARISONS.items():
        assert_agrees(op, a, b, opset=19, expected=[function(a, b)])


@pytest.mark.parametrize("stored", [(), (1,)])
def test_a_bound_that_is_compared_to_is_no_weight(stored: tuple[int, ...]) -> None:
    x, bound = drawn("float32", (2, 3)), np.ones(3, "float32")
    module = imported(one("Less", x, bound, opset=13, stored=stored)[0])
    assert not list(module.parameters())
    assert all(tie.role is not Role.WEIGHT for tie in module.ties.values())


@pytest.mark.parametrize("op", BITS)
def test_bits(op: str) -> None:
    for kind in kinds(op, 18):
        operands = [drawn(kind, (2, 3, 4)), drawn(kind, (3, 1), seed=1)][: 1 if op == "BitwiseNot" else 2]
        assert_agrees(op, *operands, opset=18)


@pytest.mark.parametrize(("op", "version"), versions("BitShift"))
@pytest.mark.parametrize("direction", ["LEFT", "RIGHT"])
def test_shifts(op: str, version: int, direction: str) -> None:
    for kind in kinds(op, version):
        bits = np.iinfo(kind).bits
        x = np.concatenate([drawn(kind, (8,)), np.array([1, 2, 100], kind)])
        by = np.array([0, 1, 3, bits - 1, bits, bits + 1, 120], kind)[:, None]
        assert_agrees(op, x, by, opset=version, expected=[_shifted(x, by, direction)], direction=direction)


def test_shifts_by_less_than_nothing_leave_the_sign() -> None:
    x, by = np.array([5, -5], "int32"), np.array(-1, "int32")
    assert_agrees("BitShift", x, by, opset=28, expected=[np.array([0, -1], "int32")], direction="RIGHT")
    assert_agrees("BitShift", x, by, opset=28, expected=[np.array([0, 0], "int32")], direction="LEFT")


def _shifted(x: Array, by: Array, direction: str) -> Array:
    """Return what Python's integers, which have no end, make of it."""
    span = 1 << np.iinfo(x.dtype).bits
    values, amounts = (array.astype(object) for array in np.broadcast_arrays(x, by))
    found = np.vectorize(lambda a, n: a >> n if direction == "RIGHT" else (a << n) % span, otypes=[object])
    return (
        found(values, amounts).astype("uint64").astype(x.dtype)
        if x.dtype.kind == "u"
        else _signed(found(values, amounts), span, x.dtype)
    )


def _signed(values: Array, span: int, dtype: np.dtype) -> Array:
    return np.vectorize(lambda v: v - span if v >= span // 2 else v, otypes=[object])(values).astype(dtype)


@pytest.mark.parametrize(("op", "version"), versions("IsInf"))
def test_infinities(op: str, version: int) -> None:
    for kind in kinds(op, version):
        x = np.array([[np.nan, np.inf, -np.inf], [0, 1e30, -3]], kind)
        for below in (0, 1):
            for above in (0, 1):
                assert_agrees(op, x, opset=version, detect_negative=below, detect_positive=above)


@pytest.mark.parametrize(("op", "version"), versions("IsNaN"))
def test_what_is_no_number(op: str, version: int) -> None:
    assert_agrees(op, np.array([np.nan, np.inf, 0], "float64"), opset=version)


@pytest.mark.parametrize(("op", "version"), versions("Where"))
def test_choices(op: str, version: int) -> None:
    condition = drawn("bool", (4, 1, 3))
    for kind in kinds(op, version, 1):
        a, b = drawn(kind, (2, 1)), drawn(kind, (), seed=1)
        assert_agrees(op, condition, a, np.asarray(b), opset=version, expected=[np.where(condition, a, b)])


def test_a_choice_lets_gradients_through_to_what_was_chosen() -> None:
    a, b = np.ones((2, 2), "f4"), np.zeros((2, 2), "f4")
    module = imported(one("Where", np.eye(2) > 0, a, b, opset=16, stored=[1, 2])[0])
    module(torch.eye(2) > 0).sum().backward()
    assert module.bindings["i1"].grad is not None
    assert module.bindings["i1"].grad.tolist() == [[1, 0], [0, 1]]
