"""Neural attention distillation: the model learns where its own fine-tuned copy looks.

Source: Li et al., "Neural Attention Distillation", ICLR 2021, and its authors' code (N). Departs from them: layers are
found in the imported graph, the last map of each spatial resolution (the ends of the residual groups in N); images are
split 85 to 15 for the choice of weights; no cutout. N reads test accuracy to keep its best weights; this does not.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from mothkit.classifier import Classifier
from mothkit.errors import ConfigError
from mothkit.hardening.features import attention_layers, named_layers, watched
from mothkit.hardening.training import Batch, Loss, Schedule, label_loss
from mothkit.hardening.tuning import Tuning, TuningConfig, check_range

_EPSILON = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class NadConfig(TuningConfig):
    """Teacher, layers and weights of the losses; the numbers are N's.

    Attributes:
        teacher_epochs: passes that fine-tune the teacher (N: 5 to 10).
        layers: names of the nodes whose maps are compared; empty for the last of each spatial resolution.
        betas: weight of each map's loss, in the graph's order (N: 500, 1000, 1000 from low to high). Where there are
            more maps the last one counts for the rest, where there are fewer the first are left out.
        power: to which absolute activations are raised before their channels are summed (N: 2).
    """

    batch_size: int = 64
    learning_rate: float = 0.1
    nesterov: bool = True
    schedule: Schedule = "steps"
    weight_decay: float = 1e-4
    epochs: float = 20
    teacher_epochs: float = 10
    layers: tuple[str, ...] = ()
    betas: tuple[float, ...] = (500.0, 1000.0, 1000.0)
    power: float = 2.0

    def __post_init__(self) -> None:
        TuningConfig.__post_init__(self)
        check_range(self, "above 0", lambda x: x > 0, "teacher_epochs", "power")
        check_range(self, "at least one number of 0 or more", lambda b: b and min(b) >= 0, "betas")


def attention(features: Tensor, power: float) -> Tensor:
    """Return the attention [N, H x W] of ``features`` [N, C, H, W]: powers summed over channels, of L2 norm 1."""
    summed: Tensor = features.abs().pow(power).sum(1).flatten(1)
    length: Tensor = torch.linalg.vector_norm(summed, dim=1, keepdim=True)
    return summed / (length + _EPSILON)


def betas_for(betas: Sequence[float], maps: int) -> list[float]:
    """Return the weight of each of ``maps`` losses: the last of ``betas``, of which the last counts for any more."""
    return [*betas, *[betas[-1]] * max(0, maps - len(betas))][-maps:]


def distil_attention(run: Tuning[NadConfig]) -> dict[str, Any]:
    """Fine-tune a teacher, then tune the copy towards true labels and the teacher's attention."""
    config = run.config
    nodes = _nodes(run)
    teacher_total, total = run.steps(config.teacher_epochs, config.epochs)
    teacher = _teacher(run, teacher_total)
    betas = betas_for(config.betas, len(nodes))
    mine, theirs = named_layers(run.classifier, nodes), named_layers(teacher, nodes)
    with watched(mine) as given, watched(theirs) as wanted:
        trainer = run.trainer(total, loss=_loss(teacher, given, wanted, betas, config.power))
        for batch in run.batches("distil attention", total):
            trainer.step(batch)
    return {"layers": nodes, "betas": betas, "teacher_accuracy_drop": run.judge.estimator.drop(teacher)}


def _nodes(run: Tuning[NadConfig]) -> list[str]:
    """Return the nodes whose maps are compared, checked to give maps."""
    x = run.rest.pixels([0, 1]).to(run.device)
    if not run.config.layers:
        return attention_layers(run.original, x)
    with watched(named_layers(run.original, run.config.layers)) as maps, torch.no_grad():
        run.original(x)
    for node, each in zip(run.config.layers, maps, strict=True):
        if each.dim() != 4:
            raise ConfigError(f"node {node!r} gives {list(each.shape)}; expected maps [N, C, H, W]")
    return list(run.config.layers)


def _teacher(run: Tuning[NadConfig], total: int) -> Classifier:
    """Return a fine-tuned copy, whose weights stay from here on."""
    teacher = copy.deepcopy(run.classifier)
    trainer = run.trainer(total, classifier=teacher)
    for batch in run.batches("fine-tune the teacher", total, judged=False):
        trainer.step(batch)
    return teacher.requires_grad_(requires_grad=False)


def _loss(
    teacher: Classifier, given: list[Tensor], wanted: list[Tensor], betas: Sequence[float], power: float
) -> Loss:
    """Return the loss whose maps, ``given`` and ``wanted``, a pass through either network fills."""

    def loss(logits: Tensor, batch: Batch) -> Tensor:
        with torch.no_grad():
            teacher(batch.x)
        total = label_loss(logits, batch)
        for beta, mine, theirs in zip(betas, given, wanted, strict=True):
            total = total + beta * mse_loss(attention(mine, power), attention(theirs, power))
        return total

    return loss
