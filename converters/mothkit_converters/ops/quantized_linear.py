"""Arithmetic on quantised numbers: ONNX's own, and what onnxruntime's quantiser writes.

Sums of products are exact in float64, as they are in the integers of onnxruntime.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mothkit_converters.ops.call import operator
from mothkit_converters.ops.convolution import convolution
from mothkit_converters.ops.quantized import centred, kind_of, range_of, rounded, spread
from mothkit_converters.ops.windows import too_many_axes

MICROSOFT = "com.microsoft"
_CONV = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")


def check_layout(attributes: Mapping[str, Any]) -> str:
    """Return why no kernel serves these attributes, empty where one does."""
    if attributes.get("channels_last", 0):
        return "it has its channels last"
    return too_many_axes(attributes)


@operator("ConvInteger", 10, check=too_many_axes, also=_CONV)
def convolve(
    x: Tensor,
    weight: Tensor,
    x_zero: Tensor | None = None,
    weight_zero: Tensor | None = None,
    *,
    carried: bool,
    **windows: Any,  # noqa: ANN401 - Conv's attributes
) -> Tensor:
    """Return the int32 that ``x`` [N, C, ...] convolved with ``weight`` [M, C / group, ...] makes."""
    sums = convolution(_exact(x, x_zero), _exact(weight, weight_zero), **windows)
    return sums if carried else sums.to(torch.int32)


@operator("MatMulInteger", 10)
def multiply(
    a: Tensor, b: Tensor, a_zero: Tensor | None = None, b_zero: Tensor | None = None, *, carried: bool
) -> Tensor:
    """Return the int32 product of ``a`` [..., M, K] and ``b`` [..., K, N]; zero points per row and per column."""
    sums = _product(a, a_zero, b, b_zero)
    return sums if carried else sums.to(torch.int32)


def _product(a: Tensor, a_zero: Tensor | None, b: Tensor, b_zero: Tensor | None) -> Tensor:
    return _exact(a, a_zero, -2) @ _exact(b, b_zero, -1)


@operator("QLinearConv", 10, check=too_many_axes, also=_CONV)
@operator("QLinearConv", 1, domain=MICROSOFT, check=check_layout, also=(*_CONV, "channels_last"))
def convolve_linear(
    x: Tensor,
    x_scale: Tensor,
    x_zero: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    weight_zero: Tensor,
    y_scale: Tensor,
    y_zero: Tensor,
    bias: Tensor | None = None,
    *,
    carried: bool,
    channels_last: int = 0,  # noqa: ARG001 - 0, as was checked
    **windows: Any,  # noqa: ANN401 - Conv's attributes
) -> Tensor:
    """Return ``x`` [N, C, ...] convolved with ``weight``, plus ``bias`` [M] of int32 in steps of both scales."""
    added = None if bias is None else bias.double()
    sums = convolution(_exact(x, x_zero), _exact(weight, weight_zero), added, **windows)
    scale = x_scale * spread(weight_scale, sums, 1) / y_scale
    return _requantised(sums, scale, y_zero, carried=carried)


@operator("QLinearMatMul", 10, 21)
def multiply_linear(
    a: Tensor,
    a_scale: Tensor,
    a_zero: Tensor,
    b: Tensor,
    b_scale: Tensor,
    b_zero: Tensor,
    y_scale: Tensor,
    y_zero: Tensor,
    *,
    carried: bool,
) -> Tensor:
    """Return the product of ``a`` [..., M, K] and ``b`` [..., K, N]; scales per row, and of ``b`` per column."""
    sums = _product(a, a_zero, b, b_zero)
    scale = spread(a_scale, sums, -2) * spread(b_scale, sums, -1) / spread(y_scale, sums, -2)
    return _requantised(sums, scale, spread(y_zero, sums, -2), carried=carried)


@operator("QGemm", 1, domain=MICROSOFT)
def gemm(
    a: Tensor,
    a_scale: Tensor,
    a_zero: Tensor,
    b: Tensor,
    b_scale: Tensor,
    b_zero: Tensor,
    c: Tensor | None = None,
    y_scale: Tensor | None = None,
    y_zero: Tensor | None = None,
    *,
    alpha: float = 1.0,
    transA: int = 0,  # noqa: N803 - ONNX's name
    transB: int = 0,  # noqa: N803
    carried: bool,
) -> Tensor:
    """Return the product of two matrices plus ``c`` of int32; floats where no ``y_scale`` is given."""
    left, right = _exact(a, a_zero, 0), _exact(b, b_zero, 0 if transB else 1)
    sums = (left.t() if transA else left) @ (right.t() if transB else right)
    sums = sums if c is None else sums + c
    scale = alpha * a_scale * spread(b_scale, sums, 1)
    if y_scale is None or y_zero is None:
        return sums.to(scale.dtype) * scale
    return _requantised(sums, scale / y_scale, y_zero, carried=carried)


@operator("MatMulIntegerToFloat", 1, domain=MICROSOFT)
def multiply_to_float(
    a: Tensor,
    b: Tensor,
    a_scale: Tensor,
    b_scale: Tensor,
    a_zero: Tensor | None = None,
    b_zero: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """Return the float product of ``a`` [..., M, K] and ``b`` [..., K, N], plus ``bias`` [N]."""
    sums = _product(a, a_zero, b, b_zero)
    y = sums.to(a_scale.dtype) * (spread(a_scale, sums, -2) * spread(b_scale, sums, -1))
    return y if bias is None else y + bias


@operator("DynamicQuantizeMatMul", 1, domain=MICROSOFT)
def quantise_and_multiply(
    a: Tensor, b: Tensor, b_scale: Tensor, b_zero: Tensor | None = None, bias: Tensor | None = None
) -> Tensor:
    """Return the float product of ``a`` [..., M, K], rounded to 256 steps, and ``b`` [..., K, N]."""
    scale, zero = range_of(a)
    steps = rounded(a / scale, zero, kind_of(torch.uint8), carried=True)
    return multiply_to_float(steps, b, scale, b_scale, zero, b_zero, bias)


def _requantised(sums: Tensor, scale: Tensor, zero: Tensor, *, carried: bool) -> Tensor:
    """Return exact ``sums`` times ``scale``, rounded to integers of the type of ``zero`` around it."""
    return rounded(sums.to(scale.dtype) * scale, zero.to(scale.dtype), kind_of(zero.dtype), carried=carried)


def _exact(x: Tensor, zero: Tensor | None, axis: int = 0) -> Tensor:
    return centred(x, zero, axis).double()
