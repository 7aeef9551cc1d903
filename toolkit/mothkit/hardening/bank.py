"""The triggers that a run has found so far: where each direction's next inversion starts."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mothkit.inversion.found import Inverted

Direction = tuple[int | None, int]
"""Source class, target class; None stands for all classes but the target."""

_ROOM = 2**29  # bytes of triggers of their own: 32,768 of 32 x 32 pixels in colour, 668 of 224 x 224


def both_ways(pairs: Sequence[tuple[int, int]]) -> list[Direction]:
    """Return the two directions of each pair, pair after pair."""
    return [direction for s, t in pairs for direction in ((s, t), (t, s))]


def sources_of(direction: Direction, classes: int) -> tuple[int, ...]:
    """Return the source classes of ``direction`` in a model of so many ``classes``."""
    source, target = direction
    return tuple(s for s in range(classes) if s != target) if source is None else (source,)


@dataclass(slots=True, eq=False)
class TriggerBank:
    """Universal triggers from the warm-up, and the newest of each direction that had its turn.

    Of more than have room those go that were kept longest ago; their directions start from the universal ones again.

    Attributes:
        universal: [C, 1 + channels, H, W], mask then pattern, one a target class.
        own: by direction, [1 + channels, H, W], oldest first.
        costs: by direction, the weight of the mask's size at which its last inversion ended.
        room: bytes that ``own`` may take.
    """

    universal: Tensor
    own: dict[Direction, Tensor] = field(default_factory=dict)
    costs: dict[Direction, float] = field(default_factory=dict)
    room: int = _ROOM

    def start(self, directions: Sequence[Direction]) -> tuple[Tensor, Tensor]:
        """Return masks [K, 1, H, W] and patterns [K, channels, H, W] to start from."""
        values = torch.stack([self.own.get(d, self.universal[d[1]]) for d in directions])
        return values[:, :1], values[:, 1:]

    def start_costs(self, directions: Sequence[Direction], initial: float) -> Tensor:
        """Return the costs [K] to start from: where the last inversion ended, ``initial`` where there was none."""
        return torch.tensor([self.costs.get(direction, initial) for direction in directions])

    def keep(self, directions: Sequence[Direction], found: Inverted) -> None:
        """Take in what was found; a direction without a trigger keeps the one that it had.

        Its cost is taken in all the same: one at which nothing was found fell meanwhile, and would be too high again.
        """
        for k, direction in enumerate(directions):
            self.costs[direction] = float(found.cost[k])
            if bool(found.found[k]):
                self.own.pop(direction, None)
                self.own[direction] = torch.cat([found.masks[k], found.patterns[k]])
        most = max(1, self.room // (self.universal[0].numel() * self.universal.element_size()))
        for direction in list(self.own)[: max(0, len(self.own) - most)]:
            del self.own[direction]
            del self.costs[direction]

    def state(self) -> dict[str, Any]:
        """Return the bank as tensors and plain values."""
        return {"universal": self.universal, "own": dict(self.own), "costs": dict(self.costs)}
