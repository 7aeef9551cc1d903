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
        name: what it is called.
        bank: where each direction stands.
        scout: the warm-up's inversion of every direction.
        first: a round's first inversion; again: the others.
        goes_on: whether an inversion goes on from where the direction last had a trigger; else it starts at random,
            and what missed the rate is kept too.
        carry_cost: whether it starts at the cost at which the last one ended.
        stamped: on how many images of each source class it is stamped in a step.
        most_stamped: at most on so many in all.
        largest: share of the image, 0 to 1, that the mask of a stamped one may cover.
    """

    name: str
    bank: TriggerBank
    scout: InversionConfig
    first: InversionConfig
    again: InversionConfig
    goes_on: bool
    carry_cost: bool
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
        """Invert a trigger for each of ``directions``, and keep it.

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
            start=self.bank.start(directions) if self.goes_on else None,
            cost=self.bank.start_costs(directions, config.initial_cost) if self.carry_cost else None,
        )
        self.bank.keep(directions, found, missed=not self.goes_on)
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
        "pixels",
        bank,
        config.scout,
        config.inversion,
        config.refresh,
        goes_on=True,
        carry_cost=config.carry_cost,
        stamped=config.stamped,
        most_stamped=config.room,
        largest=config.largest_stamp,
    )


def of_patches(config: MothConfig, shape: Sequence[int]) -> Kind:
    """Return patches; each inversion starts at random, as one that goes on loses sight of what was taught.

    Args:
        config: one that is ``sized``.
        shape: channels, height and width of an image.
    """
    nothing = torch.zeros(1, 1 + shape[0], *shape[1:])  # that any would start from
    return Kind(
        "patches",
        TriggerBank(nothing),
        config.patch,
        config.patch,
        config.patch,
        goes_on=False,
        carry_cost=False,
        stamped=config.patch_stamped * config.stamped,
        most_stamped=config.room,
        largest=config.largest_stamp,
    )
