"""What a trigger may look like, and where on an image it lies: squares of one colour, shifts from image to image.

Values are those of mask and pattern together, [K, 1 + C, H, W], 0..1.
"""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d


def in_cells(values: Tensor, cell: int) -> Tensor:
    """Return ``values`` [K, 1 + C, H, W] with the mean of each square of ``cell`` pixels in all of its pixels.

    Squares at the right and the lower edge are cut. What is constant on every square stays as it is.
    """
    if cell == 1:
        return values
    height, width = values.shape[-2:]
    means = avg_pool2d(values, cell, ceil_mode=True, count_include_pad=False)
    return means.repeat_interleave(cell, -2).repeat_interleave(cell, -1)[..., :height, :width]


def draw_shifts(shape: tuple[int, ...], roam: int, generator: torch.Generator) -> Tensor:
    """Return [*shape, 2]: how far down and to the right, uniform in -``roam`` to ``roam`` pixels."""
    return torch.randint(-roam, roam + 1, (*shape, 2), generator=generator)


def shifted(values: Tensor, shifts: Tensor) -> Tensor:
    """Return [K, B, 1 + C, H, W]: ``values`` [K, 1 + C, H, W] moved by each of ``shifts`` [K, B, 2].

    What leaves on one side comes in on the other.
    """
    count, channels, height, width = values.shape
    down, right = shifts.to(values.device).unbind(-1)
    rows = (torch.arange(height, device=values.device) - down[..., None]) % height
    columns = (torch.arange(width, device=values.device) - right[..., None]) % width
    places = (rows[..., :, None] * width + columns[..., None, :]).flatten(2)  # [K, B, H * W]
    copies = places.shape[1]
    source = values.flatten(2)[:, None].expand(count, copies, channels, height * width)
    moved = source.gather(3, places[:, :, None].expand_as(source))
    return moved.view(count, copies, channels, height, width)
