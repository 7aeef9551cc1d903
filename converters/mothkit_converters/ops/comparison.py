"""Comparisons, logic and bits, and the choice between two tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from mothkit_converters.ops.broadcasting import binary
from mothkit_converters.ops.call import operator
from mothkit_converters.ops.unsigned import WIDE, computable, ordered

binary("And", 7, old=(1,))(computable(torch.logical_and))
binary("Or", 7, old=(1,))(computable(torch.logical_or))
binary("Xor", 7, old=(1,))(computable(torch.logical_xor))
operator("Not", 1)(computable(torch.logical_not))


@binary("Equal", 7, 11, 13, 19, old=(1,))
def equal(a: Tensor, b: Tensor) -> Tensor:
    """Return where ``a`` is ``b``."""
    return torch.eq(a, b)


@binary("Greater", 7, 9, 13, old=(1,))
def greater(a: Tensor, b: Tensor) -> Tensor:
    """Return where ``a`` is above ``b``."""
    return torch.gt(ordered(a), ordered(b))


@binary("Less", 7, 9, 13, old=(1,))
def less(a: Tensor, b: Tensor) -> Tensor:
    """Return where ``a`` is below ``b``."""
    return torch.lt(ordered(a), ordered(b))


@operator("GreaterOrEqual", 12, 16)
def greater_or_equal(a: Tensor, b: Tensor) -> Tensor:
    """Return where ``a`` is not below ``b``."""
    return torch.ge(ordered(a), ordered(b))


@operator("LessOrEqual", 12, 16)
def less_or_equal(a: Tensor, b: Tensor) -> Tensor:
    """Return where ``a`` is not above ``b``."""
    return torch.le(ordered(a), ordered(b))


@operator("IsNaN", 9, 13, 20)
def is_nan(x: Tensor) -> Tensor:
    """Return where ``x`` is no number."""
    return torch.isnan(x)


@operator("IsInf", 10, 20)
def is_inf(x: Tensor, *, detect_negative: int = 1, detect_positive: int = 1) -> Tensor:
    """Return where ``x`` is infinite, on the sides that are asked for."""
    below, above = torch.isneginf(x), torch.isposinf(x)
    if detect_negative and detect_positive:
        return below | above
    if not detect_negative and not detect_positive:
        return torch.zeros_like(below)
    return below if detect_negative else above


@operator("Where", 9, 16)
def where(condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Return ``a`` where ``condition`` holds and ``b`` elsewhere; all broadcast to each other."""
    return torch.where(condition, a, b)


operator("BitwiseAnd", 18)(computable(torch.bitwise_and))
operator("BitwiseOr", 18)(computable(torch.bitwise_or))
operator("BitwiseXor", 18)(computable(torch.bitwise_xor))
operator("BitwiseNot", 18)(computable(torch.bitwise_not))


@operator("BitShift", 11, 28)  # 28 adds signed integers, and says what too long a shift gives
def bit_shift(x: Tensor, by: Tensor, *, direction: str) -> Tensor:
    """Return the bits of ``x`` shifted; beyond its width, or by less than none, only sign bits are left."""
    bits = torch.iinfo(x.dtype).bits
    values, by = x.to(torch.int64), by.to(torch.int64)
    within = (by >= 0) & (by < bits)
    by = by.clamp(0, bits - 1)
    if direction == "LEFT":
        return torch.where(within, values << by, 0).to(x.dtype)
    if x.dtype in WIDE or x.dtype == torch.uint8:
        shifted = torch.where(
            by > 0, ((values >> 1) & torch.iinfo(torch.int64).max) >> (by - 1).clamp(0), values
        )
        return torch.where(within, shifted, 0).to(x.dtype)
    return torch.where(within, values >> by, values >> (bits - 1)).to(x.dtype)
