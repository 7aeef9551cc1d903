"""Reductions at every version, with axes as an attribute or an input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from onnx import defs

from tests.converters.ops.single import Array, assert_agrees, imported, kinds, one, versions

OPS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
ALL = [f"Reduce{op}" for op in OPS]
AXES: list[tuple[int, ...] | None] = [None, (1,), (0, 2), (-1,), (-2, 0), (0, 1, 2)]


def drawn(kind: str, *shape: int) -> Array:
    """Return positive numbers, so that logarithms are defined; small, so that products are."""
    dtype = np.dtype(kind)
    generator = np.random.default_rng(3)
    if dtype.kind == "b":
        return generator.integers(0, 2, shape).astype(dtype)
    return generator.uniform(1, 4, shape).astype(dtype)


def expected(op: str, x: Array, axes: tuple[int, ...] | None, keep: bool) -> Array:
    wide = x if x.dtype.kind == "b" else x.astype("float64")
    functions: dict[str, Any] = {
        "ReduceL1": lambda **at: np.abs(wide).sum(**at),
        "ReduceL2": lambda **at: np.sqrt((wide**2).sum(**at)),
        "ReduceLogSum": lambda **at: np.log(wide.sum(**at)),
        "ReduceLogSumExp": lambda **at: np.log(np.exp(wide).sum(**at)),
        "ReduceMax": lambda **at: wide.max(**at),
        "ReduceMean": lambda **at: wide.mean(**at),
        "ReduceMin": lambda **at: wide.min(**at),
        "ReduceProd": lambda **at: wide.prod(**at),
        "ReduceSum": lambda **at: wide.sum(**at),
        "ReduceSumSquare": lambda **at: (wide**2).sum(**at),
    }
    return np.asarray(functions[op](axis=axes, keepdims=keep)).astype(x.dtype)


def by_input(op: str, version: int) -> bool:
    return len(defs.get_schema(op, max_inclusive_version=version).inputs) > 1


def assert_reduces(op: str, version: int, x: Array, axes: tuple[int, ...] | None, *, keep: bool) -> None:
    wanted, given = [expected(op, x, axes, keep)], {"keepdims": int(keep)}
    if axes is None:
        assert_agrees(op, x, opset=version, expected=wanted, **given)
    elif by_input(op, version):
        for stored in [(), (1,)]:
            assert_agrees(op, x, np.array(axes), opset=version, stored=stored, expected=wanted, **given)
    else:
        assert_agrees(op, x, opset=version, expected=wanted, axes=axes, **given)


@pytest.mark.parametrize(("op", "version"), versions(*ALL))
def test_a_reduction_over_any_axes(op: str, version: int) -> None:
    for axes in AXES:
        if version < 11 and axes and min(axes) < 0:
            continue
        for keep in (True, False):
            assert_reduces(op, version, drawn("float32", 2, 3, 4), axes, keep=keep)


@pytest.mark.parametrize(("op", "version"), versions(*ALL))
def test_a_reduction_keeps_the_dtype(op: str, version: int) -> None:
    for kind in kinds(op, version):
        assert_reduces(op, version, drawn(kind, 2, 3, 2), (0, 1), keep=True)
    assert_reduces(op, version, np.asarray(drawn("float32")), None, keep=True)  # of rank 0


@pytest.mark.parametrize(("op", "version"), [entry for entry in versions(*ALL) if by_input(*entry)])
def test_without_axes_a_reduction_may_do_the_rest_only(op: str, version: int) -> None:
    x = drawn("float32", 2, 3)
    kept = {"ReduceLogSum": np.log, "ReduceSumSquare": np.square}.get(op, np.array)(x)
    none = np.array([], "int64")
    for axes in (none, None):
        inputs = (x,) if axes is None else (x, axes)
        assert_agrees(op, *inputs, opset=version, expected=[kept], noop_with_empty_axes=1)
        assert_agrees(op, *inputs, opset=version, expected=[expected(op, x, None, True)])
    assert_agrees(op, x, none, opset=version, stored=[1], expected=[kept], noop_with_empty_axes=1)


@pytest.mark.parametrize(
    ("op", "nothing"),
    [
        ("ReduceL1", 0),
        ("ReduceL2", 0),
        ("ReduceLogSum", -np.inf),
        ("ReduceLogSumExp", -np.inf),
        ("ReduceMax", -np.inf),
        ("ReduceMin", np.inf),
        ("ReduceProd", 1),
        ("ReduceSum", 0),
        ("ReduceSumSquare", 0),
    ],
)
def test_a_reduction_of_nothing(op: str, nothing: float) -> None:
    x, axes = np.zeros((2, 0, 3), "float32"), np.array([1])
    assert_agrees(op, x, axes, opset=20, expected=[np.full((2, 1, 3), nothing, "float32")])
    assert_agrees(op, x, axes, opset=20, keepdims=0, expected=[np.full((2, 3), nothing, "float32")])


@pytest.mark.parametrize("kind", ["int8", "uint8", "int32", "uint32", "uint64", "int64", "bool"])
def test_extremes_of_integers(kind: str) -> None:
    dtype = np.dtype(kind)
    low, high = (0, 1) if kind == "bool" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    x = np.array([[low, high, 1], [1, low, high]], dtype)
    assert_agrees("ReduceMax", x, np.array([1]), opset=20, expected=[np.array([[high], [high]], dtype)])
    assert_agrees("ReduceMin", x, np.array([0]), opset=20, expected=[np.array([[low, low, 1]], dtype)])
    none = np.zeros((0, 2), dtype)
    assert_agrees("ReduceMax", none, np.array([0]), opset=20, expected=[np.full((1, 2), low, dtype)])
    assert_agrees("ReduceMin", none, np.array([0]), opset=20, expected=[np.full((1, 2), high, dtype)])


def test_the_mean_of_integers_is_cut() -> None:
    x = np.array([[2, 3], [-2, -3]], "int32")
    assert_agrees("ReduceMean", x, np.array([1]), opset=18, expected=[np.array([[2], [-2]], "int32")])
    large = np.full((1, 3), 2**31 - 1, "int32")  # whose sum is beyond int32
    assert_agrees("ReduceMean", large, opset=13, expected=[np.full((1, 1), 2**31 - 1, "int32")])


def test_sums_wrap_as_their_dtype_does() -> None:
    x = np.full(3, 2**32 - 1, "uint32")
    assert_agrees("ReduceSum", x, opset=13, keepdims=0, expected=[np.array(2**32 - 3, "uint32")])
    assert_agrees(
        "ReduceSum", x.astype("uint64") << 32, opset=13, expected=[np.array([2**64 - 3 * 2**32], "uint64")]
    )


@pytest.mark.parametrize("op", ALL)
def test_a_reduction_has_a_finite_gradient(op: str) -> None:
    bound = imported(one(op, np.ones((2, 3), "f4"), np.array([1]), opset=20, stored=[1])[0])
    for start in (torch.rand(2, 3) + 0.5, torch.zeros(2, 3)):
        x = start.clone().requires_grad_()
        bound(x).sum().backward()
        assert x.grad is not None
        if op != "ReduceLogSum" or start.any():  # there is none at log 0
            assert x.grad.isfinite().all()
