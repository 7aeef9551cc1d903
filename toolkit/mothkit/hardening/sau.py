"""Shared adversarial unlearning: against examples that fool the model and its original to the same class.

Source: Wei et al., "Shared Adversarial Unlearning", NeurIPS 2023; numbers as in BackdoorBench's ``sau``. Departs from
it: weights that come back are chosen on held-back clean images; the loss on adversarial images, of weight 0 there, is
left out; adversarial images are clipped to 0..1.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, softmax

from mothkit.classifier import Classifier
from mothkit.hardening.training import Batch, Loss, Optimiser, Schedule
from mothkit.hardening.tuning import Tuning, TuningConfig, check_range
from mothkit.inversion.engine import frozen

_TINY, _SMALL = 1e-8, 1e-6  # below which a probability is not looked at in a logarithm
_SURE = 0.999


@dataclass(frozen=True, slots=True, kw_only=True)
class SauConfig(TuningConfig):
    """The attack and the weights of the losses; images are not augmented, as published.

    Attributes:
        eps: largest change of a value (BackdoorBench: 0.2 of 0..1); the attack starts at its upper end.
        attack_steps, step_size: sign steps (BackdoorBench: 5 of 0.2).
        adversarial_weight: of fooling each of both models, in the attack (BackdoorBench: 0.01).
        shared_weight: of fooling them alike, in the attack (BackdoorBench: 1).
        unshare_weight: of the copy's probability of the original's wrong class, in training (BackdoorBench: 1).
    """

    optimiser: Optimiser = "adam"
    learning_rate: float = 1e-4
    schedule: Schedule = "constant"
    weight_decay: float = 0.0
    batch_statistics: bool = False
    flip: bool = False
    shift: float = 0.0
    eps: float = 0.2
    attack_steps: int = 5
    step_size: float = 0.2
    adversarial_weight: float = 0.01
    shared_weight: float = 1.0
    unshare_weight: float = 1.0

    def __post_init__(self) -> None:
        TuningConfig.__post_init__(self)
        check_range(self, "in (0, 1]", lambda x: 0 < x <= 1, "eps", "step_size")
        check_range(self, "at least 1", lambda n: n >= 1, "attack_steps")
        weights = ("adversarial_weight", "shared_weight", "unshare_weight")
        check_range(self, "at least 0", lambda x: x >= 0, *weights)


def divergence(first: Tensor, second: Tensor) -> Tensor:
    """Return the Jensen-Shannon divergence [N] of the predictions with logits ``first`` and ``second`` [N, classes]."""
    p, q = softmax(first, 1).clamp(min=_TINY), softmax(second, 1).clamp(min=_TINY)
    middle = ((p + q) / 2).log()
    return ((p * (p.log() - middle) + q * (q.log() - middle)) / 2).sum(1)


def shared_examples(model: nn.Module, original: nn.Module, x: Tensor, y: Tensor, config: SauConfig) -> Tensor:
    """Return ``x`` [N, C, H, W], 0..1, changed within ``eps`` so that both models say the same wrong class.

    Args:
        model: in eval mode, its weights without gradients.
        original: likewise.
        x: pixels; left alone.
        y: true labels [N].
        config: bound, steps and weights.
    """
    with torch.no_grad():
        said, told = model(x).argmax(1), original(x).argmax(1)
    change = torch.full_like(x, config.eps)
    for _ in range(config.attack_steps):
        change.requires_grad_()
        mine, theirs = model(x + change), original(x + change)
        fooled, misled = mine.argmax(1) != said, theirs.argmax(1) != told
        shared = fooled & misled & (mine.argmax(1) == theirs.argmax(1))
        if bool(shared.all()):
            break
        each = (cross_entropy(logits, y, reduction="none") for logits in (mine, theirs))
        kept = sum((loss * ~done).sum() for loss, done in zip(each, (fooled, misled), strict=True)) / 2
        apart = (divergence(mine, theirs) * ~shared).sum()
        (slope,) = torch.autograd.grad(
            config.shared_weight * apart - config.adversarial_weight * kept, change
        )
        change = (change.detach() - config.step_size * slope.sign()).clamp(-config.eps, config.eps)
    return (x + change.detach()).clamp(0, 1)


def unshare_loss(logits: Tensor, theirs: Tensor, told: Tensor, y: Tensor) -> Tensor:
    """Return how much the copy believes the wrong class that an example makes the original say, by images of the batch.

    Args:
        logits: the copy's on adversarial images [N, classes].
        theirs: the original's on them.
        told: class [N] that the original says of the clean images.
        y: true labels [N].
    """
    wrong = theirs.argmax(1)
    counts = (wrong != y) & (wrong != told)
    belief = softmax(logits, 1).gather(1, wrong[:, None])[:, 0]
    others = (1 - belief).clamp(max=_SURE)
    loss = -(torch.log(_SMALL + others) + torch.log(1 + _SMALL - belief.clamp(min=1 - _SURE))) / 2
    return (loss * counts).sum() / len(y)


def unlearn_shared(run: Tuning[SauConfig]) -> dict[str, Any]:
    """Tune the copy on clean images, and away from what fools it and its original alike."""
    (total,) = run.steps(run.config.epochs)
    trainer = run.trainer(total, loss=_loss(run.original, run.config.unshare_weight))
    for batch in run.batches("unlearn", total):
        with frozen(run.classifier) as model:
            bad = shared_examples(model, run.original, batch.x, batch.y, run.config)
        trainer.step(Batch(torch.cat([batch.x, bad]), batch.unstamped, batch.y))
    return {}


def _loss(original: Classifier, weight: float) -> Loss:
    """Return the loss of a batch whose second half are the adversarial images of its first."""

    def loss(logits: Tensor, batch: Batch) -> Tensor:
        clean, bad = logits.chunk(2)
        with torch.no_grad():
            told, theirs = original(batch.x).chunk(2)
        return cross_entropy(clean, batch.y) + weight * unshare_loss(bad, theirs, told.argmax(1), batch.y)

    return loss
