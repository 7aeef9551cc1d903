"""What an inversion found."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from mothkit.triggers.patch import Trigger


@dataclass(frozen=True, slots=True, eq=False)
class Inverted:
    """What an inversion found for K tasks; tensors are on the CPU.

    Attributes:
        masks: [K, 1, H, W], 0..1.
        patterns: [K, C, H, W], 0..1.
        mask_l1: [K], in pixels; where nothing was found, the size of the last trigger tried.
        found: bool [K], whether the trigger holds the asked rate on its own images.
        success_rate: [K], re-tested on all of a task's images after the trigger's last change.
        loss_start, loss_end: K tensors [n], cross-entropy to the target of each image under the start
            trigger and under the reported one.
        cost: [K], weight of the size at the end; a warm start goes on from it.
    """

    masks: Tensor
    patterns: Tensor
    mask_l1: Tensor
    found: Tensor
    success_rate: Tensor
    loss_start: tuple[Tensor, ...]
    loss_end: tuple[Tensor, ...]
    cost: Tensor

    @property
    def size(self) -> Tensor:
        """[K], in pixels; nan where nothing was found."""
        return torch.where(self.found, self.mask_l1, torch.nan)

    def trigger(self, k: int) -> Trigger:
        """Return the trigger of task ``k``."""
        return Trigger(self.masks[k], self.patterns[k])

    def only(self, k: int) -> "Inverted":
        """Return what was found for task ``k`` alone."""
        part = slice(k, k + 1)
        return Inverted(**{each.name: getattr(self, each.name)[part] for each in fields(self)})


def join(parts: Sequence[Inverted]) -> Inverted:
    """Return the findings of ``parts``, in order, as those of one inversion."""
    return Inverted(
        masks=torch.cat([part.masks for part in parts]),
        patterns=torch.cat([part.patterns for part in parts]),
        mask_l1=torch.cat([part.mask_l1 for part in parts]),
        found=torch.cat([part.found for part in parts]),
        success_rate=torch.cat([part.success_rate for part in parts]),
        loss_start=tuple(loss for part in parts for loss in part.loss_start),
        loss_end=tuple(loss for part in parts for loss in part.loss_end),
        cost=torch.cat([part.cost for part in parts]),
    )
