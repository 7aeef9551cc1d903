"""The triggers that a MOTH run has found so far: where each direction's next inversion starts."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mothkit.inversion.found import Inverted

Direction = tuple[int, int]
"""Source class, target class."""


@dataclass(slots=True, eq=False)
class TriggerBank:
    """Universal triggers from the warm-up, and the newest of each direction that had its turn.

    Attributes:
        universal: [C, 1 + channels, H, W], mask then pattern, one a target class.
        own: by direction, [1 + channels, H, W].
    """

    universal: Tensor
    own: dict[Direction, Tensor] = field(default_factory=dict)

    def start(self, directions: Sequence[Direction]) -> tuple[Tensor, Tensor]:
        """Return masks [K, 1, H, W] and patterns [K, channels, H, W] to start from."""
        values = torch.stack([self.own.get(d, self.universal[d[1]]) for d in directions])
        return values[:, :1], values[:, 1:]

    def keep(self, directions: Sequence[Direction], found: Inverted) -> None:
        """Take in what was found; a direction without a trigger keeps the one that it had."""
        for k, direction in enumerate(directions):
            if bool(found.found[k]):
                self.own[direction] = torch.cat([found.masks[k], found.patterns[k]])

    def state(self) -> dict[str, Any]:
        """Return the bank as tensors and plain values."""
        return {"universal": self.universal, "own": dict(self.own)}
