"""What every hardening method takes and gives."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from mothkit.classifier import Classifier
from mothkit.errors import ConfigError, ImageError
from mothkit.events import EventSink
from mothkit.hardening.checkpoint import Checkpoint
from mothkit.hardening.selection import Candidate
from mothkit.images import ImageSet


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How long a method may work.

    Attributes:
        steps: training steps in all; None for the method's own number.
        seconds: wall-clock time for all of a method's work; None for no bound.
        max_accuracy_drop: points of accuracy, 0 to 100, that a result may cost by its own estimate.
        now: the clock to go by, in seconds.
    """

    steps: int | None = None
    seconds: float | None = None
    max_accuracy_drop: float = 1.0
    now: Callable[[], float] = field(default=time.monotonic, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.steps is not None and self.steps < 1:
            raise ConfigError(f"steps is {self.steps}, not at least 1")
        if self.seconds is not None and not self.seconds > 0:
            raise ConfigError(f"the time budget is {self.seconds} s, not above 0")
        if not 0 <= self.max_accuracy_drop <= 100:
            raise ConfigError(f"max_accuracy_drop is {self.max_accuracy_drop} points, not in 0 to 100")

    def is_spent(self, started: float) -> bool:
        """Return whether the time since ``started`` (by ``now``) is used up."""
        return self.seconds is not None and self.now() - started >= self.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardened:
    """What a method returns.

    Attributes:
        classifier: a hardened copy in eval mode, or None if no weights kept the accuracy asked for.
        chosen: the weights that were taken, with their estimate; None if there are none.
        candidates: all weights that were judged, oldest first.
        steps: training steps done; ``cut`` says whether time ended them early.
        seen: digests of the image sets that any choice has seen.
        details: the method's own findings for the record; plain JSON types.
    """

    classifier: Classifier | None
    chosen: Candidate | None
    candidates: tuple[Candidate, ...]
    steps: int
    cut: bool
    seen: tuple[str, ...]
    details: dict[str, Any] = field(default_factory=dict)


def check_images(images: ImageSet, classes: int) -> None:
    """Check that every class has images to train on and to judge accuracy on.

    Raises:
        ImageError: a class has fewer than two.
    """
    few = [c for c in range(classes) if int((images.labels == c).sum()) < 2]
    if few:
        raise ImageError(
            f"{images.origin}: classes {few} have fewer than 2 images; hardening needs some of every class, "
            "at least one to train on and one to judge accuracy"
        )


class Defence(Protocol):
    """A hardening method: a frozen config and one function, which works on a copy."""

    def harden(
        self,
        classifier: Classifier,
        images: ImageSet,
        *,
        generator: torch.Generator,
        device: torch.device,
        emit: EventSink,
        budget: Budget,
        checkpoint: Checkpoint | None = None,
    ) -> Hardened:
        """Return a hardened copy of ``classifier``; ``images`` are clean, labelled as the model's classes."""
        ...
