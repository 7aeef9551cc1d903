"""Activations that have settings, and softmax and its kin."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from mothkit_converters.ops.broadcasting import align
from mothkit_converters.ops.call import operator
from mothkit_converters.ops.unsigned import WIDE

_Ints = Sequence[int] | None  # consumed_inputs, which says nothing of values


@operator("LeakyRelu", 1, 6, 16)
def leaky_relu(x: Tensor, *, alpha: float = 0.01, consumed_inputs: _Ints = None) -> Tensor:  # noqa: ARG001
    """Return ``x``, times ``alpha`` where it is negative."""
    return functional.leaky_relu(x, alpha)


@operator("PRelu", 7, 9, 16)
def prelu(x: Tensor, slope: Tensor) -> Tensor:
    """Return ``x``, times ``slope`` where it is negative; ``slope`` broadcasts to ``x``."""
    return x if x.dtype in WIDE else torch.where(x < 0, slope * x, x)


@operator("PRelu", 1, 6)
def prelu_of_channels(x: Tensor, slope: Tensor, *, consumed_inputs: _Ints = None) -> Tensor:  # noqa: ARG001
    """Return ``prelu`` of ``x`` [N, C, ...] with one slope per channel, or one for all."""
    return prelu(x, align(x, slope, 1) if slope.dim() == 1 and slope.numel() > 1 and x.dim() > 1 else slope)


@operator("Elu", 1, 6, 22)
def elu(x: Tensor, *, alpha: float = 1.0, consumed_inputs: _Ints = None) -> Tensor:  # noqa: ARG001
    """Return ``x``, and ``alpha`` x (e^x - 1) where it is negative."""
    return functional.elu(x, alpha)


@operator("Selu", 6, 22)
@operator("Selu", 1, alpha=1.6732, gamma=1.0507)
def selu(
    x: Tensor,
    *,
    alpha: float = 1.67326319217681884765625,
    gamma: float = 1.05070102214813232421875,
    consumed_inputs: _Ints = None,  # noqa: ARG001
) -> Tensor:
    """Return ``gamma`` x ``elu`` of ``x``."""
    return gamma * functional.elu(x, alpha)


@operator("Celu", 12, 28)
def celu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    """Return ``x``, and ``alpha`` x (e^(x / ``alpha``) - 1) where it is negative."""
    return functional.celu(x, alpha)


@operator("Gelu", 20)
def gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    """Return ``x`` times the share of a normal distribution below it."""
    return functional.gelu(x, approximate=approximate)


@operator("Mish", 18, 22)
def mish(x: Tensor) -> Tensor:
    """Return ``x`` x tanh(softplus(``x``))."""
    return functional.mish(x)


@operator("Swish", 24)
def swish(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    """Return ``x`` x sigmoid(``alpha`` x ``x``)."""
    return functional.silu(x) if alpha == 1 else x * torch.sigmoid(alpha * x)


@operator("SwiGLU", 28)
def swiglu(gate: Tensor, x: Tensor, *, alpha: float = 1.0) -> Tensor:
    """Return ``x``, times ``swish`` of ``gate``."""
    return swish(gate, alpha=alpha) * x


@operator("HardSigmoid", 1, 6, 22)
def hard_sigmoid(
    x: Tensor,
    *,
    alpha: float = 0.2,
    beta: float = 0.5,
    consumed_inputs: _Ints = None,  # noqa: ARG001
) -> Tensor:
    """Return ``alpha`` x ``x`` + ``beta``, held between 0 and 1."""
    return torch.clamp(alpha * x + beta, 0, 1)


@operator("HardSwish", 14, 22)
def hard_swish(x: Tensor) -> Tensor:
    """Return ``x`` times ``x`` / 6 + 1/2 held between 0 and 1."""
    return functional.hardswish(x)


@operator("ThresholdedRelu", 10, 22)
def thresholded_relu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    """Return ``x`` where it is above ``alpha``, 0 elsewhere."""
    return torch.where(x > alpha, x, 0)


@operator("Shrink", 9)
def shrink(x: Tensor, *, bias: float = 0.0, lambd: float = 0.5) -> Tensor:
    """Return ``x`` moved towards 0 by ``bias``, and 0 where it is at most ``lambd`` from it."""
    wide = x if x.is_floating_point() else x.to(torch.float64)
    shrunk = torch.where(wide < -lambd, wide + bias, torch.where(wide > lambd, wide - bias, 0))
    return shrunk.to(x.dtype)


def _softmax(x: Tensor, axis: int = -1) -> Tensor:
    return torch.softmax(x, axis)


def _log_softmax(x: Tensor, axis: int = -1) -> Tensor:
    return torch.log_softmax(x, axis)


def _hardmax(x: Tensor, axis: int = -1) -> Tensor:
    return torch.zeros_like(x).scatter(axis, x.argmax(axis, keepdim=True), 1)  # the first of equals


def _flattened(function: Callable[[Tensor, int], Tensor], x: Tensor, *, axis: int = 1) -> Tensor:
    """Return ``function`` of ``x``, all its dimensions from ``axis`` on taken for one."""
    return function(x.flatten(axis), -1).reshape(x.shape)


for _op, _function in (("Softmax", _softmax), ("LogSoftmax", _log_softmax), ("Hardmax", _hardmax)):
    operator(_op, 1, 11)(partial(_flattened, _function))
    operator(_op, 13)(_function)
