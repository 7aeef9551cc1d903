"""Which pair of classes to harden next: the paper's rule over a table of what was found so far.

Source: Tao et al., IEEE S&P 2022, section on pair selection; docs/moth.md lists what was mended.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mothkit.inversion.found import Inverted

Pair = tuple[int, int]


@dataclass(slots=True, eq=False)
class PairTable:
    """What is known of every direction; entry [s, t] is source s to target t, the diagonal is unused.

    Attributes:
        ease: [C, C], share by which the universal trigger of t lowered the loss of s to t in warm-up.
        size: [C, C], last mask L1 found, in pixels; nan while none was found.
        growth: [C, C], running mean of the relative growth of ``size``.
        visits: [C, C], how often a pair was chosen.
    """

    ease: Tensor
    size: Tensor
    growth: Tensor
    visits: Tensor

    @classmethod
    def after_warm_up(cls, ease: Tensor, universal_l1: Tensor) -> "PairTable":
        """Return the table for ``ease`` [C, C] and universal sizes [C] (nan: none found)."""
        classes = len(universal_l1)
        size = universal_l1.expand(classes, classes).clone()
        known = universal_l1[~universal_l1.isnan()]
        largest = float(known.max()) if len(known) else 1.0
        growth = (size / max(largest, 1e-12)).nan_to_num(1.0)  # none found: as hard as the hardest
        return cls(ease.clone(), size, growth, torch.zeros(classes, classes))

    def choose(
        self, count: int, *, exploration: float, alpha: float, generator: torch.Generator
    ) -> list[Pair]:
        """Return ``count`` different pairs (s < t).

        Each is random with probability ``exploration``, else the one with the highest
        ``(1 - alpha) * ease + alpha * growth``, both directions added.
        """
        classes = len(self.size)
        score = (1 - alpha) * (self.ease + self.ease.T) + alpha * (self.growth + self.growth.T)
        open_pairs = torch.triu(torch.ones(classes, classes, dtype=torch.bool), diagonal=1)
        chosen: list[Pair] = []
        while len(chosen) < count and bool(open_pairs.any()):
            if float(torch.rand((), generator=generator)) < exploration:
                candidates = open_pairs.nonzero()
                pick = candidates[int(torch.randint(len(candidates), (), generator=generator))]
            else:
                best = int(score.masked_fill(~open_pairs, -torch.inf).argmax())
                pick = torch.tensor([best // classes, best % classes])
            s, t = int(pick[0]), int(pick[1])
            open_pairs[s, t] = False
            self.visits[s, t] += 1
            self.visits[t, s] += 1
            chosen.append((s, t))
        return chosen

    def update(self, source: int, target: int, mask_l1: float) -> None:
        """Take in the size of the newest trigger of one direction; nan where none was found.

        Without a trigger, or without an earlier one to compare with, nothing is known to have grown: the mean
        falls, and other pairs get their turn.
        """
        before = float(self.size[source, target])
        gain = 0.0 if math.isnan(mask_l1) or not before > 0 else (mask_l1 - before) / before
        self.growth[source, target] = (self.growth[source, target] + gain) / 2
        if not math.isnan(mask_l1):
            self.size[source, target] = mask_l1

    def state(self) -> dict[str, Any]:
        """Return the table as plain tensors."""
        return {"ease": self.ease, "size": self.size, "growth": self.growth, "visits": self.visits}


def measure_ease(
    found: Inverted, drawn: Sequence[Sequence[Tensor]], others: Sequence[Sequence[int]]
) -> Tensor:
    """Return [C, C]: mean relative fall of each source's losses from the start trigger to the one found.

    A universal trigger that was not found makes nothing easy: 0 (the published codes give it 1, the best).
    """
    classes = len(others)
    ease = torch.zeros(classes, classes)
    for target, sources in enumerate(others):
        if not bool(found.found[target]):
            continue
        before, after = found.loss_start[target], found.loss_end[target]
        fall = torch.where(before > 0, (before - after) / before.clamp(min=1e-12), torch.zeros_like(before))
        for source, part in zip(sources, torch.split(fall, [len(d) for d in drawn[target]]), strict=True):
            ease[source, target] = part.mean()
    return ease
