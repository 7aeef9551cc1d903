"""Universal hardening: every round inverts one trigger for each target class, on images of all other classes.

Source: Tao et al., IEEE S&P 2022, which compares MOTH with it: less class distance, as one trigger has to serve all
sources.
"""

from dataclasses import dataclass

from mothkit.hardening.bank import Direction
from mothkit.hardening.rounds import InRounds
from mothkit.hardening.run import Run


@dataclass(frozen=True, slots=True)
class Universal(InRounds):
    """Takes one universal trigger a target class in every round.

    Of the config, ``pairs_per_round``, what says how pairs are chosen and what is of patches and tints are not used.
    """

    def choose(self, run: Run) -> list[Direction]:
        """Return the direction from all other classes to each class."""
        run.table.choose_all()  # it meets every pair
        return self.usual(run.classes)

    def usual(self, classes: int) -> list[Direction]:
        """Return the direction from all other classes to each of ``classes``."""
        return [(None, target) for target in range(classes)]
