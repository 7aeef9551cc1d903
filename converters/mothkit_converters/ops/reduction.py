"""Reductions over some axes: sums, means, norms, extremes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor

from mothkit_converters.ops.call import listed, operator
from mothkit_converters.ops.unsigned import WIDE, ordered, restored

_Axes: TypeAlias = tuple[int, ...]
_Reduction: TypeAlias = Callable[[Tensor, _Axes, bool], Tensor]  # over no axis it keeps every element apart


def reduction(op: str, *versions: int) -> Callable[[_Reduction], _Reduction]:
    """Return a decorator that makes a reduction of a tensor over axes the converter of ``op``.

    Axes are an attribute in old versions, an input in newer ones, and mean the same.
    """

    def register(function: _Reduction) -> _Reduction:
        operator(op, *versions, numbers=(1,))(partial(_reduced, function))
        return function

    return register


def _reduced(
    function: _Reduction,
    x: Tensor,
    axes: int | Sequence[int] | None = None,
    *,
    keepdims: int = 1,
    noop_with_empty_axes: int = 0,
) -> Tensor:
    return function(x, _axes(x, listed(axes), every=not noop_with_empty_axes), bool(keepdims))


def _axes(x: Tensor, axes: Sequence[int], *, every: bool) -> _Axes:
    """Return the axes of ``x`` that are meant, ascending; where none is named, every one or none at all."""
    if not axes:
        return tuple(range(x.dim())) if every else ()
    return tuple(sorted({axis % x.dim() for axis in axes})) if x.dim() else ()


@reduction("ReduceSum", 1, 11, 13)
def sum_over(x: Tensor, axes: _Axes, keep: bool) -> Tensor:  # noqa: FBT001
    """Return the sum of ``x`` over ``axes``, in its dtype."""
    if not axes:
        return x
    wide = x.to(torch.int64) if x.dtype in WIDE else x
    return wide.sum(axes, keep, dtype=wide.dtype).to(x.dtype)


@reduction("ReduceMean", 1, 11, 13, 18)
def mean_over(x: Tensor, axes: _Axes, keep: bool) -> Tensor:  # noqa: FBT001
    """Return the mean of ``x`` over ``axes``, rounded towards zero where it holds integers."""
    if not axes:
        return x
    if x.is_floating_point():
        return x.mean(axes, keep)
    return x.to(torch.float64).mean(axes, keep).to(x.dtype)


@reduction("ReduceProd", 1, 11, 13, 18)
def product_over(x: Tensor, axes: _Axes, keep: bool) -> Tensor:  # noqa: FBT001
    """Return the product of ``x`` over ``axes``, in its dtype."""
    product = x.to(torch.int64) if x.dtype in WIDE else x
    for axis in reversed(axes):
        product = product.prod(axis, keep, dtype=product.dtype)
    return product.to(x.dtype)


def _lowest(dtype: torch.dtype) -> float:
    return -torch.inf if dtype.is_floating_point else 0 if dtype == torch.bool else torch.iinfo(dtype).min


def _highest(dtype: torch.dtype) -> float:
    return torch.inf if dtype.is_floating_point else 1 if dtype == torch.bool else torch.iinfo(dtype).max


@reduction("ReduceMax", 1, 11, 12, 13, 18, 20)
def maximum_over(x: Tensor, axes: _Axes, keep: bool) -> Tensor:  # noqa: FBT001
    """Return the largest of ``x`` over ``axes``; of nothing, the lowest of its dtype."""
    return _extreme(torch.amax, _lowest, x, axes, keep)


@reduction("ReduceMin", 1, 11, 12, 13, 18, 20)
def minimum_over(x: Tensor, axes: _Axes, keep: bool) -> Tensor:  # noqa: FBT001
    """Return the smallest of ``x`` over ``axes``; of nothing, the highest of its dtype."""
    return _extreme(torch.amin, _highest, x, axes, keep)


def _extreme(
    function: _Reduction,
    of_nothing: Callable[[torch.dtype], float],
    x: Tensor,
    axes: _Axes,
    keep: bool,  # noqa: FBT001
) -> Tensor:
    if not axes:
        return x
    comparable = ordered(x)
    if any(x.shape[axis] == 0 for axis in axes):
        shape = comparable.sum(axes, keep).shape
        return restored(comparable.new_full(shape, of_nothing(comparable.dtype)), x.dtype)
    return restored(function(comparable, axes, keep), x.dtype)


@reduction("ReduceL1", 1, 11, 13, 18)
def l1_over(x: Tensor, axes: _Axes, keep: bool) -> Tensor:  # noqa: FBT001
    """Return the sum of absolute values over ``axes``."""
    return sum_over(x if x.dtype in WIDE else x.abs(), axes, keep)


@reduction("ReduceSumSquare", 1, 11, 13, 18)
def squares_over(x: Tensor, axes: _Axes, keep: bool) -> Tensor:  # noqa: FBT001
    """Return the sum of squares over ``axes``."""
    return sum_over(x * x, axes, keep)


def _real(x: Tensor) -> Tensor:
    """Return integers as float64, for functions whose result is then cut to the integer below in size."""
    return x if x.is_floating_point() else x.to(torch.float64)


@reduction("ReduceL2", 1, 11, 13, 18)
def l2_over(x: Tensor, axes: _Axes, keep: bool) -> Tensor:  # noqa: FBT001
    """Return the root of the sum of squares over ``axes``; it has a gradient at 0 too."""
    real = _real(x)
    return (torch.linalg.vector_norm(real, 2, axes, keep) if axes else real.abs()).to(x.dtype)


@reduction("ReduceLogSum", 1, 11, 13, 18, 28)
def log_sum_over(x: Tensor, axes: _Axes, keep: bool) -> Tensor:  # noqa: FBT001
    """Return the logarithm of the sum over ``axes``."""
    return sum_over(_real(x), axes, keep).log().to(x.dtype)


@reduction("ReduceLogSumExp", 1, 11, 13, 18, 28)
def log_sum_exp_over(x: Tensor, axes: _Axes, keep: bool) -> Tensor:  # noqa: FBT001
    """Return the logarithm of the sum of exponentials over ``axes``."""
    return torch.logsumexp(_real(x), axes, keep).to(x.dtype) if axes else x
