"""MOTH, Model Orthogonalization: harden pairs of classes against the smallest triggers between them.

Source: Tao et al., "Model Orthogonalization: Class Distance Hardening in Neural Networks for Better Security",
IEEE S&P 2022. docs/moth.md lists every departure from the paper and from its two published codes.
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
class Moth:
    """Hardens by MOTH: each round takes the pairs that its rule promises most of; fits ``Defence``."""

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
            self._choose,
            both_ways(list(combinations(range(classifier.classes), 2))[: self.config.pairs_per_round]),
            self.config,
            classifier,
            images,
            generator=generator,
            device=device,
            emit=emit,
            budget=budget,
            checkpoint=checkpoint,
        )

    def _choose(self, run: Run) -> list[Direction]:
        config = self.config
        if config.choice == "ucb":
            pairs = run.table.choose_by_bound(config.pairs_per_round, width=config.ucb_width)
        else:
            pairs = run.table.choose(
                config.pairs_per_round,
                exploration=config.exploration,
                alpha=min(run.trainer.done / config.ease_fades_over, 1.0),
                generator=run.generator,
            )
        return both_ways(pairs)
