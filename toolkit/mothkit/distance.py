"""Class distance: the size of the smallest trigger found from one class to another.

Source: Tao et al., "Model Orthogonalization", IEEE S&P 2022; its number is L1 of the mask times channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mothkit.classifier import Classifier
from mothkit.errors import ConfigError, ImageError
from mothkit.events import EventSink, PhaseStarted, silent
from mothkit.images import ImageSet
from mothkit.inversion.config import InversionConfig, InversionTask
from mothkit.inversion.engine import invert
from mothkit.triggers.patch import Trigger

Direction = tuple[int, int]
"""Source class, target class."""


@dataclass(frozen=True, slots=True, eq=False)
class Distance:
    """One direction's smallest trigger.

    Attributes:
        class_distance: L1 of the mask in pixels, times channels.
        share: L1 of the mask as a share of the image, 0 to 1.
        found: whether the trigger reaches the asked rate; where not, ``class_distance`` is the size of
            the last one tried and no lower bound of anything.
        success_rate: of the trigger on all images that it was made on, re-tested.
        images: how many these were.
    """

    source_class: int
    target_class: int
    class_distance: float
    share: float
    found: bool
    success_rate: float
    images: int
    trigger: Trigger

    def to_dict(self) -> dict[str, object]:
        """Return plain JSON types; the trigger itself is left out."""
        return {name: getattr(self, name) for name in self.__slots__ if name != "trigger"}


@dataclass(frozen=True, slots=True, eq=False)
class Distances:
    """Distances of the directions that were asked for, in that order."""

    entries: tuple[Distance, ...]

    @property
    def mean(self) -> float:
        """Mean over all entries, those without a trigger counted with their last size."""
        return sum(entry.class_distance for entry in self.entries) / len(self.entries)

    @property
    def failed(self) -> tuple[Direction, ...]:
        """Directions for which no trigger reached the rate."""
        return tuple((e.source_class, e.target_class) for e in self.entries if not e.found)

    def growth_over(self, before: "Distances") -> float:
        """Return the mean of the pairs' relative growth over ``before``: 0.6 is 60 % more.

        Raises:
            ConfigError: the two hold different directions, or one was 0 before.
        """
        old = {(e.source_class, e.target_class): e.class_distance for e in before.entries}
        new = {(e.source_class, e.target_class): e.class_distance for e in self.entries}
        if old.keys() != new.keys():
            raise ConfigError(f"distances of different directions: {sorted(old)} and {sorted(new)}")
        for (source, target), size in old.items():
            if size == 0:
                raise ConfigError(f"the distance {source}-{target} was 0 before: nothing can grow from that")
        return sum(new[key] / old[key] - 1 for key in old) / len(old)

    def to_dict(self) -> dict[str, object]:
        """Return plain JSON types."""
        return {
            "mean": self.mean,
            "failed": [list(direction) for direction in self.failed],
            "entries": [entry.to_dict() for entry in self.entries],
        }


def all_directions(classes: int) -> list[Direction]:
    """Return every ordered pair of different classes."""
    return [(s, t) for s in range(classes) for t in range(classes) if s != t]


def class_distances(
    classifier: Classifier,
    images: ImageSet,
    directions: Sequence[Direction],
    *,
    config: InversionConfig | None = None,
    images_per_class: int = 100,
    generator: torch.Generator,
    device: torch.device,
    emit: EventSink = silent,
) -> Distances:
    """Return the distance of each of ``directions``.

    Args:
        classifier: left as it was; must be on ``device``.
        images: clean images with true labels.
        directions: pairs (source, target).
        config: the inversion's numbers; the paper's by default.
        images_per_class: at most so many images of a source class, drawn once for all its directions.
        generator: on the CPU.
        device: where to compute.
        emit: told of the inversion's progress.

    Raises:
        ConfigError: no directions, one twice, one from a class to itself, a class that the model lacks, or no
            images to be used.
        ImageError: a source class has no images.
    """
    config = config or InversionConfig()
    _check(directions, classifier.classes)
    if images_per_class < 1:
        raise ConfigError(f"images_per_class is {images_per_class}, not at least 1")
    drawn = {}
    for source in sorted({source for source, _ in directions}):
        members = torch.nonzero(images.labels == source)[:, 0]
        if len(members) == 0:
            raise ImageError(
                f"{images.origin}: has no image of class {source}, from which a distance was asked for"
            )
        drawn[source] = members[torch.randperm(len(members), generator=generator)[:images_per_class]]
    offsets, total = {}, 0
    for source, members in drawn.items():
        offsets[source] = torch.arange(total, total + len(members))
        total += len(members)
    emit(PhaseStarted("measure class distance"))
    inverted = invert(
        classifier,
        images.pixels(torch.cat(list(drawn.values()))),
        [InversionTask(offsets[source], target) for source, target in directions],
        config,
        generator=generator,
        device=device,
        emit=emit,
    )
    channels, height, width = classifier.shape
    return Distances(
        tuple(
            Distance(
                source_class=source,
                target_class=target,
                class_distance=float(inverted.mask_l1[k]) * channels,
                share=float(inverted.mask_l1[k]) / (height * width),
                found=bool(inverted.found[k]),
                success_rate=_share(float(inverted.success_rate[k]), len(drawn[source])),
                images=len(drawn[source]),
                trigger=inverted.trigger(k),
            )
            for k, (source, target) in enumerate(directions)
        )
    )


def _share(rate: float, count: int) -> float:
    """Return ``rate`` of ``count`` images as the fraction that it is; in float32 nine of ten are below 0.9."""
    return round(rate * count) / count


def _check(directions: Sequence[Direction], classes: int) -> None:
    if not directions:
        raise ConfigError("no pairs of classes to measure")
    seen: set[Direction] = set()
    for source, target in directions:
        if (source, target) in seen:
            raise ConfigError(f"the pair {source}-{target} is asked for twice; name it once")
        seen.add((source, target))
        if source == target or not (0 <= source < classes and 0 <= target < classes):
            raise ConfigError(
                f"the pair {source}-{target} is not two different classes of 0 to {classes - 1}"
            )
