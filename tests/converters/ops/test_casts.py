"""Changes of the element type at every version."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx import ModelProto, TensorProto, helper

from mothkit_converters import UnsupportedOpError
from tests.converters.ops.single import Array, assert_agrees, imported, kinds, one, ours, versions

FLOATS = np.array([[-3.7, -1.0, -0.4], [0.0, 2.5, 100.9]])
INTEGERS = np.array([[-300, -1, 0], [1, 200, 70000]])


def given(kind: str, to: str) -> Array:
    """Return numbers of ``kind``: any integers; of floats, those that ``to`` has room for."""
    dtype = np.dtype(kind)
    if dtype.kind == "b":
        return np.array([[True, False]])
    if dtype.kind == "f":
        return np.abs(FLOATS).astype(kind) if np.dtype(to).kind == "u" else FLOATS.astype(kind)
    return INTEGERS.astype(kind)


@pytest.mark.parametrize(("op", "version"), versions("Cast"))
def test_a_cast_agrees_with_numpy(op: str, version: int) -> None:
    targets = kinds(op, version)
    for kind in kinds(op, version):
        for to in targets if kind in ("float32", "int64") else ("float32", "int32", "bool"):
            x = given(kind, to)
            number = helper.np_dtype_to_tensor_dtype(np.dtype(to))
            target = number if version >= 6 else TensorProto.DataType.Name(number)
            if version >= 6:
                assert_agrees(op, x, opset=version, expected=[x.astype(to)], to=target)
            else:
                model, values = _by_name(x, to, str(target))
                np.testing.assert_array_equal(ours(model, values)[0], x.astype(to), strict=True)


def _by_name(x: Array, to: str, target: str) -> tuple[ModelProto, dict[str, Array]]:
    """Return a model of the first Cast, whose type no inference understands."""
    model, values = one("Cast", x, opset=1, to=target)
    made = helper.make_tensor_value_info("o0", helper.np_dtype_to_tensor_dtype(np.dtype(to)), x.shape)
    model.graph.output[0].CopyFrom(made)
    return model, values


@pytest.mark.parametrize(("op", "version"), versions("CastLike"))
def test_a_cast_to_the_type_of_another(op: str, version: int) -> None:
    x = FLOATS.astype("f4")
    for to in kinds(op, version, 1):
        for stored in [(), (1,)]:
            like, x_to = np.ones(2, to), given("float32", to)
            assert_agrees(op, x_to, like, opset=version, stored=stored, expected=[x_to.astype(to)])
    assert not list(imported(one(op, x, np.ones(1, "f4"), opset=version, stored=[1])[0]).parameters())


def test_a_cast_lets_gradients_through() -> None:
    x = torch.ones(3, requires_grad=True)
    imported(one("Cast", np.ones(3, "f4"), opset=13, to=TensorProto.DOUBLE)[0])(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("to", "name"),
    [
        (TensorProto.STRING, "STRING"),
        (TensorProto.FLOAT8E4M3FN, "FLOAT8E4M3FN"),
        (TensorProto.INT4, "INT4"),
        (TensorProto.FLOAT4E2M1, "FLOAT4E2M1"),
    ],
)
def test_a_cast_to_what_is_not_computed_with_is_refused(to: int, name: str) -> None:
    with pytest.raises(UnsupportedOpError, match=f"it makes {name}, which"):
        imported(one("Cast", np.ones(3, "f4"), opset=25, to=to)[0])


@pytest.mark.parametrize("kind", [TensorProto.STRING, TensorProto.FLOAT8E5M2, TensorProto.UINT4])
@pytest.mark.parametrize("op", ["Cast", "CastLike", "Identity"])
def test_inputs_that_are_not_computed_with_are_refused(op: str, kind: int) -> None:
    inputs = [np.ones(3, "f4")] * (2 if op == "CastLike" else 1)
    settings = {"to": TensorProto.FLOAT} if op == "Cast" else {}
    model, _ = one(op, *inputs, opset=25, **settings)
    model.graph.input[-1].type.tensor_type.elem_type = kind
    model.graph.output[0].type.tensor_type.elem_type = kind if op != "Cast" else TensorProto.FLOAT
    with pytest.raises(UnsupportedOpError, match="which is not computed with"):
        imported(model)


@pytest.mark.parametrize(
    ("kind", "to"),
    [
        ("float32", "int32"),
        ("int64", "float64"),
        ("uint8", "int8"),
        ("uint16", "int16"),
        ("bool", "uint8"),
        ("uint64", "int64"),
        ("int32", "int32"),
    ],
)
def test_bits_are_read_as_another_type(kind: str, to: str) -> None:
    for x in (given(kind, kind), np.asarray(given(kind, kind)[0, 0])):
        number = helper.np_dtype_to_tensor_dtype(np.dtype(to))
        assert_agrees("BitCast", x, opset=26, expected=[x.view(to)], to=number)


def test_bits_of_half_precision_are_refused() -> None:
    model, values = one("BitCast", np.ones(3, "float16"), opset=26, to=TensorProto.INT16)
    with pytest.raises(UnsupportedOpError, match="half precision"):
        ours(model, values)


@pytest.mark.parametrize(("op", "version"), versions("Identity"))
def test_an_identity_keeps_all(op: str, version: int) -> None:
    for kind in kinds(op, version):
        assert_agrees(op, given(kind, kind), opset=version)
