"""Resize and Upsample: by torch's kernels where they compute the same, else axis by axis."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import torch.nn.functional as F  # noqa: N812 - its customary name
from torch import Tensor

from mothkit_converters.errors import UnsupportedOpError
from mothkit_converters.ops.call import operator
from mothkit_converters.ops.interpolation import POSITIONS, ROUND, Axis, nearest, resampled, weights

_CROP = "tf_crop_and_resize"
_HALF_PIXEL = frozenset({"half_pixel", "pytorch_half_pixel"})
_HALVES_UP = frozenset({"round_prefer_floor", "round_prefer_ceil"})
_KERNELS: Mapping[tuple[str, int], str] = MappingProxyType(
    {
        ("cubic", 4): "bicubic",
        ("linear", 3): "linear",
        ("linear", 4): "bilinear",
        ("linear", 5): "trilinear",
        ("nearest", 3): "nearest",
        ("nearest", 4): "nearest",
        ("nearest", 5): "nearest",
    }
)  # by mode and rank


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rule:
    """How elements are found and weighed; the names are those of Resize's attributes."""

    mode: str = "nearest"
    transform: str = "asymmetric"
    nearest_mode: str = "floor"
    cubic: float = -0.75
    antialias: bool = False
    exclude_outside: bool = False
    extrapolation: float = 0.0
    node: str = ""  # its name


def _unknown(attributes: Mapping[str, Any]) -> str:
    """Return which attribute has a value that no version names, empty where none has."""
    served = {
        "coordinate_transformation_mode": POSITIONS,
        "mode": ("nearest", "linear", "cubic"),
        "nearest_mode": ROUND,
        "keep_aspect_ratio_policy": ("stretch", "not_larger", "not_smaller"),
    }
    wrong = [name for name in attributes if name in served and attributes[name] not in served[name]]
    if attributes.get("antialias", 0) and attributes.get("mode", "nearest") == "nearest":
        return "antialias is for linear and cubic, and its mode is nearest"
    return f"its {wrong[0]} is {attributes[wrong[0]]}" if wrong else ""


@operator("Resize", 11, 13, 18, 19, numbers=(1, 2, 3), check=_unknown)
def resize(
    x: Tensor,
    roi: Sequence[float] | None = None,
    scales: Sequence[float] | None = None,
    sizes: Sequence[int] | None = None,
    *,
    antialias: int = 0,
    axes: Sequence[int] = (),
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch",
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
    node: str = "",
) -> Tensor:
    """Return ``x`` [...] in other sizes along ``axes`` (all where none is named), by ``scales`` or to ``sizes``."""
    rule = _Rule(
        mode=mode,
        transform=coordinate_transformation_mode,
        nearest_mode=nearest_mode,
        cubic=cubic_coeff_a,
        antialias=bool(antialias),
        exclude_outside=bool(exclude_outside),
        extrapolation=extrapolation_value,
        node=node,
    )
    dims = [axis % x.dim() for axis in axes] or list(range(x.dim()))
    lengths = [x.shape[dim] for dim in dims]
    found = (
        _to_sizes(lengths, sizes, keep_aspect_ratio_policy) if sizes else _by_scales(lengths, scales or ())
    )
    if rule.transform == _CROP and roi:
        bounds = zip(found, roi[: len(dims)], roi[len(dims) :], strict=True)
        found = [replace(axis, start=start, end=end) for axis, start, end in bounds]
    return _resized(x, dict(zip(dims, found, strict=True)), rule)


@operator("Resize", 10, numbers=(1,), nearest_mode="")
@operator("Upsample", 9, 10, numbers=(1,), nearest_mode="floor")
def scale_by(
    x: Tensor, scales: Sequence[float], *, mode: str = "nearest", nearest_mode: str, node: str = ""
) -> Tensor:
    """Return ``x`` [...] scaled, the first element of each axis in its place."""
    rule = _Rule(mode="linear" if mode == "bilinear" else mode, nearest_mode=nearest_mode, node=node)
    return _resized(x, dict(enumerate(_by_scales(x.shape, scales))), rule)


@operator("Upsample", 7)
def upsample(x: Tensor, *, scales: Sequence[float], mode: str = "nearest") -> Tensor:
    """Return ``x`` [...] scaled, the first element of each axis in its place."""
    return scale_by(x, scales, mode=mode, nearest_mode="floor")


@operator("Upsample", 1)
def upsample_images(x: Tensor, *, height_scale: float, width_scale: float, mode: str = "nearest") -> Tensor:
    """Return ``x`` [N, C, H, W] scaled, the first element of each axis in its place."""
    return scale_by(x, [1.0, 1.0, height_scale, width_scale], mode=mode, nearest_mode="floor")


