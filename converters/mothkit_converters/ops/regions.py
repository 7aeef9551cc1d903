"""Pools over regions of interest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import roi_align, roi_pool

from mothkit_converters.ops.call import operator


def _maximum(attributes: Mapping[str, Any]) -> str:
    known = "onnxruntime's is known to be wrong"
    return f"its mode is max, and {known}" if attributes.get("mode", "avg") != "avg" else ""


@operator("RoiAlign", 10, check=_maximum, coordinate_transformation_mode="output_half_pixel")
@operator("RoiAlign", 16, 22, check=_maximum)
def align_regions(
    x: Tensor,
    regions: Tensor,
    images: Tensor,
    *,
    coordinate_transformation_mode: str = "half_pixel",
    mode: str = "avg",  # noqa: ARG001 - checked
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
) -> Tensor:
    """Return means over the cells of ``regions`` [R, 4], each of the image of ``x`` [N, C, H, W] in ``images`` [R]."""
    numbered = torch.cat([images.to(regions.dtype).unsqueeze(1), regions], dim=1)
    aligned = coordinate_transformation_mode == "half_pixel"
    size = (output_height, output_width)
    y: Tensor = roi_align(x, numbered, size, spatial_scale, sampling_ratio, aligned)
    return y


@operator("MaxRoiPool", 1, 22)
def pool_regions(
    x: Tensor, regions: Tensor, *, pooled_shape: Sequence[int], spatial_scale: float = 1.0
) -> Tensor:
    """Return maxima over the cells of ``regions`` [R, 5], of which the first number is the image in ``x``."""
    y: Tensor = roi_pool(x, regions, list(pooled_shape), spatial_scale)
    return y
