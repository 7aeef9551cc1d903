"""Quantisation: floats rounded to integers and back. Where ``carried`` is set, integers are kept as floats.

What is rounded passes its gradient on as it is, inside the range of the integers, and none outside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from onnx import TensorProto
from onnx2torch.onnx_graph import OnnxGraph
from onnx2torch.onnx_node import OnnxNode
from onnx2torch.utils.common import OnnxMapping, OperationConverterResult
from torch import Tensor

from mothkit_converters.errors import UnsupportedOpError
from mothkit_converters.ops.call import Call, attributes_of, operator
from mothkit_converters.ops.dtypes import DTYPES, name_of
from mothkit_converters.ops.registry import serve
from mothkit_converters.ops.scope import is_carried


class Kind(NamedTuple):
    """A type of integers: the torch type that holds it, and its range."""

    dtype: torch.dtype
    low: int
    high: int


KINDS: Mapping[int, Kind] = MappingProxyType(
    {
        TensorProto.INT2: Kind(torch.int8, -2, 1),
        TensorProto.INT4: Kind(torch.int8, -8, 7),
        TensorProto.INT8: Kind(torch.int8, -128, 127),
        TensorProto.INT16: Kind(torch.int16, -(2**15), 2**15 - 1),
        TensorProto.UINT2: Kind(torch.uint8, 0, 3),
        TensorProto.UINT4: Kind(torch.uint8, 0, 15),
        TensorProto.UINT8: Kind(torch.uint8, 0, 255),
        TensorProto.UINT16: Kind(torch.uint16, 0, 2**16 - 1),
    }
)
_SMALL = frozenset({TensorProto.INT2, TensorProto.INT4, TensorProto.UINT2, TensorProto.UINT4})


def kind_of(dtype: torch.dtype) -> Kind:
    """Return what torch's integers of ``dtype`` can hold."""
    info = torch.iinfo(dtype)
    return Kind(dtype, info.min, info.max)


def rounded(x: Tensor, zero: Tensor | int, kind: Kind, *, carried: bool) -> Tensor:
    """Return ``x``, in steps of the scale, as integers of ``kind`` around ``zero``."""
    exact = (x.round() + zero).clamp(kind.low, kind.high)
    if not carried:
        return _integers(exact, kind.dtype)
    if not x.requires_grad:
        return exact
    smooth = (x + zero).clamp(kind.low, kind.high)
    return exact.detach() + (smooth - smooth.detach())