def _by_scales(lengths: Sequence[int], scales: Sequence[float]) -> list[Axis]:
    """Return axes of which each has the whole part of its length times its scale, multiplied in float32."""
    return [Axis(n, math.floor(_float32(n * scale)), scale) for n, scale in zip(lengths, scales, strict=True)]


def _float32(x: float) -> float:
    """Return ``x`` rounded to 24 bits, by Veltkamp's splitting: it can be traced with a symbol for a length."""
    spread = x * (2.0**29 + 1)
    return spread - (spread - x)


def _to_sizes(lengths: Sequence[int], sizes: Sequence[int], policy: str) -> list[Axis]:
    scales = [size / n if n else 1.0 for n, size in zip(lengths, sizes, strict=True)]
    if policy == "stretch":
        return [Axis(*numbers) for numbers in zip(lengths, sizes, scales, strict=True)]
    scale = min(scales) if policy == "not_larger" else max(scales)
    return [Axis(n, math.floor(scale * n + 0.5), scale) for n in lengths]


def _resized(x: Tensor, axes: Mapping[int, Axis], rule: _Rule) -> Tensor:
    """Return ``x`` with each of its ``axes`` resized."""
    if _ambiguous(list(axes.values()), rule):
        why = (
            "onnxruntime and ONNX's reference read scales that make no whole length, or its roi, differently"
        )
        raise UnsupportedOpError("Resize", rule.node, why)
    changed = {dim: axis for dim, axis in axes.items() if axis.count != axis.size or not axis.exact}
    if not changed:
        return x
    if not x.is_floating_point() and (rule.antialias or rule.mode == "cubic"):
        why = f"{rule.mode} interpolation of {x.dtype}, expected floats: how it rounds is not laid down"
        raise UnsupportedOpError("Resize", rule.node, why)
    if _torch_has_it(x, changed, rule):
        sizes = [changed[dim].count if dim in changed else x.shape[dim] for dim in range(2, x.dim())]
        corners = None if rule.mode == "nearest" else rule.transform == "align_corners"
        return F.interpolate(x, sizes, mode=_KERNELS[rule.mode, x.dim()], align_corners=corners)
    y = x if rule.mode == "nearest" or x.is_floating_point() else x.float()
    for dim, axis in changed.items():
        y = _along(y, dim, axis, rule)
    return y.to(x.dtype)


def _ambiguous(axes: Sequence[Axis], rule: _Rule) -> bool:
    """Return whether onnxruntime departs from the standard, or the reference does."""
    kept = [
        axis for axis in axes if axis.count == axis.size
    ]  # taken as they are, whatever the scale or the roi
    passed_over = kept if rule.antialias or len(kept) == len(axes) else ()
    uneven = axes if rule.transform in ("align_corners", _CROP) else passed_over
    return not all(axis.exact for axis in uneven) or not all(axis.whole for axis in kept)


def _along(x: Tensor, dim: int, axis: Axis, rule: _Rule) -> Tensor:
    """Return ``x`` with its axis ``dim`` resized."""
    at = axis.positions(rule.transform, x.device)
    if rule.mode == "nearest":
        y = x.index_select(dim, nearest(at, axis, rule.nearest_mode))
    else:
        cubic = rule.cubic if rule.mode == "cubic" else None
        taps = weights(at, axis, cubic=cubic, antialias=rule.antialias, exclude_outside=rule.exclude_outside)
        y = resampled(x, dim, *taps)
    if rule.transform != _CROP:
        return y
    outside = (at < 0) | (at > axis.size - 1)
    return y.masked_fill(outside.reshape(-1, *[1] * (x.dim() - dim - 1)), rule.extrapolation)


def _torch_has_it(x: Tensor, changed: Mapping[int, Axis], rule: _Rule) -> bool:
    """Return whether torch's kernels compute the same: spatial axes alone, no extras, and its positions."""
    axes = changed.values()
    plain = not rule.antialias and not rule.exclude_outside and rule.cubic == -0.75 and x.is_floating_point()
    if not plain or min(changed) < 2 or (rule.mode, x.dim()) not in _KERNELS:
        return False
    if not all(axis.exact and axis.count > 0 and axis.size > 0 for axis in axes):
        return False
    if rule.mode != "nearest":
        halves = rule.transform in _HALF_PIXEL and all(axis.count > 1 for axis in axes)
        return halves or rule.transform == "align_corners"
    pair = (rule.transform, rule.nearest_mode)
    repeats = pair == ("asymmetric", "floor") or (rule.transform in _HALF_PIXEL and pair[1] in _HALVES_UP)
    return repeats and all(axis.doubles for axis in axes)
