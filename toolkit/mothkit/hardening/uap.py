"""Universal adversarial training: against one perturbation of all images, which grows as training goes on.

Source: Shafahi et al., "Universal Adversarial Training", AAAI 2020, its variant that takes both steps from one pass.
Departs from it: a trained model is tuned, by the common setting, where the paper trains from scratch.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from mothkit.hardening.training import Batch
from mothkit.hardening.tuning import Tuning, TuningConfig, check_range


@dataclass(frozen=True, slots=True, kw_only=True)
class UapConfig(TuningConfig):
    """The perturbation.

    Attributes:
        eps: largest change of a value, 0 to 1 (paper: 8/255 for CIFAR-10).
        step_size: of one sign step on it (paper: about 1/255).
        loss_bound: images whose loss is above this do not steer it (paper: 9).
    """

    eps: float = 8 / 255
    step_size: float = 1 / 255
    loss_bound: float = 9.0

    def __post_init__(self) -> None:
        TuningConfig.__post_init__(self)
        check_range(self, "in (0, 1]", lambda x: 0 < x <= 1, "eps", "step_size")
        check_range(self, "above 0", lambda x: x > 0, "loss_bound")


def ascend(perturbation: Tensor, gradients: Tensor, losses: Tensor, config: UapConfig) -> Tensor:
    """Return ``perturbation`` [1, C, H, W] after a sign step up, within ``eps``.

    Args:
        perturbation: shared by all images.
        gradients: of the loss by each image [N, C, H, W].
        losses: of each image [N]; those above the bound have no say.
        config: bounds and step.
    """
    slope = gradients[losses < config.loss_bound].sum(0, keepdim=True)
    return (perturbation + config.step_size * slope.sign()).clamp(-config.eps, config.eps)


def tune_universally(run: Tuning[UapConfig]) -> dict[str, Any]:
    """Tune the copy on perturbed images; each pass moves weights down and the perturbation up."""
    (total,) = run.steps(run.config.epochs)
    losses = torch.empty(0)

    def loss(logits: Tensor, batch: Batch) -> Tensor:
        nonlocal losses
        each = cross_entropy(logits, batch.y, reduction="none")
        losses = each.detach()
        return each.mean()

    trainer = run.trainer(total, loss=loss)
    perturbation = torch.zeros(1, *run.images.shape, device=run.device)
    for batch in run.batches("fine-tune", total):
        x = (batch.x + perturbation).clamp(0, 1).requires_grad_()
        trainer.step(Batch(x, batch.unstamped, batch.y))
        if x.grad is not None:
            perturbation = ascend(perturbation, x.grad, losses, run.config)
    return {
        "perturbation_linf": float(perturbation.abs().max()),
        "last_loss": float(losses.mean()) if total else 0.0,
    }
