"""Triggers inverted on the weights as they are now, in as few forward passes as memory allows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mothkit.classifier import Classifier
from mothkit.events import Event, EventSink, StepDone, silent
from mothkit.hardening.training import Sampler
from mothkit.inversion.config import InversionConfig, InversionTask
from mothkit.inversion.engine import invert
from mothkit.inversion.found import Inverted, join

_POOL_VALUES = 320 * 2**20  # of images held at once for an inversion, 1.25 GiB of float32


@dataclass(frozen=True, slots=True, eq=False)
class Inverter:
    """Inverts triggers of ``classifier``, whatever its weights are by then, on images of a sampler.

    Attributes:
        classifier: the model.
        sampler: of the clean images.
        generator: of all random numbers.
        device: where the model is.
        augmented: whether images are augmented, as training has them, or as they are.
    """

    classifier: Classifier
    sampler: Sampler
    generator: torch.Generator
    device: torch.device
    augmented: bool = True

    def invert(
        self,
        drawn: Sequence[Tensor],
        targets: Sequence[int],
        config: InversionConfig,
        *,
        start: tuple[Tensor, Tensor] | None = None,
        cost: Tensor | None = None,
        emit: EventSink = silent,
    ) -> Inverted:
        """Return a trigger for each of K: all together, or in parts where the images would not fit into memory.

        Args:
            drawn: indices [n] of the images of each trigger.
            targets: its target class.
            config: steps and bounds.
            start: masks [K, 1, H, W] and patterns [K, C, H, W]; None for random ones.
            cost: [K] to start from; None for the config's.
            emit: told of the steps of all parts as one count.
        """
        parts = split([len(indices) for indices in drawn], _POOL_VALUES // math.prod(self.sampler.shape))
        found = []
        for number, rows in enumerate(parts):
            begin = None if start is None else (start[0][rows], start[1][rows])
            costs = None if cost is None else cost[rows]
            sink = _part_of(emit, number, len(parts))
            found.append(self._invert_part(drawn[rows], targets[rows], config, begin, costs, sink))
        return join(found)

    def _invert_part(
        self,
        drawn: Sequence[Tensor],
        targets: Sequence[int],
        config: InversionConfig,
        start: tuple[Tensor, Tensor] | None,
        cost: Tensor | None,
        emit: EventSink,
    ) -> Inverted:
        images = self.sampler.pixels if self.augmented else self.sampler.originals
        pool = images(torch.cat(list(drawn)))
        tasks, first = [], 0
        for indices, target in zip(drawn, targets, strict=True):
            tasks.append(InversionTask(torch.arange(first, first + len(indices)), target))
            first += len(indices)
        return invert(
            self.classifier,
            pool,
            tasks,
            config,
            generator=self.generator,
            device=self.device,
            start=start,
            cost=cost,
            emit=emit,
        )


def split(counts: Sequence[int], room: int) -> list[slice]:
    """Return consecutive parts of ``counts`` whose sums are at most ``room``; a larger count stands alone."""
    parts, first, total = [], 0, 0
    for index, count in enumerate(counts):
        if index > first and total + count > room:
            parts.append(slice(first, index))
            first, total = index, 0
        total += count
    return [*parts, slice(first, len(counts))]


def _part_of(emit: EventSink, number: int, parts: int) -> EventSink:
    """Return a sink that counts the steps of part ``number`` as some of the whole."""

    def tell(event: Event) -> None:
        if isinstance(event, StepDone):
            event = replace(event, step=number * event.total + event.step, total=parts * event.total)
        emit(event)

    return tell
