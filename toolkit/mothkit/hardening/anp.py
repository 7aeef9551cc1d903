"""Adversarial neuron pruning: take out the channels that small changes of their weights turn against the labels.

Source: Wu and Wang, "Adversarial Neuron Pruning Purifies Backdoored Deep Models", NeurIPS 2021; numbers as in
BackdoorBench's ``anp``, the learning rate the paper's. Departs from it: the threshold is told by held-back clean
images, where it reads test accuracy; convolutions that carry a folded batch normalisation are masked too, towards
their mean output, which is the bias of what was folded; batches are whole epochs, not draws with repeats.
"""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from mothkit.classifier import Classifier
from mothkit.errors import ConfigError
from mothkit.events import PhaseStarted, StepDone
from mothkit.hardening.features import watched
from mothkit.hardening.training import Batch, Schedule, make_optimiser
from mothkit.hardening.tuning import Tuning, TuningConfig, check_range
from mothkit_converters import Layer, layers_of

_PREFIX = "network."  # a classifier's imported network among its own parts


@dataclass(frozen=True, slots=True, kw_only=True)
class AnpConfig(TuningConfig):
    """Masks and pruning; ``learning_rate``, without decay or schedule, moves the masks.

    Attributes:
        iterations: steps on the masks (BackdoorBench: 2000); ``epochs`` is not used.
        noise: largest relative change of a weight or bias of a channel (paper: 0.4).
        noise_steps: sign steps of that change (BackdoorBench: 1).
        clean_share: share of the loss without noise (paper: 0.2).
        threshold_step: thresholds go up by this from 0 to 0.9 (BackdoorBench: 0.05).
    """

    learning_rate: float = 0.2
    weight_decay: float = 0.0
    schedule: Schedule = "constant"
    iterations: int = 2000
    noise: float = 0.4
    noise_steps: int = 1
    clean_share: float = 0.2
    threshold_step: float = 0.05

    def __post_init__(self) -> None:
        TuningConfig.__post_init__(self)
        check_range(self, "at least 1", lambda n: n >= 1, "iterations", "noise_steps")
        check_range(self, "above 0", lambda x: x > 0, "noise")
        check_range(self, "in [0, 1]", lambda x: 0 <= x <= 1, "clean_share")
        check_range(self, "in (0, 0.9]", lambda x: 0 < x <= 0.9, "threshold_step")


@dataclass(frozen=True, slots=True, eq=False)
class Channels:
    """The channels of one node that masks act on.

    Attributes:
        node: its name.
        weight, bias: torch names in the classifier; a convolution may have no bias.
        rest: [C], what a channel gives at every pixel once its weight is taken out; None without a bias.
    """

    node: str
    weight: str
    bias: str | None
    rest: Tensor | None


Noise = tuple[Tensor, Tensor]
"""Relative changes [C] of a node's weights and biases."""


def find_channels(classifier: Classifier, x: Tensor) -> list[Channels]:
    """Return the channels of batch normalisations, and of convolutions into which one was folded.

    These are convolutions with a bias before no batch normalisation; all convolutions where there is none of either.

    Args:
        classifier: in eval mode.
        x: clean images [N, C, H, W] that show what convolutions give in the mean.

    Raises:
        ConfigError: there are no channels.
    """
    layers = layers_of(classifier.network)
    weights = {name for name, _ in classifier.network.named_parameters()}
    norms = [layer for layer in layers if layer.operator == "BatchNormalization"]
    normed = {id(layer.inputs[0]) for layer in norms if layer.inputs}
    convolutions = [layer for layer in layers if layer.operator == "Conv" and layer.tensors[1] in weights]
    folded = [each for each in convolutions if id(each) not in normed and len(each.tensors) > 2]
    masked = [each for each in norms if each.tensors[1] in weights] + folded or convolutions
    if not masked:
        raise ConfigError(f"{classifier.source.path}: has no convolution or batch normalisation to prune")
    tensors = dict(classifier.named_parameters())
    means = _mean_outputs(classifier, folded, x)
    return [_channels(layer, tensors, means.get(id(layer))) for layer in masked]


def _channels(layer: Layer, tensors: dict[str, nn.Parameter], mean: Tensor | None) -> Channels:
    biased = len(layer.tensors) > 2 and layer.tensors[2] is not None
    bias = f"{_PREFIX}{layer.tensors[2]}" if biased else None
    rest = mean if mean is not None or bias is None else tensors[bias].detach()
    return Channels(layer.node, f"{_PREFIX}{layer.tensors[1]}", bias, rest)


def _mean_outputs(classifier: Classifier, layers: list[Layer], x: Tensor) -> dict[int, Tensor]:
    """Return by the id of each of ``layers`` the mean of each channel [C] that it gives."""
    with watched(layers) as maps, torch.no_grad():
        classifier(x)
    return {
        id(layer): each.transpose(0, 1).flatten(1).mean(1) for layer, each in zip(layers, maps, strict=True)
    }


