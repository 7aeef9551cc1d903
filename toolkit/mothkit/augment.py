"""Random flips and shifts of clean images: the augmentation that small-image classifiers are trained with."""

from typing import Literal

import torch
from torch import Tensor

from mothkit.errors import ConfigError, ShapeError

Padding = Literal["zeros", "edge"]


def augment(
    x: Tensor,
    generator: torch.Generator,
    *,
    shift: int = 4,
    flip: bool = True,
    padding: Padding = "zeros",
) -> Tensor:
    """Return ``x`` with each image flipped by chance and shifted at random; ``x`` is left alone.

    The defaults are the usual ones for 32 x 32 images (He et al. 2016: pad by 4, crop, flip). Turn ``flip``
    off where left and right carry meaning, as on street signs and digits. Gradients flow back to ``x``.

    Args:
        x: float [N, C, H, W], on any device.
        generator: a CPU generator: the same images come out on every device.
        shift: largest shift in pixels, up and down as well as sideways, uniform in -shift..shift.
        flip: whether an image is mirrored left to right with probability one half.
        padding: what comes in from outside: ``zeros`` (black in pixel space), or the image's ``edge``.

    Returns:
        float [N, C, H, W], of ``x``'s dtype and device.

    Raises:
        ShapeError: ``x`` is not float [N, C, H, W].
        ConfigError: ``shift`` is negative or as large as the image, or ``padding`` is unknown.
    """
    _check(x, shift, padding)
    rows, columns = (t.to(x.device) for t in _draw(tuple(x.shape), generator, shift=shift, flip=flip))
    height, width = x.shape[2:]
    inside = _within(rows, height)[:, :, None] & _within(columns, width)[:, None, :]  # [N, H, W]
    index = rows.clamp(0, height - 1)[:, :, None] * width + columns.clamp(0, width - 1)[:, None, :]
    moved = x.flatten(2).gather(2, index.flatten(1)[:, None].expand(-1, x.shape[1], -1)).view_as(x)
    if padding == "edge":
        return moved
    return torch.where(inside[:, None], moved, torch.zeros((), dtype=x.dtype, device=x.device))


def _draw(
    shape: tuple[int, ...], generator: torch.Generator, *, shift: int, flip: bool
) -> tuple[Tensor, Tensor]:
    """Return the source rows [N, H] and columns [N, W] of every image; some lie outside it."""
    count, _, height, width = shape
    offsets = torch.randint(-shift, shift + 1, (2, count, 1), generator=generator)
    rows = torch.arange(height) + offsets[0]
    columns = torch.arange(width) + offsets[1]
    if flip:
        mirrored = torch.rand((count, 1), generator=generator) < 0.5
        columns = torch.where(mirrored, width - 1 - columns, columns)
    return rows, columns


def _within(index: Tensor, size: int) -> Tensor:
    return (index >= 0) & (index < size)


def _check(x: Tensor, shift: int, padding: str) -> None:
    if x.dim() != 4 or not x.is_floating_point():
        raise ShapeError(f"augment takes float [N, C, H, W], not {x.dtype} {list(x.shape)}")
    if not 0 <= shift < min(x.shape[2:]):
        raise ConfigError(
            f"shift is {shift}, not in 0..{min(x.shape[2:]) - 1} for {list(x.shape[2:])} images"
        )
    if padding not in ("zeros", "edge"):
        raise ConfigError(f"padding is {padding!r}, not 'zeros' or 'edge'")
