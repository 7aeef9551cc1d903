"""Adversarial training: on images that projected gradient descent made as bad as a bound allows.

Source: Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018. Departs from it: a
trained model is tuned, by the common setting, where the paper trains from scratch.
"""

from dataclasses import dataclass, field
from typing import Any

from mothkit.hardening.training import Batch
from mothkit.hardening.tuning import Tuning, TuningConfig
from mothkit.pgd import PgdConfig, pgd_examples


@dataclass(frozen=True, slots=True, kw_only=True)
class AdversarialConfig(TuningConfig):
    """The attack of each batch.

    Attributes:
        attack: bound and steps (paper: 8/255 and 7 steps of 2/255 for CIFAR-10).
    """

    attack: PgdConfig = field(default_factory=PgdConfig)


def tune_adversarially(run: Tuning[AdversarialConfig]) -> dict[str, Any]:
    """Tune the copy on attacked images with their true labels."""
    (total,) = run.steps(run.config.epochs)
    trainer = run.trainer(total)
    for batch in run.batches("fine-tune", total):
        x = pgd_examples(
            run.classifier, batch.x, batch.y, run.config.attack, generator=run.generator, device=run.device
        )
        trainer.step(Batch(x, batch.unstamped, batch.y))
    return {}
