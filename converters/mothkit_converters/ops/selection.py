"""Unique and NonMaxSuppression: how much comes out depends on the values that go in."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mothkit_converters.ops.call import listed, operator


@operator("Unique", 11, 28)
def unique(
    x: Tensor,
    *,
    axis: int | None = None,
    sorted: int = 1,  # noqa: A002 - ONNX's name
    outputs: int,
) -> Tensor | tuple[Tensor, ...]:
    """Return the distinct parts of ``x`` along ``axis``, or its distinct elements where that is None.

    Then, as far as ``outputs`` goes: where each is first, which of them each part of ``x`` is, and how often
    each is there. They are in ascending order, or as they first come if not ``sorted``.
    """
    x, axis = (x.flatten(), 0) if axis is None else (x, axis)
    parts = x.movedim(axis, 0).flatten(1) if x.dim() > 1 else x
    _, inverse, counts = torch.unique(
        parts, return_inverse=True, return_counts=True, dim=0 if x.dim() > 1 else None
    )
    places = torch.arange(len(inverse), device=x.device)
    first = torch.full_like(counts, len(inverse)).scatter_reduce(0, inverse, places, "amin")
    if not sorted:
        order = first.argsort()
        first, counts, inverse = first[order], counts[order], order.argsort()[inverse]
    found = (x.index_select(axis, first), first, inverse, counts)
    return found[0] if outputs == 1 else found[:outputs]


@operator("NonMaxSuppression", 10, 11, numbers=(2, 3, 4))
def non_max_suppression(
    boxes: Tensor,
    scores: Tensor,
    most: int | Sequence[int] | None = None,
    overlap: float | Sequence[float] | None = None,
    least: float | Sequence[float] | None = None,
    *,
    center_point_box: int = 0,
) -> Tensor:
    """Return [count, 3]: image, class and box of those that no box of a higher score covers.

    Args:
        boxes: [N, B, 4], two opposite corners, or centre and size.
        scores: [N, C, B].
        most: How many boxes to take at most for an image and class.
        overlap: Share of two boxes' common area above which the lower score goes.
        least: What a score has to be above, where given.
        center_point_box: Whether a box is given by centre and size.
    """
    limit, share = (listed(given)[0] if given is not None else 0 for given in (most, overlap))
    floor = float("-inf") if least is None else listed(least)[0]
    chosen = []
    for image, (corners, classes) in enumerate(zip(boxes, scores, strict=True)):
        covering = _common_shares(corners, centred=bool(center_point_box)) > share
        for label, values in enumerate(classes):
            kept = _best(values, covering, limit, floor)
            chosen += [[image, label, box] for box in kept]
    return torch.tensor(chosen, dtype=torch.int64, device=boxes.device).reshape(-1, 3)


def _best(values: Tensor, covering: Tensor, limit: int, floor: float) -> list[int]:
    """Return boxes by falling score, none covered by one before it."""
    alive = values > floor
    kept: list[int] = []
    for box in values.argsort(descending=True, stable=True).tolist():
        if len(kept) >= limit:
            break
        if alive[box]:
            kept.append(box)
            alive = alive & ~covering[box]
    return kept


def _common_shares(boxes: Tensor, *, centred: bool) -> Tensor:
    """Return the area that each two of ``boxes`` [B, 4] have in common over that which they cover, [B, B]."""
    a, b = boxes[:, :2], boxes[:, 2:]
    low, high = (a - b / 2, a + b / 2) if centred else (torch.minimum(a, b), torch.maximum(a, b))
    area = (high - low).prod(-1)
    sides = torch.minimum(high[:, None], high) - torch.maximum(low[:, None], low)
    common = sides.clamp(min=0).prod(-1)
    shares = common / (area[:, None] + area - common)
    return torch.where((common > 0) & (area[:, None] > 0) & (area > 0), shares, 0)
