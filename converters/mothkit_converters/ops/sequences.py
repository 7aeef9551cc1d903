"""Sequences and optional values: Python lists, and None."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mothkit_converters.ops.call import listed, operator


@operator("SequenceConstruct", 11, lists=True)
def construct(*values: Tensor) -> list[Tensor]:
    """Return a sequence of ``values``."""
    return list(values)


@operator("SequenceEmpty", 11, lists=True)
def nothing(*, dtype: int = 1) -> list[Tensor]:  # noqa: ARG001 - any type's empty list is the same
    """Return a sequence that holds nothing yet."""
    return []


@operator("SequenceAt", 11, numbers=(1,), lists=True)
def at(values: Sequence[Tensor], position: int | list[int]) -> Tensor:
    """Return the element at ``position``, counted from the end where negative."""
    (place,) = listed(position)
    return values[int(place)]


@operator("SequenceInsert", 11, numbers=(2,), lists=True)
def insert(values: Sequence[Tensor], value: Tensor, position: int | list[int] | None = None) -> list[Tensor]:
    """Return the sequence with ``value`` before the element at ``position``, or at its end."""
    place = len(values) if position is None else listed(position)[0]
    return [*values[:place], value, *values[place:]]


@operator("SequenceErase", 11, numbers=(1,), lists=True)
def erase(values: Sequence[Tensor], position: int | list[int] | None = None) -> list[Tensor]:
    """Return the sequence without the element at ``position``, or without its last."""
    place = range(len(values))[-1 if position is None else listed(position)[0]]
    return [*values[:place], *values[place + 1 :]]


@operator("SequenceLength", 11, lists=True)
def length(values: Sequence[Any]) -> Tensor:
    """Return how many elements there are, as a scalar of int64."""
    return torch.tensor(len(values), device=values[0].device if values else None)


@operator("ConcatFromSequence", 11, lists=True)
def concat(values: Sequence[Tensor], *, axis: int, new_axis: int = 0) -> Tensor:
    """Return the elements along ``axis``, a new one where ``new_axis`` is 1."""
    return torch.stack(list(values), axis) if new_axis else torch.cat(list(values), axis)


@operator("SplitToSequence", 11, 24, numbers=(1,), lists=True)
def split(
    x: Tensor, sizes: int | list[int] | None = None, *, axis: int = 0, keepdims: int = 1
) -> list[Tensor]:
    """Return the parts of ``x`` along ``axis``: of these sizes, all of one size, or single slices."""
    if sizes is not None:
        return list(torch.split(x, sizes, axis))
    return list(torch.split(x, 1, axis) if keepdims else x.unbind(axis))


@operator("Optional", 15, 28, lists=True)
def optional(value: Any = None, *, type: object = None) -> Any:  # noqa: A002, ANN401, ARG001 - as ONNX has it
    """Return ``value``; nothing is None."""
    return value


@operator("OptionalGetElement", 15, 18, 28, lists=True)
def element(value: Any) -> Any:  # noqa: ANN401 - a tensor or a sequence
    """Return what is in ``value``.

    Raises:
        ValueError: It is empty.
    """
    if value is None:
        raise ValueError("an optional value is read, and it is empty")
    return value


@operator("OptionalHasElement", 15, 18, 28, lists=True)
def has_element(value: Any = None) -> Tensor:  # noqa: ANN401 - of any type
    """Return whether there is anything in ``value``, as a scalar."""
    return torch.tensor(value is not None, device=value.device if isinstance(value, Tensor) else None)
