"""Projected gradient descent: the perturbation within a bound that a few steps find worst for a classifier.

Source: Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from mothkit.classifier import Classifier
from mothkit.errors import ConfigError
from mothkit.inversion.engine import frozen

_REACH = 1.75  # all steps together, in eps: 7 steps of 2/255 at 8/255


@dataclass(frozen=True, slots=True, kw_only=True)
class PgdConfig:
    """An attack in pixel space, by sign steps from a random start (defaults: the paper's for CIFAR-10).

    Attributes:
        eps: largest change of a value, 0 to 1 (paper: 8/255).
        steps: how many (paper: 7).
        step_size: change of a value in a step (paper: 2/255); None for 1.75 eps / steps, which is the same there.
    """

    eps: float = 8 / 255
    steps: int = 7
    step_size: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.eps <= 1 or self.steps < 1 or (self.step_size is not None and not self.step_size > 0):
            raise ConfigError(
                f"PGD with eps {self.eps:g}, {self.steps} steps, step_size {self.step_size}: eps must lie in (0, 1], "
                "steps be at least 1 and step_size above 0"
            )

    @property
    def stride(self) -> float:
        """Change of a value in a step."""
        return _REACH * self.eps / self.steps if self.step_size is None else self.step_size


def pgd_examples(
    classifier: Classifier,
    x: Tensor,
    y: Tensor,
    config: PgdConfig,
    *,
    generator: torch.Generator,
    device: torch.device,
) -> Tensor:
    """Return ``x`` [N, C, H, W], 0..1, changed by up to ``eps`` so that its loss rises; on its own device.

    The classifier is asked in eval mode and left as it was.

    Args:
        classifier: on ``device``.
        x: pixels; left alone.
        y: true labels [N].
        config: bound and steps.
        generator: on the CPU; the start, uniform within the bound, is drawn from it.
        device: where to compute.
    """
    clean, labels = x.to(device), y.to(device)
    start = (torch.rand(x.shape, generator=generator) * 2 - 1) * config.eps
    worst = (clean + start.to(device)).clamp(0, 1)
    with frozen(classifier) as model:
        for _ in range(config.steps):
            worst.requires_grad_()
            loss = cross_entropy(
                model(worst), labels, reduction="sum"
            )  # so that no image depends on the others
            (gradient,) = torch.autograd.grad(loss, worst)
            moved = worst.detach() + config.stride * gradient.sign()
            worst = torch.clamp(moved, clean - config.eps, clean + config.eps).clamp(0, 1)
    return worst.to(x.device)
