"""Gather, Scatter and their like: negative indices, batches, reductions, element types."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from mothkit_converters import UnsupportedOpError
from mothkit_converters.ops.indexing import gather, gather_nd, scatter_elements, scatter_nd
from tests.converters.ops.single import assert_agrees, assert_same, imported, one, ours, runtime

GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(3, 4, 5)).astype(np.float32)


def ints(*numbers: int, dtype: Any = np.int64) -> Any:
    return np.array(numbers, dtype=dtype)


@pytest.mark.parametrize("opset", [1, 11, 13])
@pytest.mark.parametrize("stored", [(), (1,)])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_gather(opset: int, stored: tuple[int, ...], axis: int) -> None:
    for indices in (
        ints(2, 0, 2),
        np.array([[1, -1, -3]], np.int32),
        np.array(-2),
        np.zeros((2, 0), np.int64),
    ):
        expected = [np.take(X, indices, axis)]
        assert_agrees("Gather", X, indices, opset=opset, stored=stored, axis=axis, expected=expected)
    truths = X[:, 0, 0] > 0
    assert_agrees("Gather", truths, np.array(1), opset=opset, stored=stored, expected=[truths[1]])


@pytest.mark.parametrize("opset", [11, 13])
@pytest.mark.parametrize("axis", [0, 2, -2])
def test_gather_elements(opset: int, axis: int) -> None:
    size = X.shape[axis]
    indices = GENERATOR.integers(-size, size, (2, 3, 4), dtype=np.int32)
    whole = GENERATOR.integers(-size, size, X.shape)
    assert_agrees("GatherElements", X, whole, opset=opset, axis=axis)
    model, values = one("GatherElements", X, indices, opset=opset, axis=axis)
    assert_same(ours(model, values), runtime(model, values))


@pytest.mark.parametrize("opset", [11, 12, 13])
def test_gather_nd(opset: int) -> None:
    for indices in (ints(-1), ints(1, -2), ints(1, 2, 3), [[[0, -1]], [[2, 3]]], np.zeros((0, 2), np.int64)):
        assert_agrees("GatherND", X, np.asarray(indices), opset=opset)


@pytest.mark.parametrize("opset", [12, 13])
def test_gather_nd_in_batches(opset: int) -> None:
    one_batch = np.array([[[1], [-1]], [[0], [2]], [[3], [3]]])
    assert_agrees("GatherND", X, one_batch, opset=opset, batch_dims=1)
    assert_agrees("GatherND", X, one_batch[:, 0], opset=opset, batch_dims=1)
    two = GENERATOR.integers(-5, 5, (3, 4, 1))
    assert_agrees("GatherND", X, two, opset=opset, batch_dims=2)


def test_scatter_was_another_name() -> None:
    indices, updates = np.array([[1, -1], [0, 2]]), np.array([[9, 8], [7, 6]], np.float32)
    data = X[0, :2]
    expected = data.copy()
    expected[0, [1, -1]], expected[1, [0, 2]] = [9, 8], [7, 6]
    assert_agrees("Scatter", data, indices, updates, opset=9, axis=1, expected=[expected])


@pytest.mark.parametrize(
    ("opset", "reduction"),
    [(11, None), (13, None), *[(16, r) for r in ("none", "add", "mul")]]
    + [(18, r) for r in ("none", "add", "mul", "max", "min")],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.int64, np.uint8])
def test_scatter_with_reductions(opset: int, reduction: str | None, dtype: Any) -> None:
    named = {} if reduction is None else {"reduction": reduction}
    data = (X[0] * 3 + 9).astype(dtype)
    twice = -1 if reduction in (None, "none") else 1  # the same place twice, where that has a meaning
    rows, updates = ints(1, twice, 0)[:, None], np.array([[2], [5], [7]], dtype)
    assert_agrees("ScatterElements", data, rows, updates, opset=opset, axis=-2, **named)
    assert_agrees("ScatterND", data, ints(1, twice, 0)[:, None], data[1:] * 2, opset=opset, **named)
    places = np.array([[1, -2], [twice, 3], [0, 0]])
    assert_agrees("ScatterND", data, places, updates[:, 0], opset=opset, **named)
    assert_agrees("ScatterND", data, ints(2, -1), np.asarray(updates[0, 0]), opset=opset, **named)


@pytest.mark.parametrize("reduction", ["none", "add", "mul", "max", "min"])
def test_truths_are_scattered_as_onnxruntime_does(reduction: str) -> None:
    data, updates = np.array([True, False, True, False]), np.array([False, True, False])
    for shape, op in (((3,), "ScatterElements"), ((3, 1), "ScatterND")):
        indices = ints(0, 1, -1).reshape(shape)
        model, values = one(op, data, indices, updates, opset=18, reduction=reduction)
        try:
            expected = runtime(model, values)
        except Exception as error:  # onnxruntime has no such kernel
            assert "not" in str(error).lower()
            expected = [_by_hand(data, ints(0, 1, -1), updates, reduction)]
        assert_same(ours(model, values), expected)


def _by_hand(data: Any, indices: Any, updates: Any, reduction: str) -> Any:
    made = data.copy()
    for place, update in zip(indices, updates, strict=True):
        joined = {"none": update, "add": made[place] or update, "max": made[place] or update}
        made[place] = joined.get(reduction, made[place] and update)
    return made


@pytest.mark.parametrize("op", ["ScatterElements", "ScatterND"])
def test_a_reduction_of_a_later_version_is_refused(op: str) -> None:
    given = (X[0], np.zeros((1, 1), np.int64), X[:1, 0, :1] if op == "ScatterElements" else X[:1, 0])
    with pytest.raises(UnsupportedOpError, match="its reduction 'max' is none of none, add, mul"):
        imported(one(op, *given, opset=16, reduction="max")[0])
    with pytest.raises(UnsupportedOpError, match="'mean'"):
        imported(one(op, *given, opset=18, reduction="mean")[0])


@pytest.mark.parametrize("opset", [9, 11, 28])
@pytest.mark.parametrize("axis", [-1, 0, 1])
@pytest.mark.parametrize("depth", [np.array(4), np.array([4.0], np.float32), np.array(4, np.int32)])
def test_one_hot(opset: int, axis: int, depth: Any) -> None:
    indices = np.array([[0, 3, -1], [2, -4, 1]])
    for values in (np.array([0.5, 2], np.float32), ints(7, 9), np.array([True, False])):
        hot = np.moveaxis(np.eye(4, dtype=bool)[indices], -1, axis)
        expected = [np.where(hot, values[1], values[0])]
        for stored in ((), (1, 2)):
            given = (indices, depth, values)
            assert_agrees("OneHot", *given, opset=opset, axis=axis, stored=stored, expected=expected)


def test_an_index_outside_is_cold() -> None:
    values = np.array([0, 1], np.float32)
    for indices in (ints(5, -6, 2, 3), np.array([5, -6, 2.5, 3], np.float32)):
        depth = np.array(4, indices.dtype)
        model, feeds = one("OneHot", indices, depth, values, opset=11)
        assert_same(ours(model, feeds), runtime(model, feeds))


@pytest.mark.parametrize("opset", [9, 11, 28])
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_compress(opset: int, axis: int | None) -> None:
    for condition in (np.array([False, True, True]), np.array([True]), np.array([False])):
        named = {} if axis is None else {"axis": axis}
        expected = [np.compress(condition, X, axis)]
        assert_agrees("Compress", X, condition, opset=opset, expected=expected, **named)


def test_compress_counts_axes_from_the_end() -> None:
    assert_agrees("Compress", X, np.array([False, True]), opset=11, axis=-1)


@pytest.mark.parametrize("opset", [9, 13])
@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.bool_])
def test_non_zero(opset: int, dtype: Any) -> None:
    x = np.array([[1, 0, 3], [0, 0, 2]]).astype(dtype)
    for given in (x, x[0], x * 0):
        assert_agrees("NonZero", given, opset=opset)


@pytest.mark.parametrize("opset", [10, 28])
def test_reverse_sequence(opset: int) -> None:
    assert_agrees("ReverseSequence", X, ints(3, 1, 0, 2), opset=opset)
    assert_agrees("ReverseSequence", X, ints(4, 0, 3), opset=opset, batch_axis=0, time_axis=1)
    assert_agrees("ReverseSequence", X[..., 0] > 0, ints(4, 0, 3), opset=opset, batch_axis=0, time_axis=1)


@pytest.mark.parametrize("reduction", ["none", "add", "mul", "max", "min"])
def test_gradients_reach_what_is_picked_and_what_is_put(reduction: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x, updates = (
        torch.rand(*shape, generator=generator, dtype=torch.float64, requires_grad=True)
        for shape in ((3, 4), (2, 4))
    )
    rows = torch.tensor([[2], [-3]])
    flat = rows.expand(2, 4)
    check = torch.autograd.gradcheck
    assert check(lambda x, u: scatter_nd(x, rows, u, reduction=reduction), (x, updates))
    assert check(lambda x, u: scatter_elements(x, flat, u, reduction=reduction), (x, updates))
    assert check(lambda x: gather(x, rows, axis=0), (x,))
    assert check(lambda x: gather_nd(x, rows), (x,))
