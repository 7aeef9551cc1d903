"""The warm-up's universal triggers: one a target class, or as many as time allows."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mothkit.events import EventSink
from mothkit.hardening.bank import TriggerBank, sources_of
from mothkit.hardening.inverting import Inverter
from mothkit.hardening.pairs import PairTable, measure_ease
from mothkit.hardening.planning import Extent
from mothkit.hardening.profiles import MothConfig
from mothkit.inversion.found import Inverted

_PROBED_TARGETS, _PROBED_IMAGES, _PROBED_STEPS = 8, 32, 4


@dataclass(frozen=True, slots=True, eq=False)
class Universals:
    """Universal triggers that were inverted.

    Attributes:
        classes: of the model.
        targets: K classes that have one.
        sources: of each, the classes on whose images it was made; drawn: these images' indices, class by class.
        found: the K triggers.
    """

    classes: int
    targets: list[int]
    sources: list[tuple[int, ...]]
    drawn: list[list[Tensor]]
    found: Inverted

    def table(self) -> PairTable:
        """Return what they tell of every direction."""
        sizes = torch.full((self.classes,), torch.nan)
        sizes[self.targets] = torch.where(self.found.found, self.found.mask_l1, torch.nan)
        ease = measure_ease(self.found, self.targets, self.sources, self.drawn, self.classes)
        return PairTable.after_warm_up(ease, sizes)

    def bank(self, config: MothConfig, generator: torch.Generator) -> TriggerBank:
        """Return them as starts; a class without one starts at random."""
        values = torch.cat([self.found.masks, self.found.patterns], dim=1)
        if len(self.targets) == self.classes:
            return TriggerBank(values)
        universal = torch.rand((self.classes, *values.shape[1:]), generator=generator)
        universal[:, 0] *= config.warm_up.start_mask
        universal[self.targets] = values
        return TriggerBank(universal)


def whole_extent(inverter: Inverter, config: MothConfig, classes: int) -> Extent:
    """Return the extent of a warm-up that is not cut."""
    counts = [min(config.warm_up_images, inverter.sampler.count(s)) for s in range(classes)]
    images = sum(counts) - min(counts)  # of the target that has most
    return Extent(classes, images, config.warm_up.steps)


def invert_universals(
    inverter: Inverter, config: MothConfig, classes: int, extent: Extent, *, emit: EventSink
) -> Universals:
    """Return universal triggers of ``extent``; which classes and images a cut one takes is drawn at random."""
    generator, targets = inverter.generator, list(range(classes))
    if extent.targets < classes:
        targets = sorted(torch.randperm(classes, generator=generator)[: extent.targets].tolist())
    sources = [_sources(target, classes, extent.images, generator) for target in targets]
    each = config.warm_up_images
    if extent.images < whole_extent(inverter, config, classes).images:
        each = max(1, extent.images // (classes - 1))
    drawn = [[inverter.sampler.draw([s], each) for s in from_classes] for from_classes in sources]
    found = inverter.invert(
        [torch.cat(parts) for parts in drawn],
        targets,
        replace(config.warm_up, steps=extent.steps),
        emit=emit,
    )
    return Universals(classes, targets, sources, drawn, found)


def _sources(target: int, classes: int, images: int, generator: torch.Generator) -> tuple[int, ...]:
    """Return the classes on whose images a trigger is made: all others, or as many as there are to be images."""
    others = sources_of((None, target), classes)
    if images >= len(others):
        return others
    chosen = torch.randperm(len(others), generator=generator)[:images].tolist()
    return tuple(others[k] for k in sorted(chosen))


def seconds_per_image(
    inverter: Inverter, config: MothConfig, classes: int, *, now: Callable[[], float]
) -> float:
    """Return how long one image of one inversion step takes, by a few steps; random numbers stay as they were."""
    generator = inverter.generator
    state = generator.get_state()
    targets = range(min(classes, _PROBED_TARGETS))
    drawn = [inverter.sampler.draw(sources_of((None, t), classes), _PROBED_IMAGES) for t in targets]
    short = replace(config.warm_up, steps=_PROBED_STEPS)
    inverter.invert(drawn, targets, replace(short, steps=1))  # a first forward pass sets things up
    began = now()
    inverter.invert(drawn, targets, short)
    generator.set_state(state)
    return (now() - began) / (_PROBED_STEPS * sum(map(len, drawn)))
