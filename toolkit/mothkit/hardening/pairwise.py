"""Pairwise hardening: MOTH without a choice of pairs; every round inverts the triggers of all of them.

Source: Tao et al., IEEE S&P 2022, which compares MOTH with it: a little more class distance for ten times the time. All
triggers of a round are in memory together, 16 KiB each at 32 x 32 pixels in colour.
"""

from dataclasses import dataclass
from itertools import combinations

import torch

from mothkit.classifier import Classifier
from mothkit.events import EventSink
from mothkit.hardening.bank import Direction, both_ways
from mothkit.hardening.base import Budget, Hardened
from mothkit.hardening.checkpoint import Checkpoint
from mothkit.hardening.profiles import DEFAULT, MothConfig
from mothkit.hardening.run import Run, harden_in_rounds
from mothkit.images import ImageSet


@dataclass(frozen=True, slots=True)
class Pairwise:
    """Hardens all pairs of classes in every round; fits ``Defence``.

    Of the config, ``pairs_per_round`` and what says how pairs are chosen are not used.
    """

    config: MothConfig = DEFAULT

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
        """Return a hardened copy of ``classifier``, which is left as it was; see ``Defence``.

        Raises:
            ImageError: a class has fewer than two images.
            ResumeError: the checkpoint cannot be read or written.
        """
        return harden_in_rounds(
            all_directions,
            both_ways(list(combinations(range(classifier.classes), 2))),
            self.config,
            classifier,
            images,
            generator=generator,
            device=device,
            emit=emit,
            budget=budget,
            checkpoint=checkpoint,
        )


def all_directions(run: Run) -> list[Direction]:
    """Return the two directions of every pair of classes."""
    return both_ways(run.table.choose_all())
