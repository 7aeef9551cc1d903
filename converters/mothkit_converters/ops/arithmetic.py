"""Arithmetic on two tensors or more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F  # noqa: N812 - its customary name
from torch import Tensor

from mothkit_converters.ops.broadcasting import binary
from mothkit_converters.ops.call import operator
from mothkit_converters.ops.unsigned import WIDE, computable, divided

binary("Add", 7, 13, 14, old=(1, 6))(computable(torch.add))
binary("Sub", 7, 13, 14, old=(1, 6))(computable(torch.sub))
binary("Mul", 7, 13, 14, old=(1, 6))(computable(torch.mul))


@binary("Div", 7, 13, 14, old=(1, 6))
def divide(a: Tensor, b: Tensor) -> Tensor:
    """Return ``a`` / ``b``, rounded towards zero where they are integers."""
    if a.is_floating_point():
        return torch.div(a, b)
    if a.dtype == torch.uint64:
        return divided(a, b)
    return computable(_truncated)(a, b)


def _truncated(a: Tensor, b: Tensor) -> Tensor:
    return torch.div(a, b, rounding_mode="trunc")


@operator("Mod", 10, 13, 28)  # 28 allows floats without fmod
def mod(a: Tensor, b: Tensor, *, fmod: int = 0) -> Tensor:
    """Return what remains of ``a`` / ``b``: with the sign of ``a`` if ``fmod``, else with that of ``b``."""
    if a.dtype == torch.uint64:
        return (a.to(torch.int64) - divided(a, b).to(torch.int64) * b.to(torch.int64)).to(a.dtype)
    if fmod or not a.is_floating_point():
        return computable(torch.fmod if fmod else torch.remainder)(a, b)
    remainder = torch.remainder(a, b)
    return torch.where(remainder == 0, torch.copysign(remainder, b), remainder)


@binary("Pow", 7, 12, 13, 15, old=(1,), stored=(1,))
def power(a: Tensor, b: Tensor | float) -> Tensor:
    """Return ``a`` to the power ``b``, in the dtype of ``a`` whatever that of ``b``."""
    if a.is_floating_point():
        return torch.pow(a, _signed(b)).to(a.dtype)
    exponent = torch.as_tensor(b, device=a.device)
    base = a.to(torch.float64) if exponent.is_floating_point() else a
    return torch.pow(base, _signed(exponent)).to(a.dtype)


def _signed(b: Tensor | float) -> Tensor | float:
    return b.to(torch.int64) if isinstance(b, Tensor) and b.dtype in WIDE else b


def _folded(
    pair: Callable[[Tensor, Tensor], Tensor],
    first: Tensor,
    *others: Tensor,
    consumed_inputs: Sequence[int] | None = None,  # noqa: ARG001 - says nothing of values
) -> Tensor:
    for other in others:
        first = pair(first, other)
    return first


# before version 8 all inputs have one shape
operator("Max", 1, 6, 8, 12, 13)(partial(_folded, torch.maximum))
operator("Min", 1, 6, 8, 12, 13)(partial(_folded, torch.minimum))
operator("Sum", 1, 6, 8, 13)(partial(_folded, torch.add))


@operator("Mean", 1, 6, 8, 13)
def mean(*tensors: Tensor, consumed_inputs: Sequence[int] | None = None) -> Tensor:  # noqa: ARG001
    """Return the mean of ``tensors``, which broadcast to each other."""
    return _folded(torch.add, *tensors) / len(tensors)


@operator("Clip", 11, 12, 13, stored=(1, 2))
def clip(x: Tensor, low: Tensor | float | None = None, high: Tensor | float | None = None) -> Tensor:
    """Return ``x`` held between two bounds; the upper one holds where they cross."""
    if isinstance(low, Tensor) or isinstance(high, Tensor):
        low, high = _as_tensor(low, x), _as_tensor(high, x)
        return torch.clamp(x, low, high)
    return x if low is None and high is None else _clamp(x, low, high)


def _clamp(x: Tensor, low: float | None, high: float | None) -> Tensor:
    if x.is_floating_point() and low is not None and high is not None and low <= high:
        return F.hardtanh(x, low, high)  # the same, and its gradient takes a fifth of the time of clamp's
    return torch.clamp(x, low, high)


def _as_tensor(bound: Tensor | float | None, x: Tensor) -> Tensor | None:
    return None if bound is None else torch.as_tensor(bound, dtype=x.dtype, device=x.device)


@operator("Clip", 6, min=-3.402823466e38, max=3.402823466e38)
@operator("Clip", 1)
def clip_to(
    x: Tensor,
    *,
    min: float | None = None,  # noqa: A002 - ONNX's name
    max: float | None = None,  # noqa: A002
    consumed_inputs: Sequence[int] | None = None,  # noqa: ARG001
) -> Tensor:
    """Return ``x`` held between two bounds, by default the largest numbers of its dtype."""
    range_ = torch.finfo(x.dtype)
    return _clamp(x, range_.min if min is None else min, range_.max if max is None else max)
