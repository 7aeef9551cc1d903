"""What an imported network computes on its way: maps of features, found by resolution or by the names of nodes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mothkit.classifier import Classifier
from mothkit.errors import ConfigError
from mothkit_converters import Layer, layers_of

_MAKES_MAPS = frozenset(
    {"Conv", "ConvTranspose", "DeformConv", "FusedConv", "AveragePool", "MaxPool", "BatchNormalization"}
)


@contextmanager
def watched(layers: Sequence[Layer]) -> Iterator[list[Tensor]]:
    """Yield a list that holds the first output of each of ``layers`` after a pass through their network."""
    seen: list[Tensor] = [torch.empty(0)] * len(layers)

    def keep(place: int) -> None:
        def hook(_module: nn.Module, _given: object, found: object) -> None:
            if isinstance(first := found[0] if isinstance(found, tuple) else found, Tensor):
                seen[place] = first

        handles.append(layers[place].module.register_forward_hook(hook))

    handles: list[torch.utils.hooks.RemovableHandle] = []
    for place in range(len(layers)):
        keep(place)
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def attention_layers(classifier: Classifier, x: Tensor) -> list[str]:
    """Return the node that gives the last map of each spatial resolution, in the graph's order.

    Resolutions are those of convolutions, poolings and batch normalisations; maps of one pixel are left out.

    Args:
        classifier: in eval mode.
        x: a few images [N, C, H, W] to see sizes with.

    Raises:
        ConfigError: there is no such map.
    """
    layers = layers_of(classifier.network)
    with watched(layers) as maps, torch.no_grad():
        classifier(x)
    sizes = [tuple(each.shape[2:]) if each.dim() == 4 and len(each) == len(x) else None for each in maps]
    made = {size for layer, size in zip(layers, sizes, strict=True) if layer.operator in _MAKES_MAPS}
    last = {
        size: layer.node
        for layer, size in zip(layers, sizes, strict=True)
        if size is not None and size in made and size != (1, 1)
    }
    if not last:
        raise ConfigError(f"{classifier.source.path}: computes no maps of features to attend to")
    order = {layer.node: place for place, layer in enumerate(layers)}
    return sorted(last.values(), key=order.__getitem__)


def named_layers(classifier: Classifier, nodes: Sequence[str]) -> list[Layer]:
    """Return the layers of the nodes called ``nodes``.

    Raises:
        ConfigError: there is no such node.
    """
    known = {layer.node: layer for layer in layers_of(classifier.network)}
    if unknown := [node for node in nodes if node not in known]:
        raise ConfigError(
            f"{classifier.source.path}: has no node {unknown[0]!r} that gives a value; there are {', '.join(known)}"
        )
    return [known[node] for node in nodes]
