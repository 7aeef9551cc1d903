"""Fine-pruning: take out the features that clean images use least, then fine-tune.

Source: Liu et al., "Fine-Pruning", RAID 2018; features and numbers as in BackdoorBench's ``fp``, which prunes the
inputs of the last linear layer. Departs from it: how many are pruned is told by held-back clean images, where it
reads test accuracy; the features pruned have no weight at any step of the fine-tuning.
"""

from collections import deque
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mothkit.classifier import Classifier
from mothkit.errors import ConfigError
from mothkit.events import PhaseStarted, StepDone
from mothkit.hardening.tuning import Tuning, TuningConfig, check_range
from mothkit_converters import Layer, layers_of

_PRODUCTS = frozenset({"Conv", "Gemm", "MatMul"})


@dataclass(frozen=True, slots=True, kw_only=True)
class FinePruningConfig(TuningConfig):
    """How far to prune.

    Attributes:
        pruned_at_once: share of the features that a step of pruning takes out (BackdoorBench: 0.01).
        accuracy_loss: share of the original's accuracy on held-back images that pruning may cost before the
            fine-tuning (BackdoorBench: 0.1, of test accuracy).
    """

    pruned_at_once: float = 0.01
    accuracy_loss: float = 0.1

    def __post_init__(self) -> None:
        TuningConfig.__post_init__(self)
        check_range(self, "in (0, 1]", lambda x: 0 < x <= 1, "pruned_at_once")
        check_range(self, "in [0, 1)", lambda x: 0 <= x < 1, "accuracy_loss")


@dataclass(frozen=True, slots=True, eq=False)
class LastLinear:
    """The last layer with a matrix: features in, class scores out.

    Attributes:
        layer: it.
        weight: its matrix, a parameter.
        axis: of ``weight`` along which the features lie.
        place: of the features among the layer's inputs.
    """

    layer: Layer
    weight: nn.Parameter
    axis: int
    place: int

    def prune(self, features: Tensor) -> None:
        """Take ``features``, indices, out of what the layer weighs."""
        with torch.no_grad():
            self.weight.index_fill_(self.axis, features, 0.0)


def last_linear(classifier: Classifier) -> LastLinear:
    """Return the last layer with a matrix that scores classes, going back from the logits.

    Raises:
        ConfigError: there is none whose inputs are features: a convolution in groups, or a product of another kind.
    """
    network = classifier.network
    waiting = deque(layers_of(network)[-1:])
    while waiting:
        layer = waiting.popleft()
        for place, name in enumerate(layer.tensors):
            weight = None if name is None else dict(network.named_parameters()).get(name)
            if layer.operator in _PRODUCTS and weight is not None and weight.dim() > 1:
                return LastLinear(layer, weight, _feature_axis(layer, weight, place), 1 - place)
        waiting.extend(each for each in layer.inputs if each is not None)
    raise ConfigError(
        f"{classifier.source.path}: has no layer with a matrix of its own, whose inputs can be pruned"
    )


def _feature_axis(layer: Layer, weight: Tensor, place: int) -> int:
    if layer.operator == "Conv" and layer.attributes.get("group", 1) == 1:
        return 1
    if layer.operator == "MatMul" and weight.dim() == 2:
        return 0 if place == 1 else 1
    if layer.operator == "Gemm" and place == 1 and not layer.attributes.get("transA", 0):
        return 1 if layer.attributes.get("transB", 0) else 0
    raise ConfigError(
        f"node {layer.node!r} ({layer.operator}): its inputs are no features that can be pruned"
    )


def mean_features(run: Tuning[FinePruningConfig], last: LastLinear) -> Tensor:
    """Return the mean of each feature [F] over the images that are not held back."""
    sums: list[Tensor] = []

    def hook(_module: nn.Module, given: tuple[Tensor, ...]) -> None:
        features = given[last.place]
        channels = 1 if last.layer.operator == "Conv" else -1
        sums.append(features.movedim(channels, -1).flatten(0, -2).mean(0) * len(features))

    handle = last.layer.module.register_forward_pre_hook(hook)
    try:
        with torch.no_grad():
            for x, _ in run.rest.batches(run.config.batch_size):
                run.classifier(x.to(run.device))
    finally:
        handle.remove()
    return torch.stack(sums).sum(0) / len(run.rest)


def prune_and_tune(run: Tuning[FinePruningConfig]) -> dict[str, Any]:
    """Prune the copy as far as it keeps its accuracy, and tune the rest."""
    last = last_linear(run.classifier)
    activity = mean_features(run, last)
    order = activity.argsort(stable=True)
    count = _prune(run, last, order)
    (total,) = run.steps(run.config.epochs)
    trainer = run.trainer(total)
    for batch in run.batches("fine-tune", total):
        trainer.step(batch)
        last.prune(order[:count])
    return {
        "node": last.layer.node,
        "features": len(order),
        "pruned": order[:count].tolist(),
        "activity": activity.tolist(),
    }


def _prune(run: Tuning[FinePruningConfig], last: LastLinear, order: Tensor) -> int:
    """Prune in ``order``, a few at a time, until accuracy falls too far; return how many are left out."""
    estimator, config = run.judge.estimator, run.config
    limit = 100 * config.accuracy_loss * estimator.before[0]
    at_once = max(1, round(config.pruned_at_once * len(order)))
    whole = last.weight.detach().clone()
    run.emit(PhaseStarted("prune", len(order)))
    count = 0
    while count < len(order) - 1 and not run.is_over():
        asked = min(count + at_once, len(order) - 1)
        last.prune(order[:asked])
        if estimator.drop(run.classifier) > limit:
            break
        count = asked
        run.emit(StepDone(count, len(order)))
    with torch.no_grad():
        last.weight.copy_(whole)
    last.prune(order[:count])
    return count
