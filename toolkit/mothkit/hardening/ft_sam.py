"""Fine-tuning with adaptive sharpness-aware minimisation: to weights whose whole surroundings do well.

Source: Zhu et al., "Enhancing Fine-tuning based Backdoor Defense with Sharpness-Aware Minimization", ICCV 2023;
numbers as in BackdoorBench's ``ft-sam``. Departs from it: weights that come back are chosen on held-back clean images.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mothkit.hardening.training import Batch
from mothkit.hardening.tuning import Tuning, TuningConfig, check_range
from mothkit_converters.ops.normalization import BatchNorm

_EPSILON = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class FtSamConfig(TuningConfig):
    """Surroundings and labels.

    Attributes:
        rho: radius of the surroundings, relative to each weight's size (BackdoorBench: 2 for CIFAR-10).
        label_smoothing: share of the label that goes to all classes alike (BackdoorBench: 0.1).
    """

    rho: float = 2.0
    label_smoothing: float = 0.1

    def __post_init__(self) -> None:
        TuningConfig.__post_init__(self)
        check_range(self, "above 0", lambda x: x > 0, "rho")
        check_range(self, "in [0, 1)", lambda x: 0 <= x < 1, "label_smoothing")


def sharpest_step(weights: list[Tensor], gradients: list[Tensor], rho: float) -> list[Tensor]:
    """Return the step within the surroundings of ``weights`` that raises the loss most, to first order.

    Its norm, each entry over its weight's size, is ``rho`` (Kwon et al., "ASAM", ICML 2021).
    """
    scaled = [weight.abs() * gradient for weight, gradient in zip(weights, gradients, strict=True)]
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(each) for each in scaled]))
    return [
        rho / (norm + _EPSILON) * weight.abs() * each for weight, each in zip(weights, scaled, strict=True)
    ]


def tune_flat(run: Tuning[FtSamConfig]) -> dict[str, Any]:
    """Tune the copy by gradients taken where the loss around it is worst."""
    config = run.config
    (total,) = run.steps(config.epochs)

    def loss(logits: Tensor, batch: Batch) -> Tensor:
        return cross_entropy(logits, batch.y, label_smoothing=config.label_smoothing)

    trainer = run.trainer(total, loss=loss)
    weights = [each for each in run.classifier.parameters() if each.requires_grad]
    for batch in run.batches("fine-tune", total):
        trainer.gradient(batch)
        used = [each for each in weights if each.grad is not None]
        before = [each.detach().clone() for each in used]
        with torch.no_grad():
            step = sharpest_step(before, [_gradient(each) for each in used], config.rho)
            for each, move in zip(used, step, strict=True):
                each.add_(move)
        with statistics_kept(run.classifier):
            trainer.gradient(batch)
        with torch.no_grad():
            for each, value in zip(used, before, strict=True):
                each.copy_(value)
        trainer.update()
    return {}


@contextmanager
def statistics_kept(network: nn.Module) -> Iterator[None]:
    """Keep running statistics as they are while ``network`` follows the batch."""
    norms = [module for module in network.modules() if isinstance(module, BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def _gradient(weight: Tensor) -> Tensor:
    return torch.zeros_like(weight) if weight.grad is None else weight.grad
