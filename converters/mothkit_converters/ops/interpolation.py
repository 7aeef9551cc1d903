"""Resampling of one axis, by ONNX's rules: where each element comes from, and with which weights.

Positions are float32, as in onnxruntime: which of two neighbours is nearest may hang on the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Axis:
    """How one axis is resized.

    Attributes:
        size: Elements before.
        count: Elements after.
        scale: What the file says, or ``count`` over ``size``.
        start: Where the part begins that is taken, 0 to 1; for ``tf_crop_and_resize`` alone.
        end: Where it ends.
    """

    size: int
    count: int
    scale: float
    start: float = 0.0
    end: float = 1.0

    @property
    def exact(self) -> bool:
        """Whether ``scale`` is that of the sizes."""
        return abs(self.size * self.scale - self.count) <= 1e-6 * self.count

    @property
    def doubles(self) -> bool:
        """Whether elements are repeated 1, 2, 4, ... times."""
        times = self.count // self.size
        return self.count == self.size * times and times & (times - 1) == 0

    @property
    def whole(self) -> bool:
        """Whether all of the axis is taken."""
        return (self.start, self.end) == (0, 1)

    def positions(self, transform: str, device: torch.device) -> Tensor:
        """Return where in the input each element of the output [count] lies."""
        return POSITIONS[transform](torch.arange(self.count, dtype=torch.float32, device=device), self)


def _over(x: Tensor, divisor: float) -> Tensor:
    """Return ``x`` divided: on a GPU torch multiplies by the inverse of a plain number, which rounds twice."""
    return x / x.new_full((1,), divisor)


def _half_pixel(index: Tensor, axis: Axis) -> Tensor:
    return _over(index + 0.5, axis.scale) - 0.5


def _pytorch_half_pixel(index: Tensor, axis: Axis) -> Tensor:
    return _half_pixel(index, axis) if axis.count > 1 else index


def _half_pixel_symmetric(index: Tensor, axis: Axis) -> Tensor:
    adjustment = _over(index.new_full((1,), axis.count), axis.scale * axis.size)
    return (axis.size / 2 * (1 - adjustment) + _over(index + 0.5, axis.scale)) - 0.5


def _align_corners(index: Tensor, axis: Axis) -> Tensor:
    return _over(index * (axis.size - 1), axis.count - 1) if axis.count > 1 else index


def _crop(index: Tensor, axis: Axis) -> Tensor:
    last = axis.size - 1
    if axis.count == 1:
        return index + 0.5 * (axis.start + axis.end) * last
    return axis.start * last + _over(index * ((axis.end - axis.start) * last), axis.count - 1)


POSITIONS: Mapping[str, Callable[[Tensor, Axis], Tensor]] = MappingProxyType(
    {
        "align_corners": _align_corners,
        "asymmetric": lambda index, axis: _over(index, axis.scale),
        "half_pixel": _half_pixel,
        "half_pixel_symmetric": _half_pixel_symmetric,
        "pytorch_half_pixel": _pytorch_half_pixel,
        "tf_crop_and_resize": _crop,
        "tf_half_pixel_for_nn": lambda index, axis: _over(index + 0.5, axis.scale),
    }
)

_TIE = 1e-6  # what onnxruntime takes for halfway


def _rounded(at: Tensor, above: float) -> Tensor:
    """Return ``at`` rounded down where its fraction is at most ``above``, else up."""
    low = at.floor()
    return torch.where(at - low > above, low + 1, low)


ROUND: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {
        "ceil": torch.ceil,
        "floor": torch.floor,
        "round_prefer_ceil": lambda at: _rounded(at, 0.5 - _TIE),
        "round_prefer_floor": lambda at: _rounded(at, 0.5 + _TIE),
    }
)


def nearest(at: Tensor, axis: Axis, rounding: str) -> Tensor:
    """Return the index of the element nearest to each position ``at`` [count]; '' is the rule of version 10."""
    rule = rounding or ("floor" if axis.scale >= 1 else "ceil")
    return ROUND[rule](at).clamp(0, axis.size - 1).long()


def _linear(distance: Tensor) -> Tensor:
    return (1 - distance).clamp_min(0)


def _cubic(distance: Tensor, a: float) -> Tensor:
    """Return Keys' kernel with the coefficient ``a`` at ``distance`` >= 0."""
    near = ((a + 2) * distance - (a + 3)) * distance * distance + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return torch.where(distance <= 1, near, torch.where(distance < 2, far, 0))


def weights(
    at: Tensor, axis: Axis, *, cubic: float | None, antialias: bool, exclude_outside: bool
) -> tuple[Tensor, Tensor]:
    """Return which elements make each output, and by which weights: both [taps, count].

    Args:
        at: Positions [count].
        axis: The axis.
        cubic: The coefficient of the cubic kernel; None for the linear one.
        antialias: Whether the kernel is stretched where ``axis`` shrinks.
        exclude_outside: Whether what lies outside has no weight; else the edge is repeated.
    """
    stretch = min(axis.scale, 1.0) if antialias else 1.0
    reach = 1 if cubic is None else 2
    first = math.floor(-reach / stretch) + 1
    base = at.floor()
    offsets = torch.arange(first, 2 - first, device=at.device).unsqueeze(1)
    distance = (offsets - (at - base)).abs() * stretch
    share = _linear(distance) if cubic is None else _cubic(distance, cubic)
    index = base.long() + offsets
    if exclude_outside:
        share = share * ((index >= 0) & (index < axis.size))
    return index.clamp(0, axis.size - 1), share / share.sum(0)


def resampled(x: Tensor, dim: int, index: Tensor, share: Tensor) -> Tensor:
    """Return ``x`` with its axis ``dim`` made of the elements ``index``, weighed by ``share``: [taps, count]."""
    parts = torch.unflatten(x.index_select(dim, index.flatten()), dim, index.shape)
    mixed: Tensor = parts * share.to(x.dtype).reshape(*share.shape, *[1] * (x.dim() - dim - 1))
    return mixed.sum(dim)
