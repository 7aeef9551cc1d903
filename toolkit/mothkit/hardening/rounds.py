"""The loop that MOTH shares with the methods it is compared with: they differ in the directions that a round takes."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from mothkit.classifier import Classifier
from mothkit.events import EventSink, Note, PhaseStarted
from mothkit.hardening.bank import Direction
from mothkit.hardening.base import Budget, Hardened
from mothkit.hardening.checkpoint import Checkpoint
from mothkit.hardening.profiles import DEFAULT, MothConfig
from mothkit.hardening.run import Run
from mothkit.images import ImageSet


@dataclass(frozen=True, slots=True)
class InRounds(ABC):
    """A method that inverts triggers, stamps them and trains, round by round; fits ``Defence``.

    Attributes:
        config: its numbers.
        seeks_taught: whether patches and tints that may have been taught are sought and trained against; the paper's
            methods know none.
    """

    config: MothConfig = DEFAULT
    seeks_taught: ClassVar[bool] = False

    @abstractmethod
    def choose(self, run: Run) -> list[Direction]:
        """Return the directions that the next round of ``run`` takes."""

    @abstractmethod
    def usual(self, classes: int) -> list[Direction]:
        """Return directions that cost as much as those of a usual round."""

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
        config = (
            self.config if self.seeks_taught else replace(self.config, patch_share=0.0, tint_deviations=0.0)
        )
        run = Run.begin(config, classifier, images, generator, device, emit, budget)
        saved = checkpoint.load() if checkpoint else None
        if saved is None:
            run.warm_up(self.usual(classifier.classes))
            if checkpoint:
                checkpoint.save(run.state())  # the warm-up is the longest piece without a round's end
        else:
            run.restore(saved)
            emit(Note(f"resumed at step {run.trainer.done} of {run.trainer.total}"))
        emit(PhaseStarted("harden pairs", run.trainer.total))
        while not run.is_done() and not run.pace.is_over():
            if checkpoint and checkpoint.due():
                checkpoint.save(run.state())
            run.round(self.choose(run))
        if checkpoint:
            checkpoint.save(run.state())  # another --max-accuracy-drop can then choose without training anew
        return run.result()
