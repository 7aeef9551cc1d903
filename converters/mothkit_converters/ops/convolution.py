"""Convolutions and their transposes, with the weight as an argument in ONNX's own layout."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its customary name
from torch import Tensor
from torchvision.ops import deform_conv2d

from mothkit_converters.errors import UnsupportedOpError
from mothkit_converters.ops.call import operator
from mothkit_converters.ops.windows import halves, padded, too_many_axes, windows

_CONVOLVE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


@operator("Conv", 1, 11, 22, check=too_many_axes)
def convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] = (),
    group: int = 1,
    kernel_shape: Sequence[int] = (),  # noqa: ARG001 - the weight has it
    pads: Sequence[int] = (),
    strides: Sequence[int] = (),
) -> Tensor:
    """Return ``x`` [N, C, ...] convolved with ``weight`` [M, C / group, ...], plus ``bias`` [M]."""
    at = windows(x.shape[2:], weight.shape[2:], strides, dilations, pads, auto_pad)
    padding = at.begins
    if not at.symmetric:
        x, padding = at.fit(x), [0] * len(padding)
    return _CONVOLVE[x.dim() - 2](x, weight, bias, at.strides, padding, at.dilations, group)


@operator("ConvTranspose", 1, 11, 22, check=too_many_axes)
def transposed_convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] = (),
    group: int = 1,
    kernel_shape: Sequence[int] = (),  # noqa: ARG001 - the weight has it
    output_padding: Sequence[int] = (),
    output_shape: Sequence[int] = (),
    pads: Sequence[int] = (),
    strides: Sequence[int] = (),
    node: str = "",
) -> Tensor:
    """Return what convolves to ``x`` [N, C, ...]: its gradient, by ``weight`` [C, M / group, ...], plus ``bias``.

    ``pads`` crop the result, ``output_padding`` adds to its end. Where ``output_shape`` is given it decides
    instead, as onnxruntime reads it: an odd element is cropped off the end for SAME_UPPER, else off the
    beginning, and what is missing is added to the end.

    Raises:
        UnsupportedOpError: ``auto_pad`` asks for more than the windows reach, which onnxruntime then leaves out.
    """
    sizes, rank = x.shape[2:], x.dim() - 2
    at = windows(sizes, weight.shape[2:], strides, dilations, pads, "VALID" if output_shape else auto_pad)
    extra = list(output_padding) or [0] * rank
    begins, ends = at.begins, at.ends
    if output_shape or auto_pad.startswith("SAME"):
        wanted = output_shape[-rank:] or [n * s for n, s in zip(sizes, at.strides, strict=True)]
        numbers = zip(sizes, at.strides, at.extents, extra, wanted, strict=True)
        totals = [(n - 1) * s + extent + more - out for n, s, extent, more, out in numbers]
        if min(totals) < 0 and not output_shape:
            why = f"its windows of {at.extents} do not reach from one of its strides {at.strides} to the next"
            raise UnsupportedOpError("ConvTranspose", node, why)
        begins, ends = halves([max(total, 0) for total in totals], upper=auto_pad == "SAME_UPPER")
        extra = [more - min(total, 0) for more, total in zip(extra, totals, strict=True)]
    transpose = _TRANSPOSE[rank]
    limits = [max(s, d) for s, d in zip(at.strides, at.dilations, strict=True)]
    if begins == ends and all(more < limit for more, limit in zip(extra, limits, strict=True)):
        return transpose(x, weight, bias, at.strides, begins, extra, group, at.dilations)
    whole = transpose(x, weight, None, at.strides, 0, 0, group, at.dilations)
    crops = [end - more for end, more in zip(ends, extra, strict=True)]
    y = padded(whole, [-begin for begin in begins], [-crop for crop in crops])
    return y if bias is None else y + bias.reshape(-1, *[1] * rank)


def _flat(attributes: Mapping[str, Any]) -> str:
    return "" if len(attributes.get("kernel_shape", (1, 1))) == 2 else "it is not of two spatial axes"


@operator("DeformConv", 19, 22, check=_flat)
def deformable_convolution(
    x: Tensor,
    weight: Tensor,
    offset: Tensor,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    dilations: Sequence[int] = (),
    group: int = 1,  # noqa: ARG001 - the shapes tell
    kernel_shape: Sequence[int] = (),  # noqa: ARG001 - the weight has it
    offset_group: int = 1,  # noqa: ARG001 - the shapes tell
    pads: Sequence[int] = (),
    strides: Sequence[int] = (),
) -> Tensor:
    """Return ``x`` [N, C, H, W] convolved where ``offset`` moves each element of the kernel, weighed by ``mask``."""
    at = windows(x.shape[2:], weight.shape[2:], strides, dilations, pads, "NOTSET")
    padding = at.begins
    if not at.symmetric:
        x, padding = at.fit(x), [0, 0]
    y: Tensor = deform_conv2d(x, offset, weight, bias, at.strides, padding, at.dilations, mask)
    return y


@operator("Col2Im", 18, numbers=(1, 2))
def columns_to_image(
    x: Tensor,
    image_shape: Sequence[int],
    block_shape: Sequence[int],
    *,
    dilations: Sequence[int] = (),
    pads: Sequence[int] = (),
    strides: Sequence[int] = (),
) -> Tensor:
    """Return the image [N, C, ...] whose blocks are the columns of ``x`` [N, C x block, L], overlaps summed."""
    at = windows(image_shape, block_shape, strides, dilations, pads, "NOTSET")
    whole = [n + b + e for n, b, e in zip(image_shape, at.begins, at.ends, strict=True)]
    counts = [(n - k) // s + 1 for n, k, s in zip(whole, at.extents, at.strides, strict=True)]
    blocks = torch.unflatten(
        torch.unflatten(x, 2, counts), 1, [-1, math.prod(block_shape)]
    )  # [N, C, block, counts...]
    image = x.new_zeros(*blocks.shape[:2], *whole)
    for i, place in enumerate(product(*map(range, block_shape))):
        numbers = zip(place, counts, at.strides, at.dilations, strict=True)
        part = tuple(slice(p * d, p * d + (c - 1) * s + 1, s) for p, c, s, d in numbers)
        image[:, :, *part] += blocks[:, :, i]
    return padded(image, [-begin for begin in at.begins], [-end for end in at.ends])
