"""Pools against onnxruntime, or onnx's reference where that lacks the version."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mothkit_converters import UnsupportedOpError
from tests.converters.ops.single import (
    assert_agrees,
    assert_same,
    imported,
    one,
    ours,
    reference,
    runtime,
)

KERNEL: dict[str, Any] = {"kernel_shape": [3, 2]}
WINDOWS: list[dict[str, Any]] = [
    KERNEL,
    {**KERNEL, "strides": [2, 3], "pads": [1, 0, 1, 0]},
    {**KERNEL, "strides": [2, 1], "pads": [0, 1, 2, 0]},
    {**KERNEL, "strides": [2, 3], "auto_pad": "SAME_UPPER"},
    {**KERNEL, "strides": [2, 2], "auto_pad": "SAME_LOWER"},
    {**KERNEL, "strides": [2, 2], "auto_pad": "VALID"},
    {"kernel_shape": [4, 5], "pads": [3, 3, 3, 4]},
]
SINCE = {"MaxPool": [7, 8, 10, 11, 12, 22], "AveragePool": [7, 10, 11, 19, 22], "LpPool": [7, 11, 18, 22]}


def drawn(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(shape).normal(size=shape).astype("f4")


def check(op: str, *inputs: Any, opset: int, **given: Any) -> None:
    model, values = one(op, *inputs, opset=opset, **given)
    assert_same(ours(model, values), runtime(model, values))


@pytest.mark.parametrize("attributes", WINDOWS)
@pytest.mark.parametrize(("op", "opset"), [(op, opset) for op in SINCE for opset in SINCE[op]])
def test_a_pool(op: str, opset: int, attributes: dict[str, Any]) -> None:
    check(op, drawn(2, 3, 9, 7), opset=opset, **attributes)


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
def test_a_pool_of_the_first_version(op: str) -> None:
    assert_agrees(op, drawn(2, 3, 9, 7), opset=1, kernel_shape=[3, 2], strides=[2, 1])


@settings(deadline=None, max_examples=60)
@given(data=st.data(), op=st.sampled_from(["MaxPool", "AveragePool", "LpPool"]), rank=st.integers(1, 3))
def test_a_pool_with_all_it_can_have(data: st.DataObject, op: str, rank: int) -> None:
    def several(least: int, most: int) -> list[int]:
        return data.draw(st.lists(st.integers(least, most), min_size=rank, max_size=rank))

    sides, kernel, dilations = several(4, 8), several(1, 3), several(1, 2)
    pads = [data.draw(st.integers(0, k - 1)) for k in [*kernel, *kernel]]
    extents = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    assume(all(extent <= side for extent, side in zip(extents, sides, strict=True)))
    attributes: dict[str, Any] = {"kernel_shape": kernel, "strides": several(1, 3), "pads": pads}
    attributes["ceil_mode"] = data.draw(st.integers(0, 1))
    if op == "AveragePool":
        attributes["count_include_pad"] = data.draw(st.integers(0, 1))
    if op == "LpPool":
        attributes["p"] = data.draw(st.integers(1, 3))
    check(op, drawn(2, 3, *sides), opset=22, dilations=dilations, **attributes)


@pytest.mark.parametrize("opset", [10, 11, 19])
@pytest.mark.parametrize("include", [0, 1])
@pytest.mark.parametrize(("kernel", "pads"), [(3, [1, 1]), (4, [1, 1]), (4, [1, 2]), (2, [1, 0])])
def test_the_last_window_of_ceil_mode(kernel: int, pads: list[int], include: int, opset: int) -> None:
    given = {"kernel_shape": [kernel], "strides": [3], "pads": pads, "ceil_mode": 1}
    check("AveragePool", drawn(2, 3, 8), opset=opset, count_include_pad=include, **given)


@pytest.mark.parametrize("opset", [8, 11, 22])
@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("attributes", [*WINDOWS[:5], {"kernel_shape": [2, 2], "pads": [1, 1, 0, 1]}])
def test_where_a_maximum_stands(attributes: dict[str, Any], order: int, opset: int) -> None:
    check("MaxPool", drawn(2, 3, 9, 7), opset=opset, outputs=2, storage_order=order, **attributes)


def test_where_a_maximum_stands_in_three_dimensions() -> None:
    given = {"kernel_shape": [2, 3, 2], "strides": [2, 1, 1], "pads": [0, 1, 0, 0, 1, 1]}
    for order in (0, 1):
        check("MaxPool", drawn(2, 3, 4, 6, 5), opset=12, outputs=2, storage_order=order, **given)


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_the_maximum_of_bytes(dtype: str) -> None:
    x = np.random.default_rng(0).integers(-100, 100, (2, 3, 9, 7)).astype(dtype)
    check("MaxPool", x, opset=12, kernel_shape=[3, 2], pads=[1, 0, 1, 1], ceil_mode=1)
    check("MaxPool", x, opset=12, kernel_shape=[3, 2], outputs=2)


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool", "LpPool"])
def test_windows_of_four_axes_are_refused(op: str) -> None:
    model, _ = one(op, drawn(1, 1, 3, 3, 3, 3), opset=17, kernel_shape=[2] * 4)
    with pytest.raises(UnsupportedOpError, match="4 spatial axes"):
        imported(model)


@pytest.mark.parametrize("shape", [(2, 3, 5), (2, 3, 4, 5), (2, 3, 4, 2, 5)])
@pytest.mark.parametrize("opset", [7, 22])
@pytest.mark.parametrize("op", ["GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"])
def test_a_global_pool(op: str, opset: int, shape: tuple[int, ...]) -> None:
    older, values = one(op, drawn(*shape), opset=7)  # onnxruntime has no GlobalLpPool 22
    assert_agrees(op, drawn(*shape), opset=opset, expected=runtime(older, values))


def test_norms_of_the_first_version_take_a_broken_p() -> None:
    x = drawn(2, 3, 4, 5)
    wanted = [(np.abs(x) ** 1.5).sum((2, 3), keepdims=True) ** (1 / 1.5)]
    assert_agrees("GlobalLpPool", x, opset=1, p=1.5, expected=wanted)
    wanted = [(np.abs(x) ** 1.5).sum((2, 3), keepdims=True) ** (1 / 1.5)]
    assert_agrees("LpPool", x, opset=1, p=1.5, kernel_shape=[4, 5], expected=wanted)


@pytest.mark.parametrize("body", [{"op_type": "LpPool", "kernel_shape": [2, 2]}, {"op_type": "GlobalLpPool"}])
def test_the_norm_of_nothing_has_a_gradient(body: dict[str, Any]) -> None:
    model, _ = one(body.pop("op_type"), drawn(1, 2, 4, 4), opset=18, **body)
    x = torch.zeros(1, 2, 4, 4, requires_grad=True)
    imported(model)(x).sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("opset", [9, 11, 22])
def test_what_was_pooled_is_put_back(opset: int) -> None:
    given: dict[str, Any] = {"kernel_shape": [2, 3], "strides": [2, 2], "pads": [0, 1, 0, 0]}
    model, values = one("MaxPool", drawn(2, 3, 8, 6), opset=11, outputs=2, **given)
    values = dict(zip(("i0", "i1"), runtime(model, values), strict=True))
    check("MaxUnpool", *values.values(), opset=opset, **given)
    check("MaxUnpool", *values.values(), np.array([2, 3, 8, 6]), opset=opset, **given)


def test_places_that_can_be_read_in_two_ways_are_refused() -> None:
    x, places = drawn(1, 1, 2, 2), np.array([[[[5, 7], [13, 15]]]])
    given: dict[str, Any] = {"kernel_shape": [2, 2], "strides": [2, 2]}
    model, values = one("MaxUnpool", x, places, np.array([1, 1, 5, 5]), opset=11, stored=[2], **given)
    assert not np.array_equal(runtime(model, values)[0], reference(model, values)[0])
    with pytest.raises(UnsupportedOpError, match=r"output_shape is \[1, 1, 5, 5\]"):
        ours(model, values)


@pytest.mark.parametrize("op", ["MaxPool", "LpPool"])
def test_dilated_windows_that_are_padded_in_two_ways_are_refused(op: str) -> None:
    given: dict[str, Any] = {"kernel_shape": [2, 2], "dilations": [2, 2], "auto_pad": "SAME_UPPER"}
    model, values = one(op, drawn(1, 1, 5, 5), opset=22, **given)
    assert runtime(model, values)[0].shape != (1, 1, 5, 5)  # as large as the input, by ONNX's rules
    with pytest.raises(UnsupportedOpError, match="dilated windows"):
        ours(model, values)
