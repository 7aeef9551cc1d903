"""Pools: windows or whole axes, each as one number."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its customary name
from torch import Tensor

from mothkit_converters.errors import UnsupportedOpError
from mothkit_converters.ops.call import operator
from mothkit_converters.ops.windows import Windows, padded, too_many_axes, windows

_MAXIMUM: Any = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVERAGE: Any = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def _check(attributes: Mapping[str, Any]) -> str:
    """Return why a pool with these attributes cannot be served, empty where it can."""
    numbers = zip(attributes["kernel_shape"], attributes.get("dilations", ()), strict=False)
    if attributes.get("auto_pad", "").startswith("SAME") and any(d != 1 < k for k, d in numbers):
        return "onnxruntime pads dilated windows of auto_pad SAME otherwise than ONNX asks for"
    return too_many_axes(attributes)


@operator("MaxPool", 1, 8, 10, 11, 12, 22, check=_check)
def max_pool(
    x: Tensor,
    *,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sequence[int] = (),
    kernel_shape: Sequence[int],
    pads: Sequence[int] = (),
    storage_order: int = 0,
    strides: Sequence[int] = (),
    outputs: int = 1,
) -> Tensor | tuple[Tensor, Tensor]:
    """Return the largest element of each window of ``x`` [N, C, ...], and where in all of ``x`` it stands."""
    if not x.is_floating_point():  # torch has no such kernels; float32 holds bytes as they are
        floats = max_pool(
            x.float(),
            auto_pad=auto_pad,
            ceil_mode=ceil_mode,
            dilations=dilations,
            kernel_shape=kernel_shape,
            pads=pads,
            storage_order=storage_order,
            strides=strides,
            outputs=outputs,
        )
        return floats.to(x.dtype) if isinstance(floats, Tensor) else (floats[0].to(x.dtype), floats[1])
    sizes = x.shape[2:]
    at = windows(sizes, kernel_shape, strides, dilations, pads, auto_pad)
    before, padding = [0] * len(sizes), at.begins
    if not _kernels_pad(at):
        overhangs = at.overhangs(sizes) if ceil_mode else before
        ends = [end + more for end, more in zip(at.ends, overhangs, strict=True)]
        x, before, padding, ceil_mode = padded(x, at.begins, ends, -math.inf), at.begins, before, 0
    pool = _MAXIMUM[len(sizes)]
    given = (x, at.kernel, at.strides, padding, at.dilations, bool(ceil_mode))
    if outputs == 1:
        return pool(*given)  # type: ignore[no-any-return]
    y, within = pool(*given, return_indices=True)
    return y, _places(within, x.shape[2:], before, sizes, by_column=bool(storage_order))


def _kernels_pad(at: Windows) -> bool:
    """Return whether torch's kernels take the padding: as much on both sides, half the kernel at most."""
    return at.symmetric and all(2 * n <= k for n, k in zip(at.begins, at.kernel, strict=True))


def _places(
    within: Tensor, whole: Sequence[int], before: Sequence[int], sizes: Sequence[int], *, by_column: bool
) -> Tensor:
    """Return places in an image padded to ``whole`` as places in all of the tensor that was padded."""
    place, rest = torch.zeros_like(within), within
    steps = [math.prod(sizes[:i] if by_column else sizes[i + 1 :]) for i in range(len(sizes))]
    for size, begin, step in reversed(list(zip(whole, before, steps, strict=True))):
        place, rest = place + (rest % size - begin) * step, rest // size
    images = torch.arange(within.shape[0] * within.shape[1], device=within.device)
    return place + images.reshape(*within.shape[:2], *[1] * len(sizes)) * math.prod(sizes)


