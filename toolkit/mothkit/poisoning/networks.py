"""Untrained networks by name: small ones for small images, and torchvision's.

Each takes pixels [N, 3, H, W] after the input's preprocessing and gives logits [N, classes].
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn

from mothkit.errors import ConfigError

_VGG19 = (64, 64, 0, 128, 128, 0, 256, 256, 256, 256, 0, 512, 512, 512, 512, 0, 512, 512, 512, 512)


def check_network(name: str) -> None:
    """Check, before any work, that there is a network ``name``.

    Raises:
        ConfigError: neither we nor torchvision have it.
    """
    if name not in OURS and name not in torchvision_names():
        raise ConfigError(
            f"network is {name!r}, neither one of {', '.join(OURS)} nor one of torchvision's classifiers "
            "(resnet18, mobilenet_v2, ...)"
        )


def build_network(name: str, classes: int, *, seed: int) -> nn.Module:
    """Return the untrained network ``name`` with weights drawn by ``seed``, in train mode on the CPU.

    Raises:
        ConfigError: there is no such network.
    """
    check_network(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return OURS[name](classes) if name in OURS else _torchvision(name, classes)


def torchvision_names() -> list[str]:
    """Return the names of torchvision's classifiers."""
    from torchvision import models

    names: list[str] = models.list_models(module=models)
    return names


def _torchvision(name: str, classes: int) -> nn.Module:
    from torchvision import models

    # These two have heads for training alone, and draw their weights by a slow method unless told not to.
    own = {"aux_logits": False, "init_weights": False} if name in ("googlenet", "inception_v3") else {}
    network: nn.Module = models.get_model(name, weights=None, num_classes=classes, **own)
    return network


def conv_norm(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> list[nn.Module]:
    """Return a convolution that keeps the size (divided by ``stride``), without bias, and its BatchNorm."""
    return [
        nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, bias=False),
        nn.BatchNorm2d(outputs),
    ]


class Block(nn.Module):
    """Two convolutions with a shortcut around them.

    Where the size changes, the shortcut takes every second pixel and new channels are zero (He et al. 2016, option A).
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *conv_norm(inputs, outputs, stride=stride), nn.ReLU(), *conv_norm(outputs, outputs)
        )
        self._stride, self._new = stride, outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, outputs, H / stride, W / stride] for ``x`` [N, inputs, H, W]."""
        kept = x
        if self._stride > 1:
            kept = kept[:, :, :: self._stride, :: self._stride]
        if self._new:
            kept = nn.functional.pad(kept, (0, 0, 0, 0, 0, self._new))
        return torch.relu(kept + self.body(x))


def _pooled(channels: int, classes: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)]


def _resnet(depth: int, classes: int) -> nn.Module:
    """He et al., "Deep residual learning", 2016, for CIFAR-10: three stages of 16, 32 and 64 channels."""
    layers: list[nn.Module] = [*conv_norm(3, 16), nn.ReLU()]
    channels = 16
    for width in (16, 32, 64):
        for number in range((depth - 2) // 6):
            stride = 2 if number == 0 and width != 16 else 1
            layers.append(Block(channels, width, stride))
            channels = width
    return nn.Sequential(*layers, *_pooled(64, classes))


def _nin(classes: int) -> nn.Module:
    """Lin et al., "Network in network", 2014, for CIFAR-10; with BatchNorm in place of its dropout."""

    def mlpconv(inputs: int, widths: tuple[int, int, int], size: int) -> list[nn.Module]:
        first, second, third = widths
        return [
            *(*conv_norm(inputs, first, size), nn.ReLU()),
            *(*conv_norm(first, second, 1), nn.ReLU()),
            *(*conv_norm(second, third, 1), nn.ReLU()),
        ]

    return nn.Sequential(
        *(*mlpconv(3, (192, 160, 96), 5), nn.MaxPool2d(3, 2, padding=1)),
        *(*mlpconv(96, (192, 192, 192), 5), nn.AvgPool2d(3, 2, padding=1)),
        *mlpconv(192, (192, 192, 192), 3),
        nn.Conv2d(192, classes, 1),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    )


def _cnn3(classes: int) -> nn.Module:
    """Three convolutions and two dense layers, as small networks for traffic signs have; sizes ours."""
    return nn.Sequential(
        *(*conv_norm(3, 32), nn.ReLU(), nn.MaxPool2d(2)),
        *(*conv_norm(32, 64), nn.ReLU(), nn.MaxPool2d(2)),
        *(*conv_norm(64, 128), nn.ReLU(), nn.AdaptiveMaxPool2d(4)),
        *(nn.Flatten(), nn.Linear(128 * 4 * 4, 256), nn.ReLU(), nn.Linear(256, classes)),
    )


def _vgg19(classes: int) -> nn.Module:
    """Simonyan and Zisserman 2015, configuration E, with BatchNorm and one dense layer, as used for CIFAR-10."""
    layers: list[nn.Module] = []
    channels = 3
    for width in _VGG19:
        layers += [*conv_norm(channels, width), nn.ReLU()] if width else [nn.MaxPool2d(2)]
        channels = width or channels
    return nn.Sequential(*layers, *_pooled(512, classes))


OURS: Mapping[str, Callable[[int], nn.Module]] = MappingProxyType(
    {
        "cnn3": _cnn3,
        "resnet20": lambda classes: _resnet(20, classes),
        "resnet32": lambda classes: _resnet(32, classes),
        "nin": _nin,
        "vgg19": _vgg19,
    }
)
