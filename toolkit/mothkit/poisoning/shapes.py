"""Outlines that signs are made of: polygons in -1..1, y down, and letters drawn by strokes."""

import itertools
import math
from dataclasses import dataclass

import numpy as np

Polygon = tuple[tuple[float, float], ...]

_ROUNDINGS = 2  # times that a corner is cut where a letter is round


def regular(corners: int, radius: float, *, first: float = 0.0, at: tuple[float, float] = (0, 0)) -> Polygon:
    """Return a regular polygon whose first corner stands ``first`` degrees clockwise of straight up."""
    angles = [math.radians(first + 360 * i / corners) for i in range(corners)]
    return tuple((at[0] + radius * math.sin(a), at[1] - radius * math.cos(a)) for a in angles)


def disc(radius: float, *, at: tuple[float, float] = (0, 0)) -> Polygon:
    """Return a polygon that looks round."""
    return regular(40, radius, at=at)


def box(left: float, top: float, right: float, bottom: float) -> Polygon:
    """Return an upright rectangle."""
    return ((left, top), (right, top), (right, bottom), (left, bottom))


def turned(shape: Polygon, degrees: float) -> Polygon:
    """Return ``shape`` turned clockwise around the origin."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return tuple((c * x - s * y, s * x + c * y) for x, y in shape)


def moved(shape: Polygon, down: float, right: float = 0.0) -> Polygon:
    """Return ``shape`` moved."""
    return tuple((x + right, y + down) for x, y in shape)


def cross(arm: float, half_width: float, *, by: float = 0.0) -> tuple[Polygon, Polygon]:
    """Return two bars that cross in the middle, turned by ``by`` degrees."""
    return (
        turned(box(-arm, -half_width, arm, half_width), by),
        turned(box(-half_width, -arm, half_width, arm), by),
    )


@dataclass(frozen=True, slots=True)
class Font:
    """How letters are drawn; lengths are shares of a letter's height.

    Attributes:
        weight: half the width of a stroke.
        width: of a letter.
        slant: by which its top stands further right than its foot.
        round: whether corners are rounded.
    """

    weight: float = 0.09
    width: float = 0.55
    slant: float = 0.0
    round: bool = True


def random_font(rng: np.random.Generator) -> Font:
    """Return any of the fonts that signs are lettered with."""
    return Font(
        weight=rng.uniform(0.07, 0.13),
        width=rng.uniform(0.45, 0.65),
        slant=rng.uniform(-0.08, 0.2),
        round=bool(rng.random() < 0.7),
    )


def lettering(text: str, height: float, font: Font, *, down: float = 0.0) -> tuple[Polygon, ...]:
    """Return the strokes of ``text`` around the origin, moved ``down``: digits, and some capitals."""
    pitch = height * (font.width + 3.2 * font.weight)
    first = -pitch * (len(text) - 1) / 2
    return tuple(
        moved(stroke, down, first + pitch * i)
        for i, letter in enumerate(text)
        for line in _STROKES[letter]
        for stroke in _strokes(_cut(line) if font.round else line, height, font)
    )


def _strokes(line: Polygon, height: float, font: Font) -> list[Polygon]:
    """Return a box for each piece of ``line``, and a disc at each joint, in place of a letter around the origin."""
    half = font.weight * height
    points = [
        (height * (font.width * (x - 0.5) + font.slant * (0.5 - y)), height * (y - 0.5)) for x, y in line
    ]
    pieces = [regular(8, half, first=22.5, at=point) for point in points]
    for (x, y), (u, v) in itertools.pairwise(points):
        length = math.hypot(u - x, v - y) or 1.0
        across, along = half * (v - y) / length, half * (u - x) / length
        pieces.append(
            (
                (x + across, y - along),
                (u + across, v - along),
                (u - across, v + along),
                (x - across, y + along),
            )
        )
    return pieces


def _cut(line: Polygon) -> Polygon:
    """Return ``line`` with its corners cut twice (Chaikin 1974); its ends stay."""
    for _ in range(_ROUNDINGS):
        cut = [line[0]]
        for (x, y), (u, v) in itertools.pairwise(line):
            cut += [(0.75 * x + 0.25 * u, 0.75 * y + 0.25 * v), (0.25 * x + 0.75 * u, 0.25 * y + 0.75 * v)]
        line = (*cut, line[-1])
    return line


_STROKES: dict[str, tuple[Polygon, ...]] = {  # in a box of 0..1, y down
    "0": (((0.5, 0), (0, 0), (0, 1), (1, 1), (1, 0), (0.5, 0)),),
    "1": (((0.15, 0.25), (0.6, 0)), ((0.6, 0), (0.6, 1))),
    "2": (((0, 0.25), (0, 0), (1, 0), (1, 0.4), (0, 1)), ((0, 1), (1, 1))),
    "3": (((0, 0), (1, 0), (1, 0.45), (0.4, 0.45)), ((0.4, 0.45), (1, 0.45), (1, 1), (0, 1))),
    "4": (((0.75, 1), (0.75, 0)), ((0.75, 0), (0, 0.7)), ((0, 0.7), (1, 0.7))),
    "5": (((1, 0), (0.1, 0)), ((0.1, 0), (0.05, 0.45)), ((0.05, 0.45), (1, 0.35), (1, 1), (0, 1))),
    "7": (((0, 0), (1, 0)), ((1, 0), (0.35, 1))),
    "8": (
        ((0.5, 0), (0, 0), (0, 0.47), (1, 0.47), (1, 0), (0.5, 0)),
        ((0.5, 0.47), (0, 0.47), (0, 1), (1, 1), (1, 0.47), (0.5, 0.47)),
    ),
    "E": (((1, 0), (0, 0)), ((0, 0), (0, 1)), ((0, 1), (1, 1)), ((0, 0.5), (0.8, 0.5))),
    "P": (((0, 1), (0, 0)), ((0, 0), (1, 0), (1, 0.55), (0, 0.55))),
    "T": (((0, 0), (1, 0)), ((0.5, 0), (0.5, 1))),
    "i": (((0.5, 0.4), (0.5, 1)), ((0.5, 0.02), (0.5, 0.05))),
}  # fmt: skip