@operator("AveragePool", 1, 7, 10, 11, 19, 22, check=_check)
def average_pool(
    x: Tensor,
    *,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: Sequence[int] = (),
    kernel_shape: Sequence[int],
    pads: Sequence[int] = (),
    strides: Sequence[int] = (),
) -> Tensor:
    """Return the mean of each window of ``x`` [N, C, ...]; padding counts if ``count_include_pad``.

    What a last window has beyond the padding (``ceil_mode``) never counts, as in onnxruntime.
    """
    sizes = x.shape[2:]
    at = windows(sizes, kernel_shape, strides, dilations, pads, auto_pad)
    if _kernels_pad(at) and not any(dilation != 1 for dilation in at.dilations):
        pool = _AVERAGE[len(sizes)]
        mean: Tensor = pool(x, at.kernel, at.strides, at.begins, bool(ceil_mode), bool(count_include_pad))
        return mean
    overhangs = at.overhangs(sizes) if ceil_mode else [0] * len(sizes)
    y = padded(at.fit(x), [0] * len(sizes), overhangs)
    for i in range(len(sizes)):
        inside = x.new_ones(sizes[i])
        counted = padded(inside, at.begins[i : i + 1], at.ends[i : i + 1], float(count_include_pad))
        counts = _elements(padded(counted, [0], overhangs[i : i + 1]), 0, at, i).sum(-1)
        y = _elements(y, i + 2, at, i).sum(-1) / counts.reshape(-1, *[1] * (len(sizes) - 1 - i))
    return y


def _elements(x: Tensor, axis: int, at: Windows, i: int) -> Tensor:
    """Return ``x`` with its ``axis`` cut into windows, their elements along a new last axis; it is a view."""
    return x.unfold(axis, at.extents[i], at.strides[i])[..., :: at.dilations[i]]


@operator("LpPool", 1, 2, 11, 18, 22, check=_check)
def lp_pool(
    x: Tensor,
    *,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sequence[int] = (),
    kernel_shape: Sequence[int],
    p: float = 2,
    pads: Sequence[int] = (),
    strides: Sequence[int] = (),
) -> Tensor:
    """Return the ``p``-norm of each window of ``x`` [N, C, ...]."""
    sizes = x.shape[2:]
    at = windows(sizes, kernel_shape, strides, dilations, pads, auto_pad)
    y = padded(at.fit(x), [0] * len(sizes), at.overhangs(sizes) if ceil_mode else [0] * len(sizes))
    for i in range(len(sizes)):  # the norm of norms is the norm of all
        y = torch.linalg.vector_norm(_elements(y, i + 2, at, i), p, dim=-1)
    return y


@operator("GlobalAveragePool", 1, 22)
def global_average_pool(x: Tensor) -> Tensor:
    """Return the means of ``x`` [N, C, ...] as [N, C, 1, ...]."""
    return x.mean(dim=_spatial(x), keepdim=True) if _spatial(x) else x


@operator("GlobalMaxPool", 1, 22)
def global_max_pool(x: Tensor) -> Tensor:
    """Return the maxima of ``x`` [N, C, ...] as [N, C, 1, ...]."""
    return x.amax(dim=_spatial(x), keepdim=True) if _spatial(x) else x


@operator("GlobalLpPool", 1, 2, 22)
def global_lp_pool(x: Tensor, *, p: float = 2) -> Tensor:
    """Return the ``p``-norms of ``x`` [N, C, ...] as [N, C, 1, ...]."""
    return torch.linalg.vector_norm(x, p, dim=_spatial(x), keepdim=True) if _spatial(x) else x.abs()


def _spatial(x: Tensor) -> tuple[int, ...]:
    return tuple(range(2, x.dim()))


@operator("MaxUnpool", 9, 11, 22, numbers=(2,))
def max_unpool(
    x: Tensor,
    places: Tensor,
    output_shape: Sequence[int] | None = None,
    *,
    kernel_shape: Sequence[int],
    pads: Sequence[int] = (),
    strides: Sequence[int] = (),
    node: str = "",
) -> Tensor:
    """Return zeros of the shape that was pooled to ``x`` [N, C, ...], with ``x`` at ``places``.

    Raises:
        UnsupportedOpError: ``output_shape`` is another than what the windows cover. ONNX's reference takes the
            places to be in what they cover, onnxruntime in ``output_shape``.
    """
    at = windows(x.shape[2:], kernel_shape, strides, (), pads, "NOTSET")
    numbers = zip(x.shape[2:], at.kernel, at.strides, at.begins, at.ends, strict=True)
    shape = [*x.shape[:2], *((n - 1) * s + k - b - e for n, k, s, b, e in numbers)]
    if output_shape and list(output_shape) != shape:
        why = f"its output_shape is {list(output_shape)}, and its windows cover {shape}"
        raise UnsupportedOpError("MaxUnpool", node, why)
    flat = x.new_zeros(math.prod(shape))
    return flat.scatter(0, places.reshape(-1), x.reshape(-1)).reshape(shape)
