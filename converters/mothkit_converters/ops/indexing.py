"""Elements picked by their place, and elements put in a place: the Gather and Scatter families.

A negative index counts from the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from mothkit_converters.ops.call import operator

_TORCH_NAMES: Mapping[str, str] = MappingProxyType(
    {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}
)


@operator("Gather", 1, 11, 13, stored=(1,))
def gather(x: Tensor, indices: Tensor | int, *, axis: int = 0) -> Tensor:
    """Return the parts of ``x`` at ``indices`` along ``axis``, which the dimensions of ``indices`` replace."""
    axis %= x.dim()
    if not isinstance(indices, Tensor):
        return x.select(axis, indices)
    picked = x.index_select(axis, _from_start(indices, x.shape[axis]).flatten())
    return picked.reshape((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))


@operator("GatherElements", 11, 13)
def gather_elements(x: Tensor, indices: Tensor, *, axis: int = 0) -> Tensor:
    """Return the elements of ``x`` at ``indices`` along ``axis``, their other places being those of indices."""
    return x.gather(axis, _from_start(indices, x.shape[axis]))


@operator("GatherND", 11, 12, 13)  # 12 adds batch_dims
def gather_nd(x: Tensor, indices: Tensor, *, batch_dims: int = 0) -> Tensor:
    """Return the parts of ``x`` whose leading indices are the last dimension of ``indices``."""
    depth = indices.shape[-1]
    batches = math.prod(x.shape[:batch_dims])
    count = math.prod(indices.shape[batch_dims:-1])
    columns = indices.long().reshape(batches, count, depth).unbind(-1)
    rows = torch.arange(batches, device=x.device).unsqueeze(1)
    picked = x.reshape(batches, *x.shape[batch_dims:])[(rows, *columns)]
    return picked.reshape((*indices.shape[:-1], *x.shape[batch_dims + depth :]))


def _reductions(*known: str) -> Callable[[Mapping[str, Any]], str]:
    def check(attributes: Mapping[str, Any]) -> str:
        reduction = attributes.get("reduction", "none")
        return "" if reduction in known else f"its reduction '{reduction}' is none of {', '.join(known)}"

    return check


_SOME, _ALL = _reductions("none", "add", "mul"), _reductions("none", "add", "mul", "max", "min")


@operator("Scatter", 9)
@operator("ScatterElements", 11, 13)
@operator("ScatterElements", 16, check=_SOME)
@operator("ScatterElements", 18, check=_ALL)
def scatter_elements(
    x: Tensor, indices: Tensor, updates: Tensor, *, axis: int = 0, reduction: str = "none"
) -> Tensor:
    """Return ``x`` with ``updates`` at ``indices`` along ``axis``, in place of what is there or joined with it."""
    return _scatter(x, axis, _from_start(indices, x.shape[axis]), updates, reduction)


@operator("ScatterND", 11, 13)
@operator("ScatterND", 16, check=_SOME)
@operator("ScatterND", 18, check=_ALL)
def scatter_nd(x: Tensor, indices: Tensor, updates: Tensor, *, reduction: str = "none") -> Tensor:
    """Return ``x`` with ``updates`` where the last dimension of ``indices`` has their leading indices."""
    depth = indices.shape[-1]
    count, size = math.prod(indices.shape[:-1]), math.prod(x.shape[:depth])
    columns = indices.long().reshape(count, depth).unbind(-1)
    rest = x.shape[depth:]
    if reduction == "none":
        return x.index_put(columns, updates.reshape(count, *rest))
    length = math.prod(rest)
    places = torch.arange(size, device=x.device).reshape(x.shape[:depth])[columns]  # checks the bounds
    places = places.unsqueeze(1).expand(count, length)
    joined = _scatter(x.reshape(size, length), 0, places, updates.reshape(count, length), reduction)
    return joined.reshape(x.shape)


def _scatter(x: Tensor, axis: int, indices: Tensor, updates: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return x.scatter(axis, indices, updates)
    if x.dtype == torch.bool:  # a sum of truths is their Or, a product their And
        name = "amax" if reduction in ("add", "max") else "amin"
        return x.byte().scatter_reduce(axis, indices, updates.byte(), name).bool()
    return x.scatter_reduce(axis, indices, updates, _TORCH_NAMES[reduction])


def _from_start(indices: Tensor, size: int) -> Tensor:
    """Return ``indices`` of an axis of this ``size``, none of them negative."""
    indices = indices.long()
    return torch.where(indices < 0, indices + size, indices)


@operator("OneHot", 9, 11, 28, numbers=(1,))
def one_hot(indices: Tensor, depth: float | Sequence[float], values: Tensor, *, axis: int = -1) -> Tensor:
    """Return ``values[1]`` at ``indices`` along a new ``axis`` of length ``depth``, ``values[0]`` elsewhere.

    A negative index counts from the end. Version 9's text has it outside, and nobody reads it so.
    """
    length = int(depth[0] if isinstance(depth, Sequence) else depth)
    places = indices if indices.is_floating_point() else indices.long()  # no place is at a fraction
    places = torch.where(places < 0, places + length, places).unsqueeze(-1)
    hot = places == torch.arange(length, device=places.device)
    return torch.where(hot.movedim(-1, axis), values[1], values[0])


@operator("Compress", 9, 11, 28)  # 11 lets the axis be negative, 28 adds types
def compress(x: Tensor, condition: Tensor, *, axis: int | None = None) -> Tensor:
    """Return the parts of ``x`` along ``axis`` whose place in ``condition`` is true; of all elements if None."""
    x, axis = (x.flatten(), 0) if axis is None else (x, axis)
    return x.index_select(axis, condition.nonzero().flatten())


@operator("NonZero", 9, 13)
def non_zero(x: Tensor) -> Tensor:
    """Return the places [rank, count] of the elements of ``x`` that are not 0."""
    return x.nonzero().T


@operator("ReverseSequence", 10, 28)
def reverse_sequence(x: Tensor, lengths: Tensor, *, batch_axis: int = 1, time_axis: int = 0) -> Tensor:
    """Return ``x`` with the first ``lengths`` [N] of each sequence's steps in reverse."""
    steps = torch.arange(x.shape[time_axis], device=x.device)
    ends = lengths.long().unsqueeze(1)
    order = torch.where(steps < ends, ends - 1 - steps, steps)  # [N, T]
    order = order if batch_axis < time_axis else order.T
    order = order.reshape(*order.shape, *[1] * (x.dim() - 2)).expand(x.shape)
    return x.gather(time_axis, order)
