"""Operators on two tensors, and how their oldest versions broadcast."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import TypeVar

from torch import Tensor

from mothkit_converters.ops.call import operator

F = TypeVar("F", bound=Callable[..., Tensor])


def binary(op: str, *versions: int, old: Collection[int], stored: Collection[int] = ()) -> Callable[[F], F]:
    """Return a decorator that makes a function of two tensors the converter of ``op``.

    Args:
        op: The operator's type.
        versions: Schema versions that broadcast as torch does.
        old: Those before, which broadcast the second tensor alone, from an axis of the first.
        stored: As in ``operator``.
    """

    def register(function: F) -> F:
        operator(op, *versions, stored=stored)(function)
        operator(op, *old)(partial(_aligned, function))
        return function

    return register


def _aligned(
    function: Callable[..., Tensor],
    a: Tensor,
    b: Tensor,
    *,
    axis: int | None = None,
    broadcast: int = 0,
    consumed_inputs: Sequence[int] | None = None,  # noqa: ARG001 - says nothing of values
) -> Tensor:
    return function(a, align(a, b, axis) if broadcast and axis is not None else b)


def align(a: Tensor, b: Tensor, axis: int) -> Tensor:
    """Return ``b`` with dimensions of size 1 appended, so that its first one meets ``axis`` of ``a``."""
    after = a.dim() - axis % a.dim() - b.dim() if a.dim() else 0
    return b.reshape(*b.shape, *[1] * max(after, 0))
