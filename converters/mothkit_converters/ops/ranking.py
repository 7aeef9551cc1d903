"""What orders or accumulates along one axis: ArgMax, ArgMin, TopK, CumSum, CumProd."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from mothkit_converters.ops.call import listed, operator
from mothkit_converters.ops.unsigned import WIDE, ordered


def _found(
    function: Callable[..., Tensor],
    x: Tensor,
    *,
    axis: int = 0,
    keepdims: int = 1,
    select_last_index: int = 0,
) -> Tensor:
    """Return the place of an extremum of ``x`` along ``axis``, of equals the first or the last."""
    x = ordered(x)
    if not select_last_index or not x.dim():
        return function(x, axis, bool(keepdims))
    return x.shape[axis] - 1 - function(x.flip(axis), axis, bool(keepdims))


operator("ArgMax", 1, 11, 12, 13)(partial(_found, torch.argmax))
operator("ArgMin", 1, 11, 12, 13)(partial(_found, torch.argmin))


@operator("TopK", 10, 11, 24, numbers=(1,))
def top_k(
    x: Tensor,
    k: int | Sequence[int],
    *,
    axis: int = -1,
    largest: int = 1,
    sorted: int = 1,  # noqa: A002, ARG001 - ONNX's name; without it, any order will do
) -> tuple[Tensor, Tensor]:
    """Return the ``k`` largest or smallest of ``x`` along ``axis``, and their places; of equals, the first."""
    values, places = torch.sort(x, dim=axis, descending=bool(largest), stable=True)
    (count,) = listed(k)
    return values.narrow(axis, 0, count), places.narrow(axis, 0, count)


@operator("TopK", 1)
def top_k_of_attribute(x: Tensor, *, k: int, axis: int = -1) -> tuple[Tensor, Tensor]:
    """Return ``top_k`` of ``x``."""
    return top_k(x, k, axis=axis)


def _accumulated(
    function: Callable[..., Tensor],
    start: int,
    x: Tensor,
    axis: int | Sequence[int],
    *,
    exclusive: int = 0,
    reverse: int = 0,
) -> Tensor:
    """Return what ``function`` accumulates along ``axis``, from either end, with or without the element itself."""
    (along,) = listed(axis)
    wide = x.to(torch.int64) if x.dtype in WIDE else x
    wide = wide.flip(along) if reverse else wide
    sums = function(wide, along, dtype=wide.dtype)
    if exclusive and x.shape[along]:
        first = torch.full_like(sums.narrow(along, 0, 1), start)
        sums = torch.cat([first, sums.narrow(along, 0, x.shape[along] - 1)], along)
    return (sums.flip(along) if reverse else sums).to(x.dtype)


operator("CumSum", 11, 14, numbers=(1,))(partial(_accumulated, torch.cumsum, 0))
operator("CumProd", 26, numbers=(1,))(partial(_accumulated, torch.cumprod, 1))
