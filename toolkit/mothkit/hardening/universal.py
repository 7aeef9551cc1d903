"""Universal hardening: every round inverts one trigger for each target class, on images of all other classes.

Source: Tao et al., IEEE S&P 2022, which compares MOTH with it: less class distance, as one trigger has to serve all
sources.
"""

from dataclasses import dataclass

import torch

from mothkit.classifier import Classifier
from mothkit.events import EventSink
from mothkit.hardening.bank import Direction
from mothkit.hardening.base import Budget, Hardened
from mothkit.hardening.checkpoint import Checkpoint
from mothkit.hardening.profiles import DEFAULT, MothConfig
from mothkit.hardening.run import Run, harden_in_rounds
from mothkit.images import ImageSet


@dataclass(frozen=True, slots=True)
class Universal:
    """Hardens against one universal trigger a target class; fits ``Defence``.

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
            all_targets,
            [(None, target) for target in range(classifier.classes)],
            self.config,
            classifier,
            images,
            generator=generator,
            device=device,
            emit=emit,
            budget=budget,
            checkpoint=checkpoint,
        )


def all_targets(run: Run) -> list[Direction]:
    """Return the direction from all other classes to each class."""
    run.table.choose_all()  # it meets every pair
    return [(None, target) for target in range(run.classes)]
