"""onnxruntime's own operators on quantised tensors that go by floats: each element for itself, and means."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its customary name
from torch import Tensor

from mothkit_converters.ops.call import operator
from mothkit_converters.ops.pooling import average_pool, global_average_pool
from mothkit_converters.ops.quantized import dequantise, kind_of, quantise
from mothkit_converters.ops.quantized_linear import MICROSOFT, check_layout

_POOL = ("auto_pad", "ceil_mode", "count_include_pad", "kernel_shape", "pads", "strides")


def _serve_pair(op: str, function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Serve an operator on two quantised tensors of any shapes that go together."""

    @operator(op, 1, domain=MICROSOFT)
    def compute(
        a: Tensor,
        a_scale: Tensor,
        a_zero: Tensor | None,
        b: Tensor,
        b_scale: Tensor,
        b_zero: Tensor | None,
        y_scale: Tensor,
        y_zero: Tensor,
        *,
        carried: bool,
    ) -> Tensor:
        y = function(dequantise(a, a_scale, a_zero), dequantise(b, b_scale, b_zero))
        return _quantised(y, y_scale, y_zero, carried=carried)


_serve_pair("QLinearAdd", torch.add)
_serve_pair("QLinearMul", torch.mul)


@operator("QLinearSigmoid", 1, domain=MICROSOFT)
def sigmoid(
    x: Tensor, x_scale: Tensor, x_zero: Tensor | None, y_scale: Tensor, y_zero: Tensor, *, carried: bool
) -> Tensor:
    """Return the sigmoid of ``x``."""
    return _quantised(dequantise(x, x_scale, x_zero).sigmoid(), y_scale, y_zero, carried=carried)


@operator("QLinearLeakyRelu", 1, domain=MICROSOFT)
def leaky_relu(
    x: Tensor,
    x_scale: Tensor,
    x_zero: Tensor | None,
    y_scale: Tensor,
    y_zero: Tensor,
    *,
    alpha: float = 0.01,
    carried: bool,
) -> Tensor:
    """Return ``x`` with what is negative times ``alpha``."""
    y = F.leaky_relu(dequantise(x, x_scale, x_zero), alpha)
    return _quantised(y, y_scale, y_zero, carried=carried)


@operator("QLinearSoftmax", 1, domain=MICROSOFT)
def softmax(
    x: Tensor,
    x_scale: Tensor,
    x_zero: Tensor | None,
    y_scale: Tensor,
    y_zero: Tensor,
    *,
    axis: int = -1,
    opset: int,
    carried: bool,
) -> Tensor:
    """Return the softmax of ``x`` along ``axis``; before opset 13, along all axes from it on."""
    values = dequantise(x, x_scale, x_zero)
    y = values.softmax(axis) if opset >= 13 else values.flatten(axis).softmax(-1).reshape(x.shape)
    return _quantised(y, y_scale, y_zero, carried=carried)


@operator("QLinearGlobalAveragePool", 1, domain=MICROSOFT, check=check_layout)
def average(
    x: Tensor,
    x_scale: Tensor,
    x_zero: Tensor | None,
    y_scale: Tensor,
    y_zero: Tensor,
    *,
    channels_last: int = 0,  # noqa: ARG001 - 0, as was checked
    carried: bool,
) -> Tensor:
    """Return the means of ``x`` [N, C, ...] as [N, C, 1, ...]."""
    y = global_average_pool(dequantise(x, x_scale, x_zero))
    return _quantised(y, y_scale, y_zero, carried=carried)


@operator("QLinearAveragePool", 1, domain=MICROSOFT, check=check_layout, also=_POOL)
def average_windows(
    x: Tensor,
    x_scale: Tensor,
    x_zero: Tensor | None,
    y_scale: Tensor,
    y_zero: Tensor,
    *,
    channels_last: int = 0,  # noqa: ARG001 - 0, as was checked
    carried: bool,
    **windows: Any,  # noqa: ANN401 - AveragePool's attributes
) -> Tensor:
    """Return the mean of each window of ``x`` [N, C, ...]."""
    y = average_pool(dequantise(x, x_scale, x_zero), **windows)
    return _quantised(y, y_scale, y_zero, carried=carried)


@operator("QLinearConcat", 1, domain=MICROSOFT)
def concat(y_scale: Tensor, y_zero: Tensor, *inputs: Tensor, axis: int, carried: bool) -> Tensor:
    """Return tensors along ``axis``; ``inputs`` are each a tensor, its scale and its zero point."""
    parts = [dequantise(*inputs[i : i + 3]) for i in range(0, len(inputs), 3)]
    return _quantised(torch.cat(parts, axis), y_scale, y_zero, carried=carried)


@operator("QLinearWhere", 1, domain=MICROSOFT)
def where(
    condition: Tensor,
    x: Tensor,
    x_scale: Tensor,
    x_zero: Tensor,
    y: Tensor,
    y_scale: Tensor,
    y_zero: Tensor,
    z_scale: Tensor,
    z_zero: Tensor,
    *,
    carried: bool,
) -> Tensor:
    """Return ``x`` where ``condition`` holds, ``y`` elsewhere."""
    z = torch.where(condition, dequantise(x, x_scale, x_zero), dequantise(y, y_scale, y_zero))
    return _quantised(z, z_scale, z_zero, carried=carried)


def _quantised(y: Tensor, scale: Tensor, zero: Tensor, *, carried: bool) -> Tensor:
    return quantise(y, scale, zero, kind=kind_of(zero.dtype), carried=carried)
