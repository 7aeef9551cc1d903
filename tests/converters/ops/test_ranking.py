"""ArgMax, ArgMin, TopK, CumSum and CumProd at every version."""

from __future__ import annotations

import numpy as np
import pytest
import torch

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


def drawn(kind: str, *shape: int) -> Array:
    """Return numbers with many equal ones, from both ends of the range where they are integers."""
    dtype = np.dtype(kind)
    few = [1.5, -2.5, 0, 7] if dtype.kind == "f" else [np.iinfo(dtype).min, np.iinfo(dtype).max, 0, 3]
    return np.random.default_rng(5).choice(np.array(few, dtype), shape)


@pytest.mark.parametrize(("op", "version"), versions("ArgMax", "ArgMin"))
def test_the_place_of_an_extremum(op: str, version: int) -> None:
    for kind in kinds(op, version):
        x = drawn(kind, 2, 3, 7)
        for axis in [0, 1, 2, *([-1, -3] if version >= 11 else [])]:
            for keepdims in (0, 1):
                for given in [{}, *([{"select_last_index": 1}] if version >= 12 else [])]:
                    wanted = _place(op, x, axis, keepdims, last=bool(given))
                    assert_agrees(
                        op, x, opset=version, expected=[wanted], axis=axis, keepdims=keepdims, **given
                    )
                if kind not in ("float32", "int32", "uint64"):
                    break
    assert_agrees(op, drawn("float32", 3, 4), opset=version)  # along axis 0


def _place(op: str, x: Array, axis: int, keepdims: int, *, last: bool) -> Array:
    find = np.argmax if op == "ArgMax" else np.argmin
    found = x.shape[axis] - 1 - find(np.flip(x, axis), axis) if last else find(x, axis)
    return np.expand_dims(found, axis) if keepdims else found


@pytest.mark.parametrize("version", [10, 11, 24])
def test_the_largest_and_their_places(version: int) -> None:
    for kind in kinds("TopK", version):
        x = drawn(kind, 4, 6)
        for axis in (0, 1, -1, -2):
            for largest in (1, 0) if version >= 11 else (1,):
                given = {"axis": axis} | ({"largest": largest} if version >= 11 else {})
                wanted = _top(x, 3, axis, bool(largest))
                for stored in [(), (1,)]:
                    k = np.array([3])
                    assert_agrees(
                        "TopK", x, k, opset=version, stored=stored, outputs=2, expected=wanted, **given
                    )
                if kind not in ("float32", "uint64"):
                    break


def test_the_largest_by_the_first_version() -> None:
    x = drawn("float32", 4, 6)
    assert_agrees("TopK", x, opset=1, outputs=2, expected=_top(x, 2, -1, True), k=2)
    assert_agrees("TopK", x, opset=1, outputs=2, expected=_top(x, 2, 0, True), k=2, axis=0)


def _top(x: Array, k: int, axis: int, largest: bool) -> list[Array]:
    """Return the extremes by a sort in Python, in which equals keep their order."""

    def order(line: Array) -> Array:
        values = line.tolist()
        return np.array(sorted(range(len(values)), key=lambda i: -values[i] if largest else values[i])[:k])

    places = np.apply_along_axis(order, axis, x)
    return [np.take_along_axis(x, places, axis), places]


def test_the_places_alone() -> None:
    x, k = drawn("float32", 4, 6), np.array([2])
    model, values = one("TopK", x, k, opset=11, outputs=2)
    del model.graph.output[0]
    assert_same(ours(model, values), _top(x, 2, -1, True)[1:])


def test_unsorted_extremes_may_come_in_any_order() -> None:
    x = drawn("float32", 9)
    model, values = one("TopK", x, np.array([4]), opset=11, outputs=2, sorted=0)
    found, places = ours(model, values)
    assert sorted(found) == sorted(_top(x, 4, 0, True)[0])
    np.testing.assert_array_equal(x[places], found)


@pytest.mark.parametrize(("op", "version"), versions("CumSum", "CumProd"))
def test_what_accumulates(op: str, version: int) -> None:
    for kind in kinds(op, version):
        x = drawn(kind, 2, 3, 4) if kind.startswith(("int", "uint")) else drawn(kind, 2, 3, 4) / 3
        for axis in (0, 1, -1):
            for exclusive in (0, 1):
                for reverse in (0, 1):
                    given = {"exclusive": exclusive, "reverse": reverse}
                    wanted = [_accumulated(op, x, axis, **given)]
                    assert_agrees(op, x, np.array(axis), opset=version, expected=wanted, **given)
    x = drawn("float32", 2, 0, 3)
    for stored in [(), (1,)]:
        assert_agrees(op, x, np.array(1), opset=version, stored=stored, expected=[x], exclusive=1)
    x = drawn("float32", 5)
    assert_agrees(op, x, np.array([0]), opset=version, expected=[_accumulated(op, x, 0, 0, 0)])


def _accumulated(op: str, x: Array, axis: int, exclusive: int, reverse: int) -> Array:
    """Return sums or products, one element after the other."""
    moved = np.moveaxis(x, axis, 0)
    moved = moved[::-1] if reverse else moved
    found, total = [], np.full(moved.shape[1:], int(op == "CumProd"), x.dtype)
    with np.errstate(over="ignore"):
        for line in moved:
            after = total * line if op == "CumProd" else total + line
            found.append(total if exclusive else after)
            total = after
    stacked = np.stack(found[::-1] if reverse else found).astype(x.dtype)
    return np.moveaxis(stacked, 0, axis)


@pytest.mark.parametrize("op", ["CumSum", "CumProd"])
def test_what_accumulates_has_a_gradient(op: str) -> None:
    bound = imported(one(op, np.ones(3, "f4"), np.array(0), opset=26, stored=[1], exclusive=1)[0])
    x = torch.tensor([2.0, 3.0, 5.0], requires_grad=True)
    bound(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == ([2, 1, 0] if op == "CumSum" else [4, 2, 0])


def test_the_largest_have_a_gradient() -> None:
    bound = imported(one("TopK", np.ones(3, "f4"), np.array([1]), opset=11, stored=[1], outputs=2)[0])
    x = torch.tensor([2.0, 5.0, 3.0], requires_grad=True)
    bound(x)[0].sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 1, 0]
