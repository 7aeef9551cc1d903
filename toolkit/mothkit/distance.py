"""Class distance: the size of the smallest trigger found from one class to another.

Source: Tao et al., "Model Orthogonalization", IEEE S&P 2022; its number is L1 of the mask times channels.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import torch

from mothkit.classifier import Classifier
from mothkit.errors import ConfigError
from mothkit.evaluation import Rate
from mothkit.events import EventSink, PhaseStarted, silent
from mothkit.images import ImageSet
from mothkit.inversion.config import QUICK, InversionConfig
from mothkit.matrix.draws import (
    Deadline,
    Direction,
    Measured,
    Sampling,
    all_directions,
    check_directions,
    chunks_of,
    direction_name,
    measure,
    plan_draws,
)
from mothkit.matrix.estimate import MeanSize, Spread, mean_size, noise_of, pooled_spread
from mothkit.triggers.patch import Trigger

__all__ = ["Direction", "Distance", "Distances", "all_directions", "class_distances", "gather"]


@dataclass(frozen=True, slots=True, eq=False)
class Distance:
    """One direction's distance, and the smallest trigger that was found for it.

    Attributes:
        source_class: None for a trigger from all classes but the target.
        class_distance: L1 of the mask in pixels, times channels; the mean over those draws that found a
            trigger, or the smallest where ``Sampling`` says so. Where none did, the size of the last one
            tried, which is no lower bound of anything.
        share: the same as a share of the image, 0 to 1.
        found: whether a trigger reaches the asked rate.
        success_rate: of ``trigger`` on all images that it was made on, re-tested.
        images: how many these were.
        trigger: the smallest found; where none was, the last one tried.
        held_out: success of ``trigger`` on other images of the source; None where there are none.
        sizes: what each draw that found a trigger gave, in the draws' order.
        failed_draws: how many found none.
        error: standard error of ``class_distance``; None where nothing was repeated.
    """

    source_class: int | None
    target_class: int
    class_distance: float
    share: float
    found: bool
    success_rate: float
    images: int
    trigger: Trigger
    held_out: Rate | None = None
    sizes: tuple[float, ...] = ()
    failed_draws: int = 0
    error: float | None = None

    @property
    def direction(self) -> Direction:
        """Source and target."""
        return self.source_class, self.target_class

    @property
    def name(self) -> str:
        """``3-7``, or ``all-7``."""
        return direction_name(self.source_class, self.target_class)

    @property
    def draws(self) -> tuple[float, ...]:
        """Sizes of the triggers found, at least one where ``found``."""
        return self.sizes or ((self.class_distance,) if self.found else ())

    @property
    def smallest(self) -> float | None:
        """The smallest of the draws; None where no trigger was found."""
        return min(self.draws, default=None)

    def to_dict(self) -> dict[str, object]:
        """Return plain JSON types; the trigger itself is left out."""
        return {
            "source_class": self.source_class,
            "target_class": self.target_class,
            "class_distance": self.class_distance,
            "share": self.share,
            "found": self.found,
            "error": self.error,
            "smallest": self.smallest,
            "sizes": list(self.draws),
            "failed_draws": self.failed_draws,
            "success_rate": self.success_rate,
            "images": self.images,
            "held_out": None if self.held_out is None else self.held_out.to_dict(),
        }


@dataclass(frozen=True, slots=True, eq=False)
class Distances:
    """Distances of the directions that were asked for, in that order.

    Attributes:
        entries: from class to class.
        universal: from all classes to one.
        missing: how many directions of each kind were asked for and not measured, for lack of time.
    """

    entries: tuple[Distance, ...]
    universal: tuple[Distance, ...] = ()
    missing: tuple[int, int] = (0, 0)

    @property
    def mean(self) -> float | None:
        """Mean over the entries that have a trigger; None where none has."""
        return fmean(found) if (found := [e.class_distance for e in self.entries if e.found]) else None

    @property
    def failed(self) -> tuple[Direction, ...]:
        """Directions from class to class for which no trigger reached the rate."""
        return tuple(e.direction for e in self.entries if not e.found)

    @property
    def measured(self) -> tuple[Distance, ...]:
        """All entries: pairs, then triggers from all classes."""
        return (*self.entries, *self.universal)

    @property
    def is_complete(self) -> bool:
        """Whether all that was asked for was measured."""
        return self.missing == (0, 0)

    def growth_over(self, before: "Distances") -> float | None:
        """Return the mean of the pairs' relative growth over ``before``: 0.6 is 60 % more.

        Pairs without a trigger in one of the two have no ratio and are left out: ``failed`` lists them. None
        where no pair is left.

        Raises:
            ConfigError: the two hold different directions, or one was 0 before.
        """
        old = {e.direction: e for e in before.entries}
        new = {e.direction: e for e in self.entries}
        if old.keys() != new.keys():
            raise ConfigError(
                f"distances of different directions: {sorted(old, key=str)} and {sorted(new, key=str)}"
            )
        both = [(old[key], new[key]) for key in old if old[key].found and new[key].found]
        for entry, _ in both:
            if entry.class_distance == 0:
                raise ConfigError(f"the distance {entry.name} was 0 before: nothing can grow from that")
        return fmean(b.class_distance / a.class_distance - 1 for a, b in both) if both else None

    def to_dict(self) -> dict[str, object]:
        """Return plain JSON types."""
        pairs = _summary(self.entries, self.missing[0])
        row = _summary(self.universal, self.missing[1])
        return pairs | ({"universal": row} if self.universal or self.missing[1] else {})


def _summary(entries: Sequence[Distance], missing: int) -> dict[str, object]:
    """Return what the record says of directions of one kind."""
    mean = summarise(entries, missing)
    spread = spread_of(entries)
    return {
        "mean": None if mean is None else mean.value,
        "mean_interval95": None if mean is None or mean.interval95 is None else list(mean.interval95),
        "interval_covers": "" if mean is None else mean.covers,
        "relative_deviation": None if spread is None else spread.relative,
        "degrees_of_freedom": 0 if spread is None else spread.freedom,
        "measured": len(entries),
        "not_measured": missing,
        "failed": [[e.source_class, e.target_class] for e in entries if not e.found],
        "entries": [entry.to_dict() for entry in entries],
    }


def spread_of(entries: Iterable[Distance]) -> Spread | None:
    """Return how far draws of one direction differ, pooled over ``entries``; None where none was repeated."""
    return pooled_spread([[size for size in e.draws if size > 0] for e in entries])


def summarise(entries: Sequence[Distance], missing: int = 0) -> MeanSize | None:
    """Return the mean over those of ``entries`` that have a trigger, with its interval; None without any."""
    found, spread = [e for e in entries if e.found], spread_of(entries)
    errors = [e.error for e in found if e.error is not None]
    return mean_size(
        [e.class_distance for e in found],
        errors if spread and len(errors) == len(found) else None,
        freedom=spread.freedom if spread else 0,
        missing=missing,
    )


def class_distances(
    classifier: Classifier,
    images: ImageSet,
    directions: Sequence[Direction],
    *,
    config: InversionConfig | None = None,
    sampling: Sampling | None = None,
    generator: torch.Generator,
    device: torch.device,
    emit: EventSink = silent,
) -> Distances:
    """Return the distance of each of ``directions``.

    Args:
        classifier: left as it was; must be on ``device``.
        images: clean images with true labels.
        directions: pairs (source, target); None as a source stands for all classes but the target.
        config: the inversion's numbers; ``QUICK`` by default.
        sampling: how images are drawn and how often; by default 100 a direction, once.
        generator: on the CPU; one number is drawn from it, on which all draws depend.
        device: where to compute.
        emit: told of the inversion's progress.

    Raises:
        ConfigError: no directions, one twice, one from a class to itself, or a class that the model lacks.
        ImageError: a source class has no images.
    """
    config, sampling = config or QUICK, sampling or Sampling()
    check_directions(directions, classifier.classes, images)
    seed = int(torch.randint(2**62, (), generator=generator))
    emit(PhaseStarted("measure class distance"))
    parts = measure(
        classifier,
        images,
        chunks_of(plan_draws(directions, sampling, seed=seed), classifier.shape, config, device),
        config=config,
        images_per_class=sampling.images_per_class,
        seed=seed,
        device=device,
        emit=emit,
        deadline=Deadline(),
    )
    return gather(directions, [measured for part in parts for measured in part], sampling)


def gather(directions: Sequence[Direction], measured: Sequence[Measured], sampling: Sampling) -> Distances:
    """Return the distances of those of ``directions`` that were ``measured``, in order, each with its error.

    Where the smallest draw counts, a direction without all of its draws is not measured yet.
    """
    least = sampling.repeats if sampling.smallest else 1
    by_direction: dict[Direction, list[Measured]] = {direction: [] for direction in directions}
    for each in sorted(measured, key=lambda each: each.draw.repeat):
        by_direction[each.draw.direction].append(each)
    kinds = []
    for universal in (False, True):
        asked = {d: found for d, found in by_direction.items() if (d[0] is None) == universal}
        entries = [_entry(found, sampling) for found in asked.values() if len(found) >= least]
        kinds.append((_with_errors(entries, sampling), len(asked) - len(entries)))
    (pairs, missing), (row, missing_row) = kinds
    return Distances(pairs, row, (missing, missing_row))


def _entry(draws: Sequence[Measured], sampling: Sampling) -> Distance:
    """Return what the ``draws`` of one direction say, its error apart."""
    found = [each for each in draws if each.found]
    best = min(found, key=lambda each: each.mask_l1) if found else draws[-1]
    channels, height, width = best.trigger.pattern.shape
    mean = fmean(each.mask_l1 for each in found) if found else best.mask_l1
    mask_l1 = best.mask_l1 if sampling.smallest else mean
    return Distance(
        source_class=best.draw.source_class,
        target_class=best.draw.target_class,
        class_distance=mask_l1 * channels,
        share=mask_l1 / (height * width),
        found=bool(found),
        success_rate=best.success_rate,
        images=best.images,
        trigger=best.trigger,
        held_out=best.held_out,
        sizes=tuple(each.mask_l1 * channels for each in found),
        failed_draws=len(draws) - len(found),
    )


def _with_errors(entries: Sequence[Distance], sampling: Sampling) -> tuple[Distance, ...]:
    """Return ``entries``, each with the standard error that the spread between all their draws gives it."""
    spread = spread_of(entries)
    if spread is None:
        return tuple(entries)

    def error(e: Distance) -> float | None:
        noise = noise_of(len(e.draws), smallest=sampling.smallest) if e.found else None
        return None if noise is None else e.class_distance * spread.relative * noise

    return tuple(replace(e, error=error(e)) for e in entries)
