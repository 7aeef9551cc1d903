"""Which inverted triggers are stamped on the images of a training step."""

from collections.abc import Iterable, Sequence

from mothkit.hardening.training import Stamp, TriggerStamp
from mothkit.triggers.patch import Trigger

Aim = tuple[Trigger, tuple[int, ...], int]
"""A trigger, the classes on whose images it is stamped, and on how many of them."""


def usable_stamps(aims: Iterable[Aim], *, largest: float, roam: int = 0) -> list[TriggerStamp]:
    """Return what to stamp: triggers that leave most of an image alone.

    Also those that missed the asked rate: they still work on some images.

    Args:
        aims: what each trigger is to do.
        largest: share of the image, 0 to 1, that a mask may cover at most.
        roam: how far from its place, in pixels, a trigger may lie on an image.
    """
    return [
        TriggerStamp(trigger.mask, trigger.pattern, classes, count, roam)
        for trigger, classes, count in aims
        if trigger.mask_l1 <= largest * trigger.mask.numel()
    ]


def in_turn(stamps: Sequence[Stamp], step: int, room: int) -> Sequence[Stamp]:
    """Return the ``stamps`` of training step ``step``: all, or where ``room`` images do not hold them, the next ones.

    Over the steps each comes as often as any other.
    """
    if sum(stamp.count for stamp in stamps) <= room:
        return stamps
    fit = max(1, room // max(stamp.count for stamp in stamps))
    return [stamps[(step * fit + k) % len(stamps)] for k in range(fit)]
