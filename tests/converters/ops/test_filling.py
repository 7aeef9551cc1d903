"""Tensors made from numbers: ConstantOfShape, Range, EyeLike, Trilu, Shape, Size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from mothkit_converters import ConversionError, UnsupportedOpError
from tests.converters.ops.single import assert_agrees, assert_same, imported, one, ours, runtime


def ints(*numbers: int) -> Any:
    return np.array(numbers, dtype=np.int64)


X = np.random.default_rng(0).normal(size=(2, 3, 5)).astype(np.float32)


@pytest.mark.parametrize("opset", [9, 20, 21, 23, 24, 25])
@pytest.mark.parametrize("stored", [(), (0,)])
@pytest.mark.parametrize(
    "value", [None, ("f4", 1.5), ("f8", 0.1), ("i8", 7), ("i4", -1), ("u1", 3), ("?", True)]
)
def test_constant_of_shape(opset: int, stored: tuple[int, ...], value: tuple[str, float] | None) -> None:
    named = {} if value is None else {"value": numpy_helper.from_array(np.array([value[1]], value[0]))}
    for shape in (ints(2, 0, 3), ints(4, 1), ints()):
        assert_agrees("ConstantOfShape", shape, opset=opset, stored=stored, **named)


RANGES = [(3, 9, 3), (10, 4, -2), (5, 5, 1), (2, -7, 1), (0, 7, 2)]


@pytest.mark.parametrize("opset", [11, 27])
@pytest.mark.parametrize("stored", [(), (0, 2), (0, 1, 2)])
@pytest.mark.parametrize("dtype", ["f4", "f8", "i2", "i4", "i8"])
def test_range(opset: int, stored: tuple[int, ...], dtype: str) -> None:
    for numbers in RANGES:
        given = [np.array(number, dtype) for number in numbers]
        assert_agrees(
            "Range", *given, opset=opset, stored=stored, expected=[np.arange(*numbers).astype(dtype)]
        )


def test_a_list_of_one_stands_for_a_number() -> None:
    for stored in ((), (0, 1, 2)):
        given = (ints(2), ints(7), np.array(2))
        assert_agrees("Range", *given, opset=11, stored=stored, expected=[ints(2, 4, 6)])


def test_a_range_of_fractions_is_as_long_as_in_onnxruntime() -> None:
    for numbers in [(0.1, 1.1, 0.1), (0, 1, 0.1), (1, -0.5, -0.3)]:
        model, values = one("Range", *(np.array(number, np.float32) for number in numbers), opset=11)
        assert_same(ours(model, values), runtime(model, values))


@pytest.mark.parametrize(("op", "numbers"), [("ConstantOfShape", [[2**20, 2**20]]), ("Range", [0, 2**40, 1])])
def test_what_no_memory_holds_is_refused(op: str, numbers: list[Any]) -> None:
    given = [np.array(number) for number in numbers]
    with pytest.raises(UnsupportedOpError, match=f"{op} asks for a tensor of {2**40} elements; at most"):
        imported(one(op, *given, opset=13, stored=range(len(given)))[0])
    model, values = one(op, *given, opset=13)
    with pytest.raises(ConversionError, match=f"{op} asks for a tensor of {2**40} elements; at most"):
        ours(model, values)


@pytest.mark.parametrize("opset", [9, 22])
@pytest.mark.parametrize("k", [0, 1, -1, 5, -5])
def test_eye_like(opset: int, k: int) -> None:
    assert_agrees("EyeLike", X[0], opset=opset, k=k)
    for dtype in (TensorProto.DOUBLE, TensorProto.INT64, TensorProto.BOOL):
        assert_agrees("EyeLike", X[0] > 0, opset=opset, k=k, dtype=dtype)
    assert_agrees("EyeLike", ints(1, 2)[None], opset=opset)


def test_a_unit_matrix_of_what_torch_lacks_is_refused() -> None:
    with pytest.raises(UnsupportedOpError, match="its dtype 8 is not computed with"):
        imported(one("EyeLike", X[0], opset=22, dtype=TensorProto.STRING)[0])


@pytest.mark.parametrize("upper", [0, 1])
@pytest.mark.parametrize("k", [None, 0, 2, -1, 9, -9, 2**40])
def test_trilu(upper: int, k: int | None) -> None:
    diagonal = None if k is None else np.array(k)
    for x in (X, X[0] > 0, (X * 9).astype(np.int32), X[:, :0]):
        expected = [(np.triu if upper else np.tril)(x, min(k or 0, 99))]
        for stored in ((), (1,)) if k is not None else ((),):
            assert_agrees("Trilu", x, diagonal, opset=14, stored=stored, upper=upper, expected=expected)


@pytest.mark.parametrize("opset", [1, 13, 15, 19, 21, 23, 24, 25])
def test_shape_and_size(opset: int) -> None:
    assert_agrees("Shape", X, opset=opset)
    assert_agrees("Shape", np.array(3.0), opset=opset)
    if opset != 15:
        assert_agrees("Size", X, opset=opset)
        assert_agrees("Size", np.array(3.0), opset=opset)


@pytest.mark.parametrize(("start", "end"), [(1, None), (-2, None), (0, -1), (2, 1), (-9, 9), (1, 2)])
def test_a_part_of_a_shape(start: int, end: int | None) -> None:
    for opset in (15, 25):
        assert_agrees("Shape", X, opset=opset, start=start, **({} if end is None else {"end": end}))


def test_a_constant_that_is_no_dense_tensor_is_refused() -> None:
    value = helper.make_sparse_tensor(
        numpy_helper.from_array(np.ones(1, np.float32)), numpy_helper.from_array(ints(2)), [5]
    )
    with pytest.raises(UnsupportedOpError, match="it holds a sparse_value; expected a dense tensor"):
        imported(one("Constant", opset=13, sparse_value=value)[0])
    with pytest.raises(UnsupportedOpError, match="it holds a value_string"):
        imported(one("Constant", opset=13, value_string="text")[0])


def test_what_is_made_is_made_where_the_module_is() -> None:
    numbers = [np.array(number, np.float32) for number in (0, 3, 1)]
    module = imported(one("Range", *numbers, opset=13, stored=(0, 1, 2))[0])
    assert module().tolist() == [0, 1, 2]
    assert not module.state_dict()
    assert module.to("meta")().device.type == "meta"