def _integers(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x.to(torch.int32).to(dtype)


def spread(values: Tensor, x: Tensor, axis: int, block: int = 0) -> Tensor:
    """Return scales or zero points so that they go with ``x``: one for all, one per index of ``axis``, or blocks."""
    if values.numel() == 1:
        return values.reshape(())
    if block:
        return values.repeat_interleave(block, axis).narrow(axis, 0, x.shape[axis])
    shape = [1] * x.dim()
    shape[axis] = -1
    return values.reshape(shape) if values.dim() == 1 else values


def quantise(
    x: Tensor,
    scale: Tensor,
    zero: Tensor | None = None,
    *,
    kind: Kind,
    carried: bool,
    axis: int = 1,
    block_size: int = 0,
    precision: int = 0,
) -> Tensor:
    """Return ``x`` divided by ``scale``, rounded to the nearest, ties to even, around ``zero``."""
    dtype = DTYPES[precision] if precision else scale.dtype
    steps = x.to(dtype) / spread(scale, x, axis, block_size).to(dtype)
    return rounded(steps, _zero(zero, x, axis, block_size, dtype), kind, carried=carried)


def _zero(zero: Tensor | None, x: Tensor, axis: int, block: int, dtype: torch.dtype) -> Tensor | int:
    return 0 if zero is None else spread(zero, x, axis, block).to(dtype)


@serve("QuantizeLinear", 10, 13, 19, 21, 23, 24, 25, 28)  # before 13 there is one scale for all
@serve("QuantizeLinear", 1, domain="com.microsoft")
def _quantise(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    attributes = attributes_of(node)
    attributes.pop("saturate", None)  # of 8-bit floats
    number = attributes.pop("output_dtype", 0) or TensorProto.UINT8
    if len(node.input_values) > 2 and node.input_values[2]:
        number = _type_of(node.input_values[2], graph)
    carried = is_carried(node, graph)
    if number not in KINDS or (number in _SMALL and not carried):
        raise _refusal("QuantizeLinear", node, number)
    return _call(quantise, node, {**attributes, "kind": KINDS[number], "carried": carried})


def _type_of(name: str, graph: OnnxGraph) -> int | None:
    """Return ONNX's number of the type of a value, None where it cannot be told."""
    if name in graph.initializers:
        return int(graph.initializers[name].proto.data_type)
    return int(graph.value_info[name].type.tensor_type.elem_type) if name in graph.value_info else None


def _lacks(number: int) -> bool:
    return number not in KINDS and number not in DTYPES


def _refusal(op: str, node: OnnxNode, number: int | None) -> UnsupportedOpError:
    if number is None:
        return UnsupportedOpError(op, node.name, "the type of its zero point cannot be told")
    return UnsupportedOpError(op, node.name, f"torch does not compute with the type {name_of(number)}")


def _call(
    function: Callable[..., Tensor], node: OnnxNode, attributes: Mapping[str, Any]
) -> OperationConverterResult:
    if len(node.input_values) < 2:
        raise UnsupportedOpError(node.operation_type, node.name, "it has no input for its scale")
    module = Call(function, attributes, fixed={}, numbers=(), count=len(node.input_values))
    return OperationConverterResult(module, OnnxMapping(node.input_values, node.output_values))


@serve("DequantizeLinear", 10, 13, 19, 21, 23, 24, 25, 28)  # before 13 there is one scale for all
@serve("DequantizeLinear", 1, domain="com.microsoft")
def _dequantise(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    given = node.input_values[0]
    number = _type_of(given, graph)
    if number is not None and (_lacks(number) or (number in _SMALL and given in graph.input_values)):
        raise _refusal("DequantizeLinear", node, number)
    return _call(dequantise, node, attributes_of(node))


def dequantise(
    x: Tensor,
    scale: Tensor,
    zero: Tensor | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
) -> Tensor:
    """Return the floats that the integers ``x`` stand for: their distance from ``zero`` in steps of ``scale``."""
    dtype = DTYPES[output_dtype] if output_dtype else scale.dtype
    return centred(x, zero, axis, block_size).to(dtype) * spread(scale, x, axis, block_size).to(dtype)


def centred(x: Tensor, zero: Tensor | None, axis: int, block: int = 0) -> Tensor:
    """Return the distance of quantised numbers from their zero point; integers as int32, floats as they are."""
    dtype = x.dtype if x.is_floating_point() else torch.int32
    return x.to(dtype) if zero is None else x.to(dtype) - spread(zero, x, axis, block).to(dtype)


@operator("DynamicQuantizeLinear", 11)
def quantise_by_range(x: Tensor, *, carried: bool, outputs: int) -> Any:  # noqa: ANN401 - one or several
    """Return ``x`` in 256 steps from its least to its greatest value or 0, the step, and what stands for 0."""
    kind = kind_of(torch.uint8)
    scale, zero = range_of(x)
    y = rounded(x / scale, zero, kind, carried=carried)
    found = (y, scale, _integers(zero, kind.dtype))[:outputs]
    return found if outputs > 1 else y


def range_of(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the scale and the zero point, as floats, of uint8 that hold ``x`` and 0; no gradient passes."""
    kept = x.detach()
    low, high = kept.min().clamp(max=0), kept.max().clamp(min=0)
    scale = (high - low) / 255
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    return scale, (-low / scale).clamp(0, 255).round()
