"""Which inverted triggers are stamped on the images of a training step."""

from collections.abc import Iterable

from mothkit.hardening.training import Stamp
from mothkit.inversion.found import Inverted


def usable_stamps(
    found: Inverted, aims: Iterable[tuple[int, tuple[int, ...], int]], *, largest: float
) -> list[Stamp]:
    """Return what to stamp: triggers that leave most of an image alone.

    Also those that missed the asked rate: they still work on some images.

    Args:
        found: inverted triggers.
        aims: which of them is stamped on images of which classes, and on how many.
        largest: share of the image, 0 to 1, that a mask may cover at most.
    """
    limit = largest * found.masks[0].numel()
    return [
        Stamp(found.masks[row], found.patterns[row], classes, count)
        for row, classes, count in aims
        if float(found.mask_l1[row]) <= limit
    ]
