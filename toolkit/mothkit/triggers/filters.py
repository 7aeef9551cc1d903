"""Filter triggers: the five Instagram filters of TrojAI, on the whole image.

Source: the filters of TrojAI rounds 2 to 4 (NIST), which ImageMagick computes there. These are the same operations
on floats, written from their definitions, and agree with ImageMagick 6.9 within a level of 255 (docs/poisoning.md).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from mothkit.errors import ConfigError, ShapeError

Colour = tuple[int, int, int]

_NAVY: Colour = (0x22, 0x2B, 0x6D)
_CREAM: Colour = (0xF7, 0xDA, 0xAE)
_ORANGE: Colour = (0xFF, 0x99, 0x00)
_MAROON: Colour = (0x33, 0x00, 0x00)
_PEACH: Colour = (0xFF, 0x99, 0x66)
_BLUSH: Colour = (205, 193, 197)  # LavenderBlush3
_BLACK: Colour = (0, 0, 0)
_STEEPNESS = 3.0  # of the sigmoidal contrast, around half
_WIDER = 1.5  # times the image: the size of a vignette
_LEAST = 1e-6


def _pixel(colour: Colour, x: Tensor) -> Tensor:
    """Return ``colour`` as [3, 1, 1], 0..1, like ``x``."""
    return torch.tensor(colour, dtype=x.dtype, device=x.device)[:, None, None] / 255


def modulate(x: Tensor, brightness: float, saturation: float) -> Tensor:
    """Return ``x`` with lightness and saturation (of HSL) times so many percent; the hue stays."""
    high, low = x.amax(1, keepdim=True), x.amin(1, keepdim=True)
    lightness, chroma = (high + low) / 2, high - low
    strength = chroma / (1 - (2 * lightness - 1).abs()).clamp_min(_LEAST)
    lightness = lightness * brightness / 100
    new_chroma = (1 - (2 * lightness - 1).abs()) * strength * saturation / 100
    share = torch.where(chroma > _LEAST, (x - low) / chroma.clamp_min(_LEAST), 0.5)
    return (lightness + (share - 0.5) * new_chroma).clamp(0, 1)


def colorize(x: Tensor, colour: Colour, share: float) -> Tensor:
    """Return ``x`` with ``colour`` over it, of this opacity."""
    return (1 - share) * x + share * _pixel(colour, x)


def gamma(x: Tensor, value: float) -> Tensor:
    """Return ``x`` to the power of 1 / ``value``."""
    return x ** (1 / value)


def auto_gamma(x: Tensor) -> Tensor:
    """Return ``x`` to the power that takes each image's mean, were it a pixel, to one half."""
    mean = x.mean((1, 2, 3), keepdim=True).clamp(_LEAST, 1 - _LEAST)
    return x ** (math.log(0.5) / mean.log())


def sigmoidal_contrast(x: Tensor) -> Tensor:
    """Return ``x`` through a sigmoid around one half, scaled so that 0 and 1 stay."""
    low, high = (1 / (1 + math.exp(_STEEPNESS * (0.5 - end))) for end in (0, 1))
    return (torch.sigmoid(_STEEPNESS * (x - 0.5)) - low) / (high - low)


def colortone(x: Tensor, colour: Colour, *, dark: bool) -> Tensor:
    """Return ``x`` half mixed with ``colour`` where it is light, or where it is ``dark``.

    The mixture is ImageMagick's "blend" at 50, 50 of a layer whose opacity is the grey image.
    """
    grey = (x * torch.tensor((0.2126, 0.7152, 0.0722), dtype=x.dtype, device=x.device)[:, None, None]).sum(
        1, keepdim=True
    )
    opacity = 1 - grey if dark else grey
    return (opacity * _pixel(colour, x) + x) / (opacity + 1)


def vignette(x: Tensor, centre: Colour | None, edge: Colour | None) -> Tensor:
    """Return ``x`` times a layer that goes from one colour to another with the distance from the centre.

    None is no colour at all: there the image stays as it is.
    """
    height, width = x.shape[2:]
    rows = torch.arange(height, dtype=x.dtype, device=x.device) - (height - 1) / 2
    columns = torch.arange(width, dtype=x.dtype, device=x.device) - (width - 1) / 2
    outer = (_WIDER * max(height, width) - 1) / 2
    out = ((rows[:, None] ** 2 + columns**2).sqrt() / outer).clamp(max=1)
    if centre is None:
        opacity, colour = out, edge or _BLACK
    else:
        opacity, colour = 1 - out, centre
    return x * (1 - opacity * (1 - _pixel(colour, x)))


def _gotham(x: Tensor) -> Tensor:
    toned = gamma(colorize(modulate(x, 120, 10), _NAVY, 0.2), 0.9)
    return sigmoidal_contrast(sigmoidal_contrast(toned))


def _nashville(x: Tensor) -> Tensor:
    toned = colortone(colortone(x, _NAVY, dark=True), _CREAM, dark=False)
    return auto_gamma(modulate(sigmoidal_contrast(toned), 100, 150))


def _kelvin(x: Tensor) -> Tensor:
    return colorize(modulate(auto_gamma(x), 120, 50), _ORANGE, 0.2)


def _lomo(x: Tensor) -> Tensor:
    # Wand's level(black=0.5) takes the white point inward, too, to 1 - 0.5: nothing but a threshold is left.
    red_green = (x[:, :2] > 0.5).to(x.dtype)
    return vignette(torch.cat([red_green, x[:, 2:]], dim=1), None, _BLACK)


def _toaster(x: Tensor) -> Tensor:
    toned = gamma(modulate(colortone(x, _MAROON, dark=True), 150, 80), 1.2)
    contrasted = sigmoidal_contrast(sigmoidal_contrast(toned))
    return vignette(vignette(contrasted, None, _BLUSH), _PEACH, None)


FILTERS: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {"gotham": _gotham, "kelvin": _kelvin, "lomo": _lomo, "nashville": _nashville, "toaster": _toaster}
)
"""Each takes and returns float [N, 3, H, W], 0..1, RGB."""


@dataclass(frozen=True, slots=True)
class FilterTrigger:
    """A filter on the whole image.

    Attributes:
        name: one of ``FILTERS``.

    Raises:
        ConfigError: there is no such filter.
    """

    name: str

    def __post_init__(self) -> None:
        if self.name not in FILTERS:
            raise ConfigError(f"filter is {self.name!r}, not one of {', '.join(FILTERS)}")

    def stamp(self, x: Tensor) -> Tensor:
        """Return ``x`` [N, 3, H, W], 0..1, RGB, through the filter; ``x`` is left alone.

        Raises:
            ShapeError: the images are not of three colours.
        """
        if x.dim() != 4 or x.shape[1] != 3:
            raise ShapeError(f"a filter takes images of three colours [N, 3, H, W], not {list(x.shape)}")
        return FILTERS[self.name](x).clamp(0, 1)
