"""From a pickle's network to a module of today's torchvision or timm that computes the same."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from mothkit.errors import PickleError
from mothkit.trojai.architectures import FAMILIES, VIT, build
from mothkit.trojai.pickles.containers import Container, open_container
from mothkit.trojai.pickles.names import RENAMED, foreign
from mothkit.trojai.pickles.tree import Layer, Network, is_plain, read_network, read_tensors

_PATCH = 32  # pixels, of the transformer
_SIDE_OUTPUTS = ("AuxLogits", "aux1", "aux2")  # of Inception and GoogLeNet, for training alone
_NO_EFFECT = (  # on what a module computes in eval mode
    *(
        "training",
        "inplace",
        "momentum",
        "p",
        "drop_rate",
        "drop_prob",
        "memory_efficient",
        "grad_checkpointing",
    ),
    *("fused_attn", "aux_logits", "num_classes", "transform_input"),
)
_EMPTY = ("Identity", "Dropout", "DropPath")  # layers that do nothing in eval mode
_ORDERED = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A pickled classifier, rebuilt.

    Attributes:
        module: in eval mode, on the CPU, float32; images [N, 3, H, W] to logits [N, classes].
        architecture: torchvision's or timm's name.
        classes: how many it tells apart.
        image_size: height and width that its weights are made for; None where any will do.
        container: ``zip`` or ``legacy``.
    """

    module: nn.Module
    architecture: str
    classes: int
    image_size: int | None
    container: str


def load_module(path: Path) -> Loaded:
    """Return the classifier that ``torch.save(module)`` wrote to ``path``; nothing in the file is executed.

    Its tensors are taken, and the rest compared with the network that is built for them: what is not one of the
    rounds' architectures to the last setting is refused.

    Raises:
        PickleError: it is broken, asks for other names than those architectures do, or is another network.
        ConfigError: it needs timm, which is not installed.
    """
    container = open_container(path)
    if others := foreign(container.wanted):
        raise PickleError(
            path, "is not loaded: no model of the rounds needs all that it names", wanted=others
        )
    network = read_network(container)
    root = network.layers[0]
    tensors = {
        name: value.float() if value.is_floating_point() else value
        for name, value in read_tensors(container, network).items()
        if name.partition(".")[0] not in _SIDE_OUTPUTS
    }
    architecture, classes, image_size = _recognised(path, root, tensors)
    module = _built(architecture, classes, image_size)
    if "transform_input" in vars(module):
        vars(module)["transform_input"] = bool(root.settings.get("transform_input", False))
    _check_layers(container, network, module)
    _check_numbers(path, tensors)
    module.load_state_dict(tensors, strict=True, assign=True)
    return Loaded(module.eval(), architecture, classes, image_size, container.kind)


def _recognised(path: Path, root: Layer, tensors: Mapping[str, Tensor]) -> tuple[str, int, int | None]:
    """Return the architecture whose weights have these names and shapes, its classes and its image size."""
    family = FAMILIES.get(root.kind.name)
    if family is None or family.head not in tensors or tensors[family.head].dim() < 1:
        raise PickleError(path, f"is a {root.kind}, which is no classifier of the rounds")
    classes = len(tensors[family.head])
    shapes = {name: tuple(value.shape) for name, value in tensors.items()}
    for name in family.members:
        image_size = _image_size(tensors) if name == VIT else None
        expected = {
            key: tuple(value.shape) for key, value in _built(name, classes, image_size).state_dict().items()
        }
        if shapes == expected:
            return name, classes, image_size
    raise PickleError(
        path, f"is a {root.kind}, but its weights are those of none of {', '.join(family.members)}"
    )


def _image_size(tensors: Mapping[str, Tensor]) -> int:
    """Return the height and width that a transformer's positions are for; they stand in a square."""
    positions = tensors.get("pos_embed", torch.empty(0))
    tokens = positions.shape[1] - 1 if positions.dim() == 3 else 0
    return _PATCH * max(1, math.isqrt(max(0, tokens)))


def _built(name: str, classes: int, image_size: int | None) -> nn.Module:
    """Return the network without weights: none are drawn that would be replaced."""
    with torch.device("meta"):
        return build(name, classes, image_size=image_size or 224)


def _check_layers(container: Container, network: Network, module: nn.Module) -> None:
    """Refuse a file whose layers are not those of ``module``, or are set otherwise."""
    ours = dict(module.named_modules())
    for layer in network.layers:
        if layer.path.partition(".")[0] in _SIDE_OUTPUTS:
            continue
        name = RENAMED.get(layer.kind.name, layer.kind.name)
        mine = ours.get(layer.path)
        if mine is None and name in _EMPTY:
            continue
        if mine is None or type(mine).__name__ != name:
            built = "nothing" if mine is None else type(mine).__name__
            raise PickleError(container.path, f"'{layer.path}' is a {layer.kind}, expected {built}")
        _check_settings(container, layer, mine)


def _check_settings(container: Container, layer: Layer, mine: nn.Module) -> None:
    own = tuple(name for name, _ in mine.named_children())
    if isinstance(mine, _ORDERED) and layer.children != own:
        raise PickleError(container.path, f"'{layer.path}' has the layers {layer.children}, expected {own}")
    for name, value in layer.settings.items():
        if name.startswith("_") or name in _NO_EFFECT or not hasattr(mine, name):
            continue
        expected = getattr(mine, name)
        if all(map(is_plain, _items(expected))) and not _is_same(value, expected):
            raise PickleError(container.path, f"'{layer.path}' has {name} {value}, expected {expected}")


def _items(value: object) -> tuple[object, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def _is_same(first: object, second: object) -> bool:
    """Return whether two settings mean the same; 3 and (3, 3) do."""
    one, two = _items(first), _items(second)
    length = max(len(one), len(two))
    return (one * length if len(one) == 1 else one) == (two * length if len(two) == 1 else two)


def _check_numbers(path: Path, tensors: Mapping[str, Tensor]) -> None:
    for name, value in tensors.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            count = int((~value.isfinite()).sum())
            raise PickleError(path, f"'{name}' has {count} numbers that are not finite; the model is damaged")
