"""The kinds of triggers that a run inverts: of single pixels, as the paper's, and patches that may lie anywhere.

The smallest trigger of a model consists of a few scattered pixels, and what is trained against these says little of a
patch, which is larger and was taught at many places. So some rounds invert triggers of squares of one colour instead,
each image with its own shift, and stamp them shifted too. Every round stamps the newest of both (ours; docs/moth.md,
*Patches*).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mothkit.hardening.bank import Direction, TriggerBank, sources_of
from mothkit.hardening.inverting import Inverter
from mothkit.hardening.profiles import MothConfig
from mothkit.hardening.stamping import usable_stamps
from mothkit.hardening.training import Stamp
from mothkit.inversion.config import InversionConfig
from mothkit.inversion.found import Inverted
from mothkit.triggers.patch import Trigger


@dataclass(slots=True, eq=False)
class Kind:
    """One kind of trigger.

    Attributes:
        bank: where each direction stands.
        first: a round's first inversion; again: the others.
        carry_cost: whether an inversion starts at the cost at which the direction's last one ended.
        keep_missed: whether one that missed the rate is gone on from too.
        stamped: on how many images of each source class it is stamped in a step.
        most_stamped: at most on so many in all.
        largest: share of the image, 0 to 1, that the mask of a stamped one may cover.
    """

    bank: TriggerBank
    first: InversionConfig
    again: InversionConfig
    carry_cost: bool
    keep_missed: bool
    stamped: int
    most_stamped: int
    largest: float

    def invert(
        self,
        inverter: Inverter,
        directions: Sequence[Direction],
        drawn: Sequence[Tensor],
        *,
        again: bool,
    ) -> Inverted:
        """Invert a trigger for each of ``directions`` from where it stands, and keep it as the next start.

        Args:
            inverter: of the model.
            directions: K of them.
            drawn: of each, the images to invert on.
            again: whether this round has inverted them before.
        """
        config = self.again if again else self.first
        found = inverter.invert(
            drawn,
            [target for _, target in directions],
            config,
            start=self.bank.start(directions),
            cost=self.bank.start_costs(directions, config.initial_cost) if self.carry_cost else None,
        )
        self.bank.keep(directions, found, missed=self.keep_missed)
        return found

    def stamps(self, triggers: Mapping[Direction, Trigger], classes: int) -> list[Stamp]:
        """Return where ``triggers`` of this kind are stamped in a step, for a model of so many ``classes``."""
        aims = []
        for direction, trigger in triggers.items():
            sources = sources_of(direction, classes)
            aims.append((trigger, sources, min(self.stamped * len(sources), self.most_stamped)))
        return usable_stamps(aims, largest=self.largest, roam=self.first.roam)

    def state(self) -> dict[str, Any]:
        """Return the bank as tensors and plain values."""
        return self.bank.state()

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from ``state``."""
        self.bank = TriggerBank(**state)


def of_pixels(config: MothConfig, bank: TriggerBank) -> Kind:
    """Return the paper's triggers, which start from those in ``bank``."""
    return Kind(
        bank,
        config.inversion,
        config.refresh,
        carry_cost=config.carry_cost,
        keep_missed=False,
        stamped=config.stamped,
        most_stamped=config.room,
        largest=config.largest_stamp,
    )


def of_patches(config: MothConfig, classes: int, shape: Sequence[int], generator: torch.Generator) -> Kind:
    """Return patches, which start at random: a few steps do not find one, so that each round goes on where it stood.

    Args:
        config: one that is ``sized``.
        classes: of the model.
        shape: channels, height and width of an image.
        generator: on the CPU.
    """
    start = torch.rand((classes, 1 + shape[0], *shape[1:]), generator=generator)
    start[:, 0] *= config.patch.start_mask
    return Kind(
        TriggerBank(start),
        config.patch,
        config.patch,
        carry_cost=True,
        keep_missed=True,
        stamped=config.patch_stamped * config.stamped,
        most_stamped=config.room,
        largest=config.largest_stamp,
    )
