"""Suspects: directions in which a patch, wherever it lies, turns a class far more easily than in any other.

The smallest trigger of a model consists of a few scattered pixels, and what is trained against these says little of a
patch that someone taught the model: it is larger, of one colour, and works at many places. So the warm-up looks at
every direction by such patches, too. In a model that was taught nothing they are all about equally large; a taught one
stands out, and is trained against in every round (ours; docs/moth.md, *Patches*).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor

from mothkit.hardening.pairs import Pair

T = TypeVar("T")

_NEAR = 0.8  # of the median


@dataclass(frozen=True, slots=True)
class Suspect:
    """A direction whose patch stands out.

    Attributes:
        source, target: its classes.
        mask_l1: size of the patch, in pixels.
        median_l1: that of the median direction.
    """

    source: int
    target: int
    mask_l1: float
    median_l1: float

    def __str__(self) -> str:
        """Tell what was seen."""
        return (
            f"a patch of {self.mask_l1:.0f} pixels turns class {self.source} into {self.target}, where it takes "
            f"{self.median_l1:.0f} in the median: a backdoor may do that, and patches are trained against"
        )


def look_again(sizes: Tensor, median: float) -> list[int]:
    """Return which of ``sizes`` [K] are near enough to standing out that another start may show it."""
    rows: list[int] = (sizes < _NEAR * median).nonzero()[:, 0].tolist()
    return rows


def suspects(directions: Sequence[Pair], sizes: Tensor, median: float, *, share: float) -> list[Suspect]:
    """Return the ``directions`` whose patch is smaller than this ``share`` of the median, smallest first.

    Args:
        directions: K of them, source and target class.
        sizes: [K], of the patch of each, in pixels; nan where none was found.
        median: of the sizes that were found.
        share: in 0 to 1.
    """
    known = zip(directions, sizes.tolist(), strict=True)
    small = [Suspect(s, t, size, median) for (s, t), size in known if size < share * median]
    return sorted(small, key=lambda each: each.mask_l1)


def in_their_turn(these: Sequence[T], turn: int, most: int) -> list[T]:
    """Return ``most`` of ``these`` for this ``turn``, or all of fewer; each comes as often as any other."""
    return [these[(turn * most + k) % len(these)] for k in range(min(most, len(these)))]
