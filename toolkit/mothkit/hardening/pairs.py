"""Which pairs of classes to harden next, by a table of what was found so far: the paper's rule, or UCB.

Sources: Tao et al., IEEE S&P 2022, section on pair selection (docs/moth.md lists what was mended); Auer, Cesa-Bianchi,
Fischer, "Finite-time Analysis of the Multiarmed Bandit Problem", Machine Learning 47, 2002: UCB1.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
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
        size: [C, C], last mask L1 found, in pixels; nan while none was found. Until a direction had its turn, that of
            its scouting, or else of the universal trigger.
        growth: [C, C], running mean of the relative growth of ``size``; the newest counts half.
        gain: [C, C], plain mean of the same, each within -1 to 1; that of the warm-up counts as one.
        visits: [C, C], how often a pair was chosen.
    """

    ease: Tensor
    size: Tensor
    growth: Tensor
    gain: Tensor
    visits: Tensor

    @classmethod
    def after_warm_up(cls, ease: Tensor, universal_l1: Tensor) -> "PairTable":
        """Return the table for ``ease`` [C, C] and universal sizes [C] (nan: none found)."""
        classes = len(universal_l1)
        size = universal_l1.expand(classes, classes).clone()
        known = universal_l1[~universal_l1.isnan()]
        largest = float(known.max()) if len(known) else 1.0
        growth = (size / max(largest, 1e-12)).nan_to_num(1.0)  # none found: as hard as the hardest
        return cls(ease.clone(), size, growth, growth.clone(), torch.zeros(classes, classes))

    def choose_weakest(self, count: int) -> list[Pair]:
        """Return the ``count`` pairs (s < t) with the smallest trigger in one of their directions."""
        smallest = torch.minimum(*(size.nan_to_num(torch.inf) for size in (self.size, self.size.T)))
        return self._visited(self._first(smallest, count))

    def choose(
        self,
        count: int,
        *,
        exploration: float,
        alpha: float,
        generator: torch.Generator,
        without: Sequence[Pair] = (),
    ) -> list[Pair]:
        """Return ``count`` different pairs (s < t) by the paper's rule, none of which is in ``without``.

        Each is random with probability ``exploration``, else the one with the highest
        ``(1 - alpha) * ease + alpha * growth``, both directions added.
        """
        score = (1 - alpha) * (self.ease + self.ease.T) + alpha * (self.growth + self.growth.T)
        open_pairs = self._all_pairs(without)
        chosen: list[Pair] = []
        while len(chosen) < count and bool(open_pairs.any()):
            if float(torch.rand((), generator=generator)) < exploration:
                candidates = open_pairs.nonzero()
                s, t = candidates[int(torch.randint(len(candidates), (), generator=generator))].tolist()
            else:
                s, t = divmod(int(score.masked_fill(~open_pairs, -torch.inf).argmax()), len(score))
            open_pairs[s, t] = False
            chosen.append((s, t))
        return self._visited(chosen)

    def choose_by_bound(self, count: int, *, width: float, without: Sequence[Pair] = ()) -> list[Pair]:
        """Return ``count`` pairs (s < t), none in ``without``, of the highest upper confidence bound.

        That of a pair visited ``n - 1`` times is ``gain + width * sqrt(2 ln(N) / n)``, ``gain`` the mean of its two
        directions and ``N`` the sum of ``n`` over all pairs; the warm-up counts as everyone's first visit. Gains lie
        in -1 to 1, so that UCB1 itself has a ``width`` of 2. Among equals the first in row order are taken.
        """
        n = self.visits + 1
        total = n[self._all_pairs()].sum()
        score = (self.gain + self.gain.T) / 2 + width * (2 * total.log() / n).sqrt()
        return self._visited(self._first(-score, count, without))

    def choose_all(self) -> list[Pair]:
        """Return all pairs (s < t), in row order."""
        return self._visited([(s, t) for s, t in self._all_pairs().nonzero().tolist()])

    def _all_pairs(self, without: Sequence[Pair] = ()) -> Tensor:
        pairs = torch.ones(self.size.shape, dtype=torch.bool).triu(diagonal=1)
        for s, t in without:
            pairs[s, t] = False
        return pairs

    def _first(self, values: Tensor, count: int, without: Sequence[Pair] = ()) -> list[Pair]:
        """Return the ``count`` pairs of the lowest ``values`` [C, C]; among equals the first in row order."""
        pairs = self._all_pairs(without).nonzero()
        order = values[pairs[:, 0], pairs[:, 1]].argsort(stable=True)
        return [(s, t) for s, t in pairs[order[:count]].tolist()]

    def _visited(self, pairs: list[Pair]) -> list[Pair]:
        for s, t in pairs:
            self.visits[s, t] += 1
            self.visits[t, s] += 1
        return pairs

    def scouted(self, directions: Sequence[Pair], found: Inverted) -> None:
        """Take in the sizes of the triggers that were ``found`` in the warm-up, one for each of ``directions``."""
        for (s, t), size, is_found in zip(directions, found.mask_l1, found.found, strict=True):
            if bool(is_found):
                self.size[s, t] = size

    def update(self, source: int, target: int, mask_l1: float) -> None:
        """Take in the size of the newest trigger of one direction; nan where none was found.

        Without a trigger, or without an earlier one to compare with, nothing is known to have grown: the mean
        falls, and other pairs get their turn.
        """
        before = float(self.size[source, target])
        gain = 0.0 if math.isnan(mask_l1) or not before > 0 else (mask_l1 - before) / before
        self.growth[source, target] = (self.growth[source, target] + gain) / 2
        seen = float(self.visits[source, target]) + 1  # this one, and the warm-up
        self.gain[source, target] += (max(-1.0, min(gain, 1.0)) - self.gain[source, target]) / seen
        if not math.isnan(mask_l1):
            self.size[source, target] = mask_l1

    def state(self) -> dict[str, Any]:
        """Return the table as plain tensors."""
        return {each.name: getattr(self, each.name) for each in fields(self)}


def measure_ease(
    found: Inverted,
    targets: Sequence[int],
    sources: Sequence[Sequence[int]],
    drawn: Sequence[Sequence[Tensor]],
    classes: int,
) -> Tensor:
    """Return [C, C]: mean relative fall of each source's losses from the start trigger to the one found.

    A universal trigger that was not found, or not sought, makes nothing easy: 0 (the published codes give the first 1,
    the best).

    Args:
        found: K universal triggers.
        targets: of each, the class.
        sources: the classes on whose images it was made.
        drawn: indices of these images, source by source.
        classes: how many there are.
    """
    ease = torch.zeros(classes, classes)
    for k, target in enumerate(targets):
        if not bool(found.found[k]):
            continue
        before, after = found.loss_start[k], found.loss_end[k]
        fall = torch.where(before > 0, (before - after) / before.clamp(min=1e-12), torch.zeros_like(before))
        for source, part in zip(sources[k], torch.split(fall, [len(d) for d in drawn[k]]), strict=True):
            ease[source, target] = part.mean()
    return ease
