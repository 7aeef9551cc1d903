"""Standard fine-tuning: all weights, clean images, true labels.

Source: the common setting of BackdoorBench (2025), which is its ``ft``. Departs from it: no test image is read; the
weights that come back are chosen on held-back clean images, where it reports those of the last epoch.
"""

from dataclasses import dataclass
from typing import Any

from mothkit.hardening.tuning import Tuning, TuningConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneConfig(TuningConfig):
    """The common setting."""


def finetune(run: Tuning[FinetuneConfig]) -> dict[str, Any]:
    """Tune the copy on clean images."""
    (total,) = run.steps(run.config.epochs)
    trainer = run.trainer(total)
    for batch in run.batches("fine-tune", total):
        trainer.step(batch)
    return {}
