"""Adversarial unlearning by implicit hypergradient: against one perturbation that turns many images.

Source: Zeng et al., "Adversarial Unlearning of Backdoors via Implicit Hypergradient", ICLR 2022;
numbers as in BackdoorBench's ``i-bau``. Departs from it: weights that come back are chosen on held-back clean images.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from mothkit.errors import TrainingError
from mothkit.hardening.training import Batch, Optimiser, Schedule
from mothkit.hardening.tuning import Tuning, TuningConfig, check_range
from mothkit.inversion.engine import frozen


@dataclass(frozen=True, slots=True, kw_only=True)
class IbauConfig(TuningConfig):
    """Perturbation and hypergradient; an epoch is a round: one pass for the perturbation, then one for the weights.

    Attributes:
        perturbation_rate: SGD's on the perturbation (BackdoorBench: 10).
        perturbation_decay: weight of its squared L2 norm (BackdoorBench: 0.001).
        perturbed: share of a batch that carries it when weights are updated (BackdoorBench: 0.01).
        fixed_points: steps that sum up the hypergradient (BackdoorBench: 5).
        fixed_point_rate: of the gradient descent in each (BackdoorBench: 0.1).
    """

    optimiser: Optimiser = "adam"
    learning_rate: float = 1e-4
    schedule: Schedule = "constant"
    weight_decay: float = 0.0
    batch_statistics: bool = False
    epochs: float = 5
    perturbation_rate: float = 10.0
    perturbation_decay: float = 0.001
    perturbed: float = 0.01
    fixed_points: int = 5
    fixed_point_rate: float = 0.1

    def __post_init__(self) -> None:
        TuningConfig.__post_init__(self)
        check_range(self, "above 0", lambda x: x > 0, "perturbation_rate", "fixed_point_rate")
        check_range(self, "at least 0", lambda x: x >= 0, "perturbation_decay")
        check_range(self, "in (0, 1]", lambda x: 0 < x <= 1, "perturbed")
        check_range(self, "at least 1", lambda n: n >= 1, "fixed_points")


LossOf = Callable[[Tensor], Tensor]
"""A loss as a function of the perturbation [1, C, H, W]."""


def hypergradient(
    inner: LossOf, outer: LossOf, at: Tensor, weights: Sequence[Tensor], *, steps: int, rate: float
) -> list[Tensor]:
    """Return the gradient of ``outer`` by ``weights`` where ``at`` follows them as the minimum of ``inner``.

    Both losses depend on ``weights`` too. The inverse in the implicit function theorem is a sum of ``steps`` terms,
    each of one gradient step at ``rate`` (Grazzi et al., "On the Iteration Complexity of Hypergradient Computation").
    """
    at = at.detach().requires_grad_()
    by_at, *direct = _gradients(outer(at), [at, *weights])
    (slope,) = torch.autograd.grad(inner(at), at, create_graph=True)
    moved = at - rate * slope
    total = torch.zeros_like(at)
    for _ in range(steps):
        (carried,) = torch.autograd.grad(moved, at, total, retain_graph=True)
        total = carried + by_at
    through = torch.autograd.grad(moved, list(weights), total, allow_unused=True)
    return [own if more is None else own + more for own, more in zip(direct, through, strict=True)]


def _gradients(loss: Tensor, by: Sequence[Tensor]) -> list[Tensor]:
    found = torch.autograd.grad(loss, list(by), allow_unused=True)
    return [torch.zeros_like(x) if each is None else each for x, each in zip(by, found, strict=True)]


def unlearn_implicitly(run: Tuning[IbauConfig]) -> dict[str, Any]:
    """Find a perturbation that changes the copy's mind, and tune the copy against where it would move."""
    config = run.config
    (total,) = run.steps(config.epochs)
    in_a_round = math.ceil(len(run.rest) / config.batch_size)
    trainer = run.trainer(total)
    weights = [each for each in run.classifier.parameters() if each.requires_grad]
    first: Batch | None = None
    norms: list[float] = []
    worst = torch.zeros(1, *run.images.shape, device=run.device)
    for step, batch in enumerate(run.batches("unlearn", total)):
        first = first or batch
        if step % in_a_round == 0:
            worst = _worst(run, in_a_round)
            norms.append(float(torch.linalg.vector_norm(worst)))
        gradients = hypergradient(
            _inner(run, first),
            _outer(run, batch),
            worst,
            weights,
            steps=config.fixed_points,
            rate=config.fixed_point_rate,
        )
        if not all(bool(each.isfinite().all()) for each in gradients):
            raise TrainingError(
                f"training diverged: at step {step + 1} of {total} the hypergradient is not finite; "
                "a lower perturbation_rate may help"
            )
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient
        trainer.update()
    return {"perturbation_l2": norms}


def _worst(run: Tuning[IbauConfig], batches: int) -> Tensor:
    """Return the perturbation [1, C, H, W] that one pass of descent from zero finds."""
    worst = torch.zeros(1, *run.images.shape, device=run.device)
    with frozen(run.classifier) as model:
        for _ in range(batches):
            x = run.sampler.batch(()).x.to(run.device)
            with torch.no_grad():
                said = model(x).argmax(1)
            worst.requires_grad_()
            loss = run.config.perturbation_decay * worst.square().sum() - cross_entropy(
                model(x + worst), said
            )
            (slope,) = torch.autograd.grad(loss, worst)
            worst = worst.detach() - run.config.perturbation_rate * slope
    return worst


def _inner(run: Tuning[IbauConfig], batch: Batch) -> LossOf:
    """Return what a perturbation of all images in ``batch`` is to lower."""

    def loss(worst: Tensor) -> Tensor:
        penalty = run.config.perturbation_decay * worst.square().sum()
        return penalty - cross_entropy(run.classifier(batch.x + worst), batch.y)

    return loss


def _outer(run: Tuning[IbauConfig], batch: Batch) -> LossOf:
    """Return what weights are to lower: the loss on ``batch``, of which a few images are perturbed."""
    count = max(1, round(run.config.perturbed * len(batch.x)))
    carries = torch.zeros(len(batch.x), 1, 1, 1)
    carries[torch.randperm(len(batch.x), generator=run.generator)[:count]] = 1
    carries = carries.to(run.device)

    def loss(worst: Tensor) -> Tensor:
        return cross_entropy(run.classifier(batch.x + carries * worst), batch.y)

    return loss
