"""Transpose, Squeeze, Concat, Split, Slice and their like, at each version that differs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mothkit_converters import ConversionError, UnsupportedOpError
from mothkit_converters.ops.layout import slice_
from tests.converters.ops.single import assert_agrees, assert_same, imported, one, ours, runtime


def ints(*numbers: int) -> Any:
    return np.array(numbers, dtype=np.int64)


X = np.random.default_rng(0).normal(size=(2, 3, 5, 4)).astype(np.float32)
ONES = X[:1, :1, :, :1]


@pytest.mark.parametrize("opset", [1, 13, 21, 23, 24, 25])
@pytest.mark.parametrize("perm", [None, [3, 1, 0, 2]])
def test_transpose(opset: int, perm: list[int] | None) -> None:
    assert_agrees("Transpose", X, opset=opset, **({} if perm is None else {"perm": perm}))


@pytest.mark.parametrize("opset", [1, 11])
def test_axes_to_take_off_or_put_in_were_attributes(opset: int) -> None:
    assert_agrees("Squeeze", ONES, opset=opset, axes=[0, 3], expected=[ONES[0, :, :, 0]])
    assert_agrees("Squeeze", ONES, opset=opset, expected=[ONES[0, 0, :, 0]])
    assert_agrees("Unsqueeze", X, opset=opset, axes=[4, 0], expected=[X[None, ..., None, :]])


def test_axes_may_be_negative_from_version_11_on() -> None:
    assert_agrees("Squeeze", ONES, opset=11, axes=[-1, -3], expected=[ONES[:, 0, :, 0]])
    assert_agrees("Unsqueeze", X, opset=11, axes=[-1, 1], expected=[X[:, None, ..., None]])


@pytest.mark.parametrize("opset", [13, 21, 23, 24, 25])
@pytest.mark.parametrize("stored", [(), (1,)])
def test_axes_are_an_input(opset: int, stored: tuple[int, ...]) -> None:
    assert_agrees("Squeeze", ONES, ints(-1, 0), opset=opset, stored=stored)
    assert_agrees("Squeeze", ONES.astype(np.int8), ints(1), opset=opset, stored=stored)
    assert_agrees("Unsqueeze", X, ints(5, -6, 2), opset=opset, stored=stored)
    assert_agrees("Unsqueeze", np.array(3.0), ints(0), opset=opset, stored=stored)


def test_an_axis_that_is_longer_than_1_is_not_taken_off() -> None:
    model, values = one("Squeeze", X, ints(1), opset=13, stored=(1,))
    with pytest.raises(RuntimeError, match=r"axis 1 off a tensor \[2, 3, 5, 4\]; expected size 1"):
        ours(model, values)


def test_an_empty_list_of_axes_is_refused() -> None:
    model, values = one("Squeeze", ONES, ints(), opset=13, stored=(1,))
    with pytest.raises(UnsupportedOpError, match="its list of axes is empty"):
        imported(model)
    model, values = one("Squeeze", ONES, ints(), opset=13)
    with pytest.raises(RuntimeError, match="empty list of axes"):
        ours(model, values)


@pytest.mark.parametrize(("opset", "axis"), [(4, 2), (11, -1), (13, 0)])
def test_concat(opset: int, axis: int) -> None:
    parts = [np.moveaxis(X, axis, 0)[:1], np.moveaxis(X, axis, 0), np.moveaxis(X, axis, 0)[:0]]
    assert_agrees("Concat", *(np.moveaxis(part, 0, axis) for part in parts), opset=opset, axis=axis)


def test_concat_joined_the_channels_by_default() -> None:
    assert_agrees("Concat", X, X[:, :1], opset=1, expected=[np.concatenate([X, X[:, :1]], 1)])


SIZES = [1, 0, 4]
PARTS = np.split(X, np.cumsum(SIZES)[:-1], axis=2)


@pytest.mark.parametrize("opset", [1, 2, 11])
def test_lengths_to_split_were_an_attribute(opset: int) -> None:
    assert_agrees("Split", X, opset=opset, axis=2, split=SIZES, outputs=3, expected=PARTS)
    assert_agrees("Split", X, opset=opset, axis=1, outputs=3, expected=np.split(X, 3, axis=1))


@pytest.mark.parametrize("opset", [1, 13, 18])
@pytest.mark.parametrize("stored", [(), (1,)])
def test_lengths_to_split_are_an_input(opset: int, stored: tuple[int, ...]) -> None:
    lengths = ints(*SIZES)
    assert_agrees("Split", X, lengths, opset=opset, stored=stored, axis=2, outputs=3, expected=PARTS)
    assert_agrees("Split", X, ints(3), opset=opset, stored=stored, axis=1, outputs=1, expected=[X])


def test_split_along_the_first_axis_by_default() -> None:
    assert_agrees("Split", X, opset=2, outputs=2, expected=np.split(X, 2))
    assert_agrees("Split", X, opset=13, outputs=2)
    assert_agrees("Split", X, opset=18, outputs=2, num_outputs=2)


def test_the_last_part_may_be_shorter_from_version_18_on() -> None:
    assert_agrees("Split", X, opset=18, axis=-2, outputs=2, num_outputs=2)
    assert_agrees("Split", X, opset=18, axis=1, outputs=1, num_outputs=1)
    model, values = one("Split", X, opset=13, axis=2, outputs=2)
    with pytest.raises(RuntimeError, match="sum exactly to 5"):
        ours(model, values)


def test_a_split_that_nothing_decides_is_refused() -> None:
    with pytest.raises(UnsupportedOpError, match="names no axis"):
        imported(one("Split", X, opset=1, outputs=2)[0])
    with pytest.raises(ConversionError, match="3 outputs, and has 2"):
        imported(one("Split", X, opset=18, outputs=2, num_outputs=3)[0])


ENDS = st.integers(-9, 9) | st.sampled_from([2**63 - 1, -(2**63)])


@settings(deadline=None)
@given(
    start=st.integers(-9, 9),
    end=ENDS,
    step=st.integers(-3, 3).filter(bool) | ENDS.filter(bool),
    axis=st.integers(-2, 1),
)
def test_a_slice_takes_what_a_slice_of_python_takes(start: int, end: int, step: int, axis: int) -> None:
    x = torch.arange(42.0).reshape(7, 6)
    size = x.shape[axis]
    first = 0 if step < 0 and start < -size else start  # clamped, as version 13 says and onnxruntime does
    places = range(size)[slice(first, end, step)]
    found = slice_(x, [start], [end], [axis], [step])
    assert torch.equal(found, x.index_select(axis, torch.tensor(list(places), dtype=torch.int64)))


@pytest.mark.parametrize("opset", [10, 11, 13])
@pytest.mark.parametrize("stored", [(), (1, 2, 3, 4)])
def test_slice_in_onnxruntime(opset: int, stored: tuple[int, ...]) -> None:
    numbers = [ints(-1, -9, 1), ints(-9, 2**31, 3), ints(2, 0, 3), ints(-2, 1, 2)]
    model, values = one("Slice", X, *numbers, opset=opset, stored=stored)
    assert_same(ours(model, values), runtime(model, values))
    below = one("Slice", X, ints(-9), ints(-(2**63)), ints(2), ints(-1), opset=opset)
    assert_same(ours(*below), runtime(*below))


def test_slice_with_attributes_or_without_axes() -> None:
    assert_agrees(
        "Slice", X, opset=1, starts=[1, -2], ends=[2**31, 2], axes=[3, 1], expected=[X[:, -2:2, :, 1:]]
    )
    assert_agrees("Slice", X, opset=1, starts=[0, 1], ends=[1, 3], expected=[X[:1, 1:3]])
    assert_agrees("Slice", X, ints(1, 0), ints(2, 2), opset=13)
    assert_agrees("Slice", np.arange(9) > 4, ints(7), ints(1), None, ints(-2), opset=13)


@pytest.mark.parametrize("stored", [False, True])
def test_a_number_stands_for_a_list_of_one(stored: bool) -> None:
    single = np.array(1)
    assert_agrees(
        "Slice",
        X,
        single,
        np.array(3),
        np.array(-2),
        opset=13,
        stored=(1, 2, 3) if stored else (),
        expected=[X[:, :, 1:3]],
    )
    assert_agrees("Squeeze", ONES, single, opset=13, stored=(1,) if stored else (), expected=[ONES[:, 0]])
    assert_agrees("Unsqueeze", X, single, opset=13, stored=(1,) if stored else (), expected=[X[:, None]])
    assert_agrees(
        "Expand",
        ONES[0, 0, 0],
        np.array(4),
        opset=13,
        stored=(1,) if stored else (),
        expected=[ONES[0, 0, 0].repeat(4)],
    )


@pytest.mark.parametrize("opset", [11, 13, 28])
@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_to_space_in_either_order(opset: int, mode: str) -> None:
    x = np.random.default_rng(1).normal(size=(2, 12, 3, 5)).astype(np.float32)
    assert_agrees("DepthToSpace", x, opset=opset, blocksize=2, mode=mode)


def test_blocks_and_depth_without_a_mode() -> None:
    x = np.random.default_rng(1).normal(size=(2, 12, 6, 10)).astype(np.float32)
    deep = one("SpaceToDepth", x, opset=13, blocksize=2)
    assert_agrees("SpaceToDepth", x, opset=13, blocksize=2)
    assert_agrees("SpaceToDepth", x, opset=1, blocksize=2, expected=ours(*deep))
    assert_agrees("DepthToSpace", ours(*deep)[0], opset=1, blocksize=2, expected=[x])


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_space_to_depth_is_the_way_back(mode: str) -> None:
    x = np.random.default_rng(1).normal(size=(2, 3, 6, 10)).astype(np.float32)
    deep = ours(*one("SpaceToDepth", x, opset=28, blocksize=2, mode=mode))[0]
    assert deep.shape == (2, 12, 3, 5)
    assert_agrees("DepthToSpace", deep, opset=28, blocksize=2, mode=mode, expected=[x])


@pytest.mark.parametrize("op", ["DepthToSpace", "SpaceToDepth"])
def test_an_unknown_order_is_refused(op: str) -> None:
    with pytest.raises(UnsupportedOpError, match="its mode 'RCD' is unknown"):
        imported(one(op, X[:, :, :4], opset=28, blocksize=1, mode="RCD")[0])
