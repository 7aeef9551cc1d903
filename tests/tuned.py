"""Methods on the backdoored network, with budgets of a second."""

from dataclasses import replace
from typing import Any

import torch

from mothkit.classifier import Classifier
from mothkit.events import EventSink, silent
from mothkit.hardening.base import Budget, Hardened
from mothkit.hardening.methods import METHODS
from mothkit.inversion.config import QUICK
from mothkit.pgd import PgdConfig
from tests.tiny import tiny_images

CLEAN = tiny_images(40, seed=5)
ANY_DROP = Budget(max_accuracy_drop=100)
SMALL: dict[str, Any] = {"batch_size": 32, "epochs": 4, "views": 1, "candidates": 2}
"""Settings for every method that tunes."""
OWN: dict[str, dict[str, Any]] = {
    "nc": {"inversion": replace(QUICK, steps=40), "inversion_images": 64, "outlier": 1.0},
    "anp": {"iterations": 8, "threshold_step": 0.3, "noise": 0.1, "learning_rate": 0.01},
    "ibau": {"learning_rate": 1e-3, "epochs": 2},
    "pgd": {"attack": PgdConfig(steps=2)},
    "sau": {"attack_steps": 2},
    "ft-sam": {"rho": 0.5},
    "nad": {"teacher_epochs": 2, "learning_rate": 0.01},
}


def harden(
    name: str,
    classifier: Classifier,
    *,
    seed: int = 0,
    budget: Budget = ANY_DROP,
    emit: EventSink = silent,
    **settings: Any,
) -> Hardened:
    """Return what the method ``name`` makes of ``classifier`` with 40 clean images a class."""
    entry = METHODS[name]
    return entry.make(replace(entry.config, **(SMALL | OWN.get(name, {}) | settings))).harden(
        classifier,
        CLEAN,
        generator=torch.Generator().manual_seed(seed),
        device=torch.device("cpu"),
        emit=emit,
        budget=budget,
    )


def weights(classifier: Classifier | None) -> dict[str, bytes]:
    """Return the bytes of every tensor of ``classifier``."""
    assert classifier is not None
    return {name: tensor.contiguous().numpy().tobytes() for name, tensor in classifier.state_dict().items()}
