"""Pad, in any mode and for any rank."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mothkit_converters.ops.call import operator

_OLD_MODES = ("constant", "reflect", "edge")


def _one_of(*modes: str) -> Callable[[Mapping[str, Any]], str]:
    def check(attributes: Mapping[str, Any]) -> str:
        mode = attributes.get("mode", "constant")
        return "" if mode in modes else f"its mode '{mode}' is none of {', '.join(modes)}"

    return check


@operator("Pad", 1, check=_one_of(*_OLD_MODES))
def pad_1(x: Tensor, *, paddings: Sequence[int], value: float = 0.0, mode: str = "constant") -> Tensor:
    """Return ``x`` padded; ``paddings`` are in the order of later versions, whatever the first's example says."""
    return pad(x, paddings, value, mode=mode)


@operator("Pad", 2, check=_one_of(*_OLD_MODES))
@operator("Pad", 11, 13, numbers=(1,), stored=(2,), check=_one_of(*_OLD_MODES))
@operator("Pad", 18, numbers=(1, 3), stored=(2,), check=_one_of(*_OLD_MODES))  # adds the axes
@operator("Pad", 19, 21, 23, 24, 25, numbers=(1, 3), stored=(2,), check=_one_of(*_OLD_MODES, "wrap"))
def pad(
    x: Tensor,
    pads: Sequence[int],
    value: float | Tensor | None = None,
    axes: Sequence[int] | None = None,
    *,
    mode: str = "constant",
) -> Tensor:
    """Return ``x`` with elements added before and after it along ``axes``, or taken off it.

    Args:
        x: A tensor.
        pads: How many elements to add before it, for each axis, then how many after; negative ones go.
        value: What to add in the mode ``constant``; 0 where it is None.
        axes: All where it is None.
        mode: ``constant``, ``reflect``, ``edge`` or ``wrap``.
    """
    named = range(x.dim()) if axes is None else [axis % x.dim() for axis in axes]
    both = {
        axis: numbers for axis, *numbers in zip(named, pads[: len(named)], pads[len(named) :], strict=True)
    }
    if mode == "constant":
        return _pad_with(x, both, 0 if value is None else value)
    for axis, (before, after) in both.items():
        x = _pad_from_itself(x, axis, before, after, mode)
    return x


def _pad_with(x: Tensor, both: Mapping[int, Sequence[int]], value: float | Tensor) -> Tensor:
    flat = [number for axis in reversed(range(x.dim())) for number in both.get(axis, (0, 0))]
    if not isinstance(value, Tensor):
        return torch.constant_pad_nd(x, flat, value)
    added = torch.constant_pad_nd(torch.zeros_like(x, dtype=torch.bool), flat, value=True)
    return torch.where(added, value.reshape(()), torch.constant_pad_nd(x, flat))


def _pad_from_itself(x: Tensor, axis: int, before: int, after: int, mode: str) -> Tensor:
    """Return ``x`` with more of its own elements along ``axis``; what is taken off goes first."""
    less = [max(-before, 0), max(-after, 0)]
    x = x.narrow(axis, less[0], x.shape[axis] - sum(less))
    if before <= 0 and after <= 0:
        return x
    size = x.shape[axis]
    places = torch.arange(-max(before, 0), size + max(after, 0), device=x.device)
    if mode == "edge" or size == 1:
        places = places.clamp(0, size - 1)
    elif mode == "wrap":
        places = places % size
    else:
        places = places % (2 * size - 2)
        places = torch.minimum(places, 2 * size - 2 - places)
    return x.index_select(axis, places)
