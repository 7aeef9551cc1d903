"""Pairwise hardening: MOTH without a choice of pairs; every round inverts the triggers of all of them.

Source: Tao et al., IEEE S&P 2022, which compares MOTH with it: a little more class distance for ten times the time. All
triggers of a round are in memory together, 16 KiB each at 32 x 32 pixels in colour.
"""

from dataclasses import dataclass
from itertools import combinations

from mothkit.hardening.bank import Direction, both_ways
from mothkit.hardening.rounds import InRounds
from mothkit.hardening.run import Run


@dataclass(frozen=True, slots=True)
class Pairwise(InRounds):
    """Takes all pairs of classes in every round.

    Of the config, ``pairs_per_round``, what says how pairs are chosen and what is of patches and tints are not used.
    """

    def choose(self, run: Run) -> list[Direction]:
        """Return the two directions of every pair of classes."""
        return both_ways(run.table.choose_all())

    def usual(self, classes: int) -> list[Direction]:
        """Return the two directions of every pair of ``classes``."""
        return both_ways(list(combinations(range(classes), 2)))
