"""What fits into a time budget: how much of a warm-up, and how many rounds after it."""

import math
from dataclasses import dataclass, replace

from mothkit.hardening.base import Budget

_FEWEST_IMAGES, _FEWEST_STEPS = 32, 0.25  # of a trigger; share of the steps that it would have


@dataclass(frozen=True, slots=True)
class Extent:
    """How much a warm-up inverts.

    Attributes:
        targets: classes that get a universal trigger.
        images: that each trigger is made on.
        steps: passes over these.
    """

    targets: int
    images: int
    steps: int

    @property
    def work(self) -> int:
        """Images that pass through the network, forward and back."""
        return self.targets * self.images * self.steps

    def within(self, work: float) -> "Extent":
        """Return as much of this as ``work`` images allow; a least part of it where they allow less.

        First triggers are made on fewer images, down to 32, then in fewer steps, down to a quarter, then fewer
        classes get one.
        """
        images = _between(min(_FEWEST_IMAGES, self.images), work / (self.targets * self.steps), self.images)
        fewest = math.ceil(_FEWEST_STEPS * self.steps)
        steps = _between(fewest, work / (self.targets * images), self.steps)
        return replace(
            self, targets=_between(1, work / (images * steps), self.targets), images=images, steps=steps
        )


def _between(least: int, wanted: float, most: int) -> int:
    return max(least, math.floor(min(wanted, most)))


@dataclass(slots=True)
class Pace:
    """The time of one run, over all its sittings.

    Attributes:
        budget: its time, and the clock to go by.
        started: when the run began, as if it had been one sitting.
        judging: seconds that it takes to judge weights once.
    """

    budget: Budget
    started: float
    judging: float = 0.0
    _rounds: int = 0
    _in_rounds: float = 0.0

    @property
    def spent(self) -> float:
        """Seconds that the run has worked."""
        return self.budget.now() - self.started

    def is_over(self) -> bool:
        """Return whether the time is used up."""
        return self.budget.is_spent(self.started)

    def left(self, judgements: int) -> float:
        """Return the seconds left for all but so many ``judgements``; infinite without a bound."""
        seconds = math.inf if self.budget.seconds is None else self.budget.seconds
        return max(0.0, seconds - self.spent - judgements * self.judging)

    def took(self, seconds: float) -> None:
        """Take in how long a round took."""
        self._rounds += 1
        self._in_rounds += seconds

    def rounds_left(self, judgements: int, most: int) -> int:
        """Return how many rounds, ``most`` at most, fit beside ``judgements`` at the mean pace of this sitting."""
        return _between(0, self.left(judgements) * self._rounds / max(self._in_rounds, 1e-9), most)
