"""Reshape, Flatten, Expand and Tile."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from mothkit_converters import BatchError, ConversionError, UnsupportedOpError
from mothkit_converters.ops.reshape import expand, tile
from tests.converters.ops.single import assert_agrees, imported, one, ours


def ints(*numbers: int) -> Any:
    return np.array(numbers, dtype=np.int64)


X = np.random.default_rng(0).normal(size=(2, 3, 5, 4)).astype(np.float32)
NEWER = [13, 14, 19, 21, 23, 24, 25]


@pytest.mark.parametrize("opset", [5, *NEWER])
@pytest.mark.parametrize("stored", [(), (1,)])
@pytest.mark.parametrize(
    ("before", "shape"),
    [
        ((2, 3, 5, 4), (0, -1)),
        ((2, 3, 5, 4), (-1,)),
        ((12, 5, 2), (6, 0, 2, 2)),
        ((4, 1, 30), (2, 0, 15, 4)),
    ],
)
def test_reshape(
    opset: int, stored: tuple[int, ...], before: tuple[int, ...], shape: tuple[int, ...]
) -> None:
    assert_agrees("Reshape", X.reshape(before), ints(*shape), opset=opset, stored=stored)


def test_the_shape_was_an_attribute() -> None:
    assert_agrees("Reshape", X, opset=1, shape=[0, -1, 4], expected=[X.reshape(2, 15, 4)])
    assert_agrees("Reshape", X[:1, 0, 0, 0], opset=1, expected=[X[0, 0, 0, 0]])


def test_reshape_of_nothing_and_to_a_scalar() -> None:
    assert_agrees("Reshape", X[:0], ints(3, 0, 1), opset=14, allowzero=1)
    assert_agrees("Reshape", X[:0], ints(0, 60), opset=14)
    assert_agrees("Reshape", np.array([7]), ints(), opset=14)


def test_a_shape_that_does_not_fit_says_so() -> None:
    with pytest.raises(BatchError, match=r"makes \[7, 2\], and got \[2, 3, 5, 4\]"):
        ours(*one("Reshape", X, ints(7, 2), opset=14, stored=(1,)))


@pytest.mark.parametrize("opset", [1, 9, 11, 13, 21, 23, 24, 25])
@pytest.mark.parametrize("axis", range(5))
def test_flatten(opset: int, axis: int) -> None:
    expected = X.reshape(int(np.prod(X.shape[:axis])), -1)
    assert_agrees("Flatten", X, opset=opset, axis=axis, expected=[expected])


def test_flatten_from_the_end_and_at_the_edges() -> None:
    for axis in (-1, -4):
        assert_agrees("Flatten", X, opset=11, axis=axis)
    assert_agrees("Flatten", X, opset=13, expected=[X.reshape(2, -1)])
    assert_agrees("Flatten", X[:0], opset=13, axis=0, expected=[np.zeros((1, 0), np.float32)])
    assert_agrees("Flatten", X[:, :0], opset=13, axis=1, expected=[np.zeros((2, 0), np.float32)])
    assert_agrees("Flatten", X[:, 0, 0, 0], opset=13, axis=1, expected=[X[:, :1, 0, 0]])
    assert_agrees("Flatten", np.array(3.0), opset=13, axis=0, expected=[np.array([[3.0]])])


@pytest.mark.parametrize("opset", [8, 13])
@pytest.mark.parametrize("stored", [(), (1,)])
@pytest.mark.parametrize("shape", [(4, 1), (2, 3, 1, 4), (1,), (7, 1, 3, 5, 4), (0, 1)])
def test_expand(opset: int, stored: tuple[int, ...], shape: tuple[int, ...]) -> None:
    x = X[:1, :, :1] if shape[0] != 0 else X[:, :, :1]
    assert_agrees("Expand", x, ints(*shape), opset=opset, stored=stored)
    assert_agrees("Expand", np.array(True), ints(2, 3), opset=opset, stored=stored)


@pytest.mark.parametrize("opset", [6, 13])
@pytest.mark.parametrize("stored", [(), (1,)])
@pytest.mark.parametrize("repeats", [(1, 2, 1, 3), (1, 0, 2, 2)])
def test_tile(opset: int, stored: tuple[int, ...], repeats: tuple[int, ...]) -> None:
    assert_agrees("Tile", X, ints(*repeats), opset=opset, stored=stored)
    assert_agrees("Tile", np.array(3), ints(), opset=opset, stored=stored)


@pytest.mark.parametrize("shape", [(), (1,)])
def test_tile_named_one_axis(shape: tuple[int, ...]) -> None:
    tiles, axis = ints(3).reshape(shape), ints(2).reshape(shape)
    assert_agrees("Tile", X, tiles, axis, opset=1, expected=[np.tile(X, (1, 1, 3, 1))])


@pytest.mark.parametrize("op", ["Expand", "Tile"])
def test_what_no_memory_holds_is_refused(op: str) -> None:
    model = one(op, X[0, 0], ints(2**20, 2**20), opset=13, stored=(1,))[0]
    with pytest.raises(UnsupportedOpError, match=f"{op} asks for a tensor of {2**40} elements; at most"):
        imported(model)
    with pytest.raises(ConversionError, match=f"{op} asks for a tensor of"):
        (expand if op == "Expand" else tile)(torch.ones(1, 1), [2**20, 2**20])


def test_gradients_sum_over_copies() -> None:
    x = torch.ones(1, 2, requires_grad=True)
    (expand(x, [3, 2]).sum() + tile(x, [2, 2]).sum()).backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[7, 7]]
