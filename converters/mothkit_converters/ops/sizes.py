"""Arithmetic on sizes in Python: what graphs compute from shapes needs no tensors.

A value is a flat list of numbers here, whatever its shape. Kept as such it makes no device wait, and its
numbers can be traced as symbols.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from mothkit_converters.ops.rounding import divide, to_single

Numbers = list[Any]


def dims(x: Tensor, start: int | None, end: int | None) -> Numbers:
    """Return a part of the shape of ``x``."""
    return list(x.shape)[start:end]


def count(x: Tensor) -> Numbers:
    """Return the number of elements of ``x``."""
    return [x.numel()]


def as_tensor(
    numbers: Numbers, shape: Sequence[int] | None, dtype: torch.dtype, like: Tensor | None
) -> Tensor:
    """Return ``numbers`` as a tensor on the device of ``like``, of one dimension where ``shape`` is None."""
    device = None if like is None else like.device
    size = (len(numbers),) if shape is None else tuple(shape)
    if len(numbers) == 1:
        return torch.full(size, numbers[0], dtype=dtype, device=device)  # no copy to wait for
    return torch.tensor(numbers, dtype=dtype, device=device).reshape(size)


def pick(places: Iterable[int], *numbers: Numbers) -> Numbers:
    """Return those at ``places`` in all of ``numbers``, one list after the other."""
    joined = join(*numbers)
    return [joined[place] for place in places]


def join(*numbers: Numbers) -> Numbers:
    """Return one list of all."""
    return [number for part in numbers for number in part]


def part(start: int, end: int, step: int, numbers: Numbers) -> Numbers:
    """Return a slice of ``numbers``."""
    return numbers[start:end:step]


def only(numbers: Numbers) -> Any:  # noqa: ANN401 - an int, a float or a truth
    """Return the number of a scalar."""
    return numbers[0]


def each(name: str, single: bool, *numbers: Numbers) -> Numbers:  # noqa: FBT001 - part of a traced graph
    """Return the function ``name`` of ``numbers``, each of one length or of length 1, in single precision or not."""
    lengths = {len(part) for part in numbers} - {1}
    length = max(lengths, default=1)
    spread = [part * length if len(part) == 1 else part for part in numbers]
    made = [ELEMENTWISE[name](*values) for values in zip(*spread, strict=True)]
    return [to_single(number) for number in made] if single else made


def to_whole(numbers: Numbers) -> Numbers:
    """Return ``numbers`` as integers, rounded towards zero."""
    return [math.trunc(number) if isinstance(number, float) else number for number in numbers]


def to_fractions(single: bool, numbers: Numbers) -> Numbers:  # noqa: FBT001 - part of a traced graph
    """Return ``numbers`` as floats; a traced size becomes the number it has, for rounding needs that."""
    made = [float(number if isinstance(number, float) else operator.index(number)) for number in numbers]
    return [to_single(number) for number in made] if single else made


def from_truths(numbers: Numbers) -> Numbers:
    """Return 1 for what is true, 0 for what is not."""
    return [1 if number else 0 for number in numbers]


def to_truths(numbers: Numbers) -> Numbers:
    """Return which of ``numbers`` are not 0."""
    return [number != 0 for number in numbers]


def total(name: str, numbers: Numbers) -> Numbers:
    """Return the product, sum, least or largest of ``numbers``."""
    made = numbers[0] if numbers else {"ReduceProd": 1, "ReduceSum": 0}[name]
    for number in numbers[1:]:
        made = _JOINING[name](made, number)
    return [made]


def _remainder(a: int, b: int) -> int:
    """Return what is left of ``a / b`` rounded towards zero, with the sign of ``a``."""
    return a - b * divide(a, b)


_JOINING: Mapping[str, Callable[[Any, Any], Any]] = MappingProxyType(
    {"ReduceMax": max, "ReduceMin": min, "ReduceProd": operator.mul, "ReduceSum": operator.add}
)
ELEMENTWISE: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "Abs": abs,
        "Add": operator.add,
        "And": lambda a, b: a and b,
        "Ceil": lambda a: float(math.ceil(a)),
        "Div": operator.truediv,
        "DivWhole": divide,
        "Equal": operator.eq,
        "Floor": lambda a: float(math.floor(a)),
        "Greater": operator.gt,
        "GreaterOrEqual": operator.ge,
        "Less": operator.lt,
        "LessOrEqual": operator.le,
        "Max": max,
        "Min": min,
        "Mod": operator.mod,
        "ModTruncated": _remainder,
        "Mul": operator.mul,
        "Neg": operator.neg,
        "Not": operator.not_,
        "Or": lambda a, b: a or b,
        "Round": lambda a: float(round(a)),
        "Sqrt": math.sqrt,
        "Sub": operator.sub,
        "Where": lambda chosen, a, b: a if chosen else b,
        "Xor": operator.ne,
    }
)
"""Functions of numbers by operator; where integers and fractions differ, those of integers have a longer name."""
