"""Tints: changes of all colours at once, as photographic filters make, and the directions that they stand out in.

A filter is no mask with a pattern, and the smallest change of colour that turns a class need not be the taught one. So
tints are drawn at random. Some classes take in images of many others under any tint; where a tint turns a class that
others do not go with it, a filter may have been taught. Such suspects are trained against in every round, by the tints
that work best against the present weights (ours; docs/moth.md, *Tints*).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from mothkit.classifier import Classifier
from mothkit.hardening.pairs import Pair
from mothkit.hardening.training import Sampler

_IMAGES, _TINTS = 64, 8  # of each class, and of each image, to see what turns it
_TRIED_ON = 8  # images of the source class


@dataclass(frozen=True, slots=True, eq=False)
class Tints:
    """K changes of colours, each the same on every pixel of an image; tensors are [K, 1 or channels, 1, 1].

    Attributes:
        gamma: exponent of each channel.
        contrast: factor of the distance from middle grey.
        saturation: factor of the distance from the pixel's own grey; without effect on grey images.
        gain, bias: of each channel, at the end.
    """

    gamma: Tensor
    contrast: Tensor
    saturation: Tensor
    gain: Tensor
    bias: Tensor

    def at(self, rows: Tensor) -> "Tints":
        """Return those in these ``rows``, an index of K."""
        return Tints(**{each.name: getattr(self, each.name)[rows] for each in fields(self)})

    def on(self, x: Tensor) -> Tensor:
        """Return the images ``x`` [K, C, H, W], 0..1, each in its colours; a single one, K = 1, goes for all images."""
        x = x.clamp(min=1e-3) ** self.gamma
        x = (x - 0.5) * self.contrast + 0.5
        grey = x.mean(dim=1, keepdim=True)
        x = grey + (x - grey) * self.saturation
        return (x * self.gain + self.bias).clamp(0, 1)


@dataclass(frozen=True, slots=True)
class TintSuspect:
    """A direction in which tints stand out.

    Attributes:
        source, target: its classes.
        turned: share of tinted images of the source that go to the target, beyond those that go there untinted and
            beyond what tints turn to it from the median class.
        deviations: the same in standard deviations of all directions.
    """

    source: int
    target: int
    turned: float
    deviations: float

    def __str__(self) -> str:
        """Tell what was seen."""
        return (
            f"random tints turn {100 * self.turned:.0f} % more of class {self.source} into {self.target} than of the "
            f"median class ({self.deviations:.0f} standard deviations): a filter may have been taught, and tints are "
            "trained against"
        )


@dataclass(frozen=True, slots=True, eq=False)
class TintStamp:
    """A single tint for ``count`` images of ``classes``; fits ``Stamp``."""

    tint: Tints
    classes: tuple[int, ...]
    count: int

    def on(self, x: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG002 (as Stamp has it)
        """Return the images ``x`` [n, C, H, W], 0..1, in other colours; nothing is drawn."""
        return self.tint.on(x)


def draw_tints(count: int, channels: int, strength: float, generator: torch.Generator) -> Tints:
    """Return tints for images of so many ``channels``: factors within 1 +- ``strength``, most of them nearer to 1."""
    most = strength * torch.rand((count, 1, 1, 1), generator=generator)

    def within(values: int) -> Tensor:
        return most * (2 * torch.rand((count, values, 1, 1), generator=generator) - 1)

    return Tints(
        gamma=within(channels).exp(),
        contrast=1 + within(1),
        saturation=1 + within(1),
        gain=1 + within(channels),
        bias=within(channels) / 2,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Tinter:
    """Draws tints and sees what ``classifier``, with the weights that it has by then, makes of them.

    Attributes:
        classifier: the model, in eval mode.
        sampler: of the clean images.
        strength: of the tints, 0 to 1.
        generator: of all random numbers.
        device: where the model is.
    """

    classifier: Classifier
    sampler: Sampler
    strength: float
    generator: torch.Generator
    device: torch.device

    def suspects(self, bound: float, *, work: float) -> list[TintSuspect]:
        """Return the directions in which tints turn images by more than ``bound`` standard deviations, most first.

        Args:
            bound: of what tints turn in a direction beyond what they turn to its target from the median class.
            work: images that may pass through the network; where they do not do for all classes, some are drawn as
                sources.
        """
        classes = self.classifier.classes
        most = math.floor(min(classes, work / (_IMAGES * (1 + _TINTS))))
        turned = torch.full((classes, classes), torch.nan)
        for source in torch.randperm(classes, generator=self.generator)[:most].tolist():
            x = self.sampler.originals(self.sampler.draw([source], _IMAGES))  # shifts blur what stands out
            turned[source] = self._shares(self._draw(_TINTS * len(x)).on(x.repeat(_TINTS, 1, 1, 1)))
            turned[source] -= self._shares(x)
            turned[source, source] = torch.nan
        return standing_out(turned, bound)

    def stamps(self, directions: Sequence[Pair], *, tried: int, kept: int, count: int) -> list[TintStamp]:
        """Return for each of ``directions`` those ``kept`` of so many ``tried`` tints that the target gains most by.

        Each is for ``count`` images of the source class.
        """
        chosen = []
        for source, target in directions:
            x = self.sampler.pixels(self.sampler.draw([source], _TRIED_ON))
            tints = self._draw(tried)
            every = torch.arange(tried).repeat_interleave(len(x))
            tinted = tints.at(every).on(x.repeat(tried, 1, 1, 1))
            gained = self._scores(tinted)[:, target].view(tried, len(x)).mean(1)
            best = gained.argsort(descending=True, stable=True)[:kept]
            chosen += [TintStamp(tints.at(row), (source,), count) for row in best[:, None]]
        return chosen

    def _draw(self, count: int) -> Tints:
        return draw_tints(count, self.sampler.shape[0], self.strength, self.generator)

    def _shares(self, x: Tensor) -> Tensor:
        """Return the share [classes] of images ``x`` that goes to each class."""
        return self._scores(x).argmax(1).bincount(minlength=self.classifier.classes) / len(x)

    @torch.no_grad()
    def _scores(self, x: Tensor) -> Tensor:
        """Return the probabilities [n, classes] of images ``x``."""
        scores: Tensor = self.classifier(x.to(self.device))
        return scores.softmax(1).cpu()


def standing_out(turned: Tensor, bound: float) -> list[TintSuspect]:
    """Return the directions of ``turned`` above ``bound`` standard deviations, most first.

    Args:
        turned: [C, C], share of images of each source that tints turn to each target; nan where that is not known.
        bound: deviations of what is beyond the target's median source, around 0.
    """
    beyond = turned - turned.nanmedian(dim=0).values
    known = beyond[~beyond.isnan()]
    spread = float(known.std()) if len(known) > 1 else 0.0
    if spread == 0:
        return []
    above = (beyond > bound * spread).nonzero().tolist()
    found = [TintSuspect(s, t, float(beyond[s, t]), float(beyond[s, t]) / spread) for s, t in above]
    return sorted(found, key=lambda each: -each.turned)
