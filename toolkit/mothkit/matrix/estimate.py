"""How sure sizes and their mean are: the spread between repeated draws, and an interval for the mean."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, variance

_Z = 1.959963984540054  # the normal's 97.5 % point
_FEW = {1: 12.7062, 2: 4.3027, 3: 3.1824, 4: 2.7764}  # Student's t for so few degrees of freedom


@dataclass(frozen=True, slots=True)
class Spread:
    """Standard deviation between draws of one direction, as a share of its size; and its degrees of freedom."""

    relative: float
    freedom: int


def pooled_spread(sizes: Sequence[Sequence[float]]) -> Spread | None:
    """Return the spread within each of ``sizes``, pooled over them; None where none has two draws.

    It is the deviation of the logarithms: draws of large and of small distances scatter alike on that scale.

    Args:
        sizes: for each direction the sizes of its draws that found a trigger, all above 0.
    """
    logs = [[math.log(size) for size in draws] for draws in sizes if len(draws) > 1]
    freedom = sum(len(draws) - 1 for draws in logs)
    if freedom == 0:
        return None
    squares = sum((value - fmean(draws)) ** 2 for draws in logs for value in draws)
    return Spread(math.sqrt(squares / freedom), freedom)


@dataclass(frozen=True, slots=True)
class MeanSize:
    """Mean size over the directions that have a trigger.

    Attributes:
        value: the mean.
        interval95: lower and upper end, or None where nothing says how sure it is.
        covers: the errors that the interval holds: ``draws``, ``draws and pairs``, or nothing.
    """

    value: float
    interval95: tuple[float, float] | None
    covers: str


def noise_of(draws: int, *, smallest: bool = False) -> float:
    """Return the deviation of the mean of ``draws`` draws, or of the smallest, in deviations of a single one."""
    if not smallest:
        return 1 / math.sqrt(draws)
    normal, width = NormalDist(), 0.01
    points = [width * k for k in range(-800, 801)]
    weights = [draws * normal.pdf(x) * (1 - normal.cdf(x)) ** (draws - 1) * width for x in points]
    middle = sum(weight * x for weight, x in zip(weights, points, strict=True))
    return math.sqrt(sum(weight * (x - middle) ** 2 for weight, x in zip(weights, points, strict=True)))


def mean_size(
    sizes: Sequence[float], errors: Sequence[float] | None, *, freedom: int, missing: int
) -> MeanSize | None:
    """Return the mean of ``sizes`` with a 95 % interval; None without any.

    Where every direction asked for was measured, only the draws of images and starts make the mean unsure.
    Where some are ``missing`` because the run was stopped, the measured ones are a random sample of them, and
    the interval is for the mean over all: it then holds both errors, with the correction for a finite number
    of directions.

    Args:
        sizes: of the directions that have a trigger.
        errors: standard error of each of them, if it is known.
        freedom: degrees of freedom of what these errors were taken from.
        missing: how many directions that were asked for were not measured.
    """
    if not sizes:
        return None
    count, value = len(sizes), fmean(sizes)
    of_draws = None if errors is None else sum(error**2 for error in errors) / count**2
    if missing == 0:
        if of_draws is None:
            return MeanSize(value, None, "")
        return MeanSize(value, _interval(value, of_draws, freedom), "draws")
    if count < 2:
        return MeanSize(value, None, "")
    measured = count / (count + missing)
    of_all = variance(sizes, value) / count  # holds the draws' error too
    if of_draws is not None:
        of_all = (1 - measured) * of_all + measured * of_draws
    return MeanSize(value, _interval(value, of_all, count - 1), "draws and pairs")


def _interval(value: float, squared_error: float, freedom: int) -> tuple[float, float]:
    half = student(freedom) * math.sqrt(squared_error)
    return max(0.0, value - half), value + half


def student(freedom: int) -> float:
    """Return the 97.5 % point of Student's t, to a thousandth (expansion of Fisher and Cornish, 1960)."""
    if freedom in _FEW:
        return _FEW[freedom]
    z, n = _Z, freedom
    return (
        z
        + (z**3 + z) / (4 * n)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3)
    )
