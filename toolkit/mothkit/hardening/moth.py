"""MOTH, Model Orthogonalization: harden pairs of classes against the smallest triggers between them.

Source: Tao et al., "Model Orthogonalization: Class Distance Hardening in Neural Networks for Better Security",
IEEE S&P 2022. docs/moth.md lists every departure from the paper and from its two published codes.
"""

from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar

from mothkit.hardening.bank import Direction, both_ways
from mothkit.hardening.rounds import InRounds
from mothkit.hardening.run import Run


@dataclass(frozen=True, slots=True)
class Moth(InRounds):
    """Takes in each round the pairs that its rule promises most of, and the weakest known."""

    seeks_taught: ClassVar[bool] = True

    def choose(self, run: Run) -> list[Direction]:
        """Return both directions of the weakest and the most promising pairs; see ``pairs.py`` for the rules."""
        config, table = self.config, run.table
        weakest = table.choose_weakest(min(config.weakest_per_round, config.pairs_per_round))
        count = config.pairs_per_round - len(weakest)
        if config.choice == "ucb":
            return both_ways(weakest + table.choose_by_bound(count, width=config.ucb_width, without=weakest))
        pairs = table.choose(
            count,
            exploration=config.exploration,
            alpha=min(run.trainer.done / config.ease_fades_over, 1.0),
            generator=run.generator,
            without=weakest,
        )
        return both_ways(weakest + pairs)

    def usual(self, classes: int) -> list[Direction]:
        """Return both directions of as many pairs as a round takes."""
        return both_ways(list(combinations(range(classes), 2))[: self.config.pairs_per_round])
