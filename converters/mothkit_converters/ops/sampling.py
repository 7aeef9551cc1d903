"""Images read at points that the graph computes: GridSample and AffineGrid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch.nn.functional as F  # noqa: N812 - its customary name
from torch import Tensor

from mothkit_converters.ops.call import operator

_MODES: Mapping[str, str] = MappingProxyType(
    {
        "linear": "bilinear",
        "bilinear": "bilinear",
        "nearest": "nearest",
        "cubic": "bicubic",
        "bicubic": "bicubic",
    }
)


@operator("GridSample", 16, mode="bilinear")
@operator("GridSample", 20, 22, mode="linear")
def grid_sample(
    x: Tensor, grid: Tensor, *, align_corners: int = 0, mode: str, padding_mode: str = "zeros"
) -> Tensor:
    """Return ``x`` [N, C, (D,) H, W] read at the points of ``grid`` [N, ..., 2 or 3], -1 to 1 from edge to edge."""
    return F.grid_sample(x, grid, _MODES[mode], padding_mode, align_corners=bool(align_corners))


@operator("AffineGrid", 20, numbers=(1,))
def affine_grid(theta: Tensor, size: Sequence[int], *, align_corners: int = 0) -> Tensor:
    """Return the points [N, ..., 2 or 3] to which ``theta`` [N, 2, 3] or [N, 3, 4] moves those of an image."""
    return F.affine_grid(theta, list(size), align_corners=bool(align_corners))
