"""Unsigned integers of more than 8 bits, for which torch has next to no arithmetic: computed as int64."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

WIDE = frozenset({torch.uint16, torch.uint32, torch.uint64})
_SIGN = torch.iinfo(torch.int64).min


def computable(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return ``function`` for wide unsigned tensors too; right wherever the low 64 bits decide the result."""
    return partial(_computed, function)


def _computed(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    if (dtype := tensors[0].dtype) not in WIDE:
        return function(*tensors)
    return function(*(tensor.to(torch.int64) for tensor in tensors)).to(dtype)


def ordered(x: Tensor) -> Tensor:
    """Return ``x`` in a dtype that torch compares, and in the same order; wide unsigned ones as int64."""
    if x.dtype not in WIDE:
        return x
    return x.to(torch.int64) ^ _SIGN if x.dtype == torch.uint64 else x.to(torch.int64)


def restored(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return values that ``ordered`` made of a tensor of ``dtype`` as they were."""
    if dtype not in WIDE:
        return x
    return (x ^ _SIGN if dtype == torch.uint64 else x).to(dtype)


def divided(a: Tensor, b: Tensor) -> Tensor:
    """Return the quotient of two uint64 tensors, rounded down."""
    a, b = a.to(torch.int64), b.to(torch.int64)
    half = (a >> 1) & ~_SIGN  # of the unsigned value, so that it has no sign bit
    quotient = torch.div(half, b, rounding_mode="trunc") << 1
    quotient += ((a - quotient * b) ^ _SIGN) >= (b ^ _SIGN)
    large = (a ^ _SIGN) >= (b ^ _SIGN)  # a divisor with the top bit set goes in once at most
    return torch.where(b < 0, large.to(torch.int64), quotient).to(torch.uint64)