def masked_weights(
    tensors: dict[str, Tensor],
    channels: list[Channels],
    masks: list[Tensor],
    noise: list[Noise] | None = None,
) -> dict[str, Tensor]:
    """Return by name the weights and biases of ``channels`` under ``masks``, each [C], with relative ``noise``."""
    found = {}
    for place, (each, mask) in enumerate(zip(channels, masks, strict=True)):
        shaken, shift = (0.0, 0.0) if noise is None else noise[place]
        kept = mask + shaken
        weight = tensors[each.weight]
        found[each.weight] = weight * kept.reshape(-1, *[1] * (weight.dim() - 1))
        if each.bias is not None and each.rest is not None:
            found[each.bias] = kept * tensors[each.bias] + (1 + shift - kept) * each.rest
    return found


class Masked(nn.Module):
    """A classifier whose channels are weighed by trainable masks."""

    def __init__(self, classifier: Classifier, channels: list[Channels]) -> None:
        super().__init__()
        self.classifier = classifier.requires_grad_(requires_grad=False)
        self.channels = channels
        self._tensors: dict[str, Tensor] = dict(classifier.named_parameters())
        self.masks = nn.ParameterList([torch.ones(len(self._tensors[each.weight])) for each in channels])
        self.to(next(iter(self._tensors.values())).device)

    def forward(self, x: Tensor, noise: list[Noise] | None = None) -> Tensor:
        """Return logits for pixels ``x``."""
        changed = masked_weights(self._tensors, self.channels, list(self.masks), noise)
        logits: Tensor = functional_call(self.classifier, changed, (x,))
        return logits

    def clip(self) -> None:
        """Put masks that left it back into 0..1."""
        with torch.no_grad():
            for mask in self.masks:
                mask.clamp_(0, 1)


def prune_adversarially(run: Tuning[AnpConfig]) -> dict[str, Any]:
    """Learn masks that withstand noise, and take out the channels with the smallest, as far as accuracy stays."""
    clean = run.rest.pixels(torch.randperm(len(run.rest), generator=run.generator)[: run.config.batch_size])
    masked = Masked(copy.deepcopy(run.classifier), find_channels(run.classifier, clean.to(run.device)))
    _learn(run, masked)
    masks = [mask.detach() for mask in masked.masks]
    return {
        "masks": {each.node: mask.tolist() for each, mask in zip(masked.channels, masks, strict=True)},
        "thresholds": _prune(run, masked.channels, masks),
    }


def _learn(run: Tuning[AnpConfig], masked: Masked) -> None:
    config = run.config
    optimiser = make_optimiser(masked, config)
    for batch in run.batches("learn masks", run.budget.steps or config.iterations, judged=False):
        masked.train(config.batch_statistics)
        noise = _worst_noise(run, masked, batch)
        plain = cross_entropy(masked(batch.x), batch.y)
        shaken = cross_entropy(masked(batch.x, noise), batch.y)
        optimiser.zero_grad()
        (config.clean_share * plain + (1 - config.clean_share) * shaken).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        masked.clip()


def _worst_noise(run: Tuning[AnpConfig], masked: Masked, batch: Batch) -> list[Noise]:
    """Return the noise, within its bound, that raises the loss on ``batch``: sign steps from a random start."""
    bound, steps = run.config.noise, run.config.noise_steps
    sizes = [len(mask) for mask in masked.masks for _ in range(2)]
    draws = [(torch.rand(size, generator=run.generator) * 2 - 1) * bound for size in sizes]
    flat = [draw.to(run.device) for draw in draws]
    for _ in range(steps):
        given = [each.requires_grad_() for each in flat]
        loss = cross_entropy(masked(batch.x, _paired(given)), batch.y)
        gradients = torch.autograd.grad(loss, given, allow_unused=True)
        flat = [
            (each.detach() + (0 if up is None else bound / steps * up.sign())).clamp(-bound, bound)
            for each, up in zip(given, gradients, strict=True)
        ]
    return _paired(flat)


def _paired(flat: list[Tensor]) -> list[Noise]:
    return list(zip(flat[::2], flat[1::2], strict=True))


def _prune(run: Tuning[AnpConfig], channels: list[Channels], masks: list[Tensor]) -> list[dict[str, Any]]:
    """Prune the copy at ever higher thresholds until accuracy falls too far; return what each of them took."""
    whole = {name: tensor.detach().clone() for name, tensor in run.classifier.named_parameters()}
    weights, found = dict(run.classifier.named_parameters()), []
    steps = round(0.9 / run.config.threshold_step)
    run.emit(PhaseStarted("prune", steps + 1))
    for step in range(steps + 1):
        threshold = step * run.config.threshold_step
        kept = [(mask > threshold).float() for mask in masks]
        with torch.no_grad():
            for name, tensor in masked_weights(whole, channels, kept).items():
                weights[name].copy_(tensor)
        candidate = run.judge.take(run.classifier, run.done + step)
        pruned = int(sum(float((1 - each).sum()) for each in kept))
        found.append({"threshold": threshold, "pruned": pruned, "accuracy_drop": candidate.accuracy_drop})
        run.emit(StepDone(step + 1, steps + 1))
        if candidate.accuracy_drop > run.budget.max_accuracy_drop:
            break
    return found
