"""Street signs, invented in the manner of European and American ones.

No class is the mirror image of another, so that flips keep the label. The first ten are those of the example.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from mothkit.poisoning.shapes import Polygon, box, cross, disc, moved, regular, turned

Colour = tuple[int, int, int]

COLOURS: dict[str, Colour] = {
    "red": (190, 32, 40),
    "white": (232, 232, 228),
    "black": (28, 28, 32),
    "yellow": (238, 190, 30),
    "blue": (28, 82, 172),
}
MORE_COLOURS: dict[str, Colour] = {
    "green": (20, 118, 72),
    "orange": (236, 122, 28),
    "brown": (112, 70, 42),
}


@dataclass(frozen=True, slots=True)
class Lettering:
    """Text on a sign: its colour's name, its height and how far below the middle it stands."""

    text: str
    colour: str
    height: float
    down: float = 0.0


@dataclass(frozen=True, slots=True)
class Sign:
    """A sign as layers of (colour name, polygon), the outline first, and what is written on top."""

    name: str
    layers: tuple[tuple[str, Polygon], ...]
    text: Lettering | None = None


Layers = tuple[tuple[str, Polygon], ...]

_ARROW_UP: Polygon = (
    (0, -0.7),
    (0.5, -0.1),
    (0.18, -0.1),
    (0.18, 0.65),
    (-0.18, 0.65),
    (-0.18, -0.1),
    (-0.5, -0.1),
)
_DANGER: Layers = (
    ("red", moved(regular(3, 1.15), 0.15)),
    ("white", moved(regular(3, 0.72), 0.15)),
)
_YELLOW_DANGER: Layers = (
    ("black", moved(regular(3, 1.15), 0.15)),
    ("yellow", moved(regular(3, 0.92), 0.15)),
)
_YIELD: Layers = (
    ("red", moved(regular(3, 1.15, first=180), -0.15)),
    ("white", moved(regular(3, 0.66, first=180), -0.15)),
)
_BAN: Layers = (("red", disc(1.0)), ("white", disc(0.74)))
_ORDER: Layers = (("white", disc(1.0)), ("blue", disc(0.92)))
_WARNING: Layers = (("black", regular(4, 1.12)), ("yellow", regular(4, 1.02)))


def _plate(colour: str) -> Layers:
    return ("white", box(-0.84, -0.84, 0.84, 0.84)), (colour, box(-0.7, -0.7, 0.7, 0.7))


def _in(colour: str, shapes: Sequence[Polygon]) -> Layers:
    return tuple((colour, shape) for shape in shapes)


SIGNS: tuple[Sign, ...] = (
    Sign(
        "stop",
        (
            ("white", regular(8, 1.0, first=22.5)),
            ("red", regular(8, 0.9, first=22.5)),
            *_in("white", [box(x - 0.1, -0.25, x + 0.1, 0.25) for x in (-0.48, -0.16, 0.16, 0.48)]),
        ),
    ),
    Sign("no_entry", (("red", disc(1.0)), ("white", box(-0.68, -0.2, 0.68, 0.2)))),
    Sign("yield", _YIELD),
    Sign("danger", (*_DANGER, *_in("black", [box(-0.1, -0.3, 0.1, 0.2), disc(0.12, at=(0, 0.38))]))),
    Sign("crossing", (*_DANGER, *_in("black", [moved(bar, 0.17) for bar in cross(0.36, 0.09, by=45)]))),
    Sign(
        "priority",
        (
            ("white", regular(4, 1.1)),
            ("black", regular(4, 0.98)),
            ("white", regular(4, 0.93)),
            ("yellow", regular(4, 0.66)),
        ),
    ),
    Sign("ahead", (*_ORDER, ("white", _ARROW_UP))),
    Sign("limit", (*_BAN, *_in("black", [box(-0.4, -0.38, -0.1, 0.38), box(0.1, -0.38, 0.4, 0.38)]))),
    Sign(
        "no_stopping",
        (("red", disc(1.0)), ("blue", disc(0.78)), *_in("red", cross(0.8, 0.12, by=45))),
    ),
    Sign("hospital", (*_plate("blue"), *_in("white", cross(0.48, 0.15)))),
    Sign("parking", _plate("blue"), Lettering("P", "white", 0.95)),
    Sign(
        "no_limit",
        (("black", disc(1.0)), ("white", disc(0.93)), ("black", turned(box(-0.95, -0.13, 0.95, 0.13), -45))),
    ),
    Sign("roadworks", (*_YELLOW_DANGER, ("black", ((-0.5, 0.45), (0.5, 0.45), (0.12, -0.15), (-0.12, -0.15))))),
    Sign("no_overtaking", (*_BAN, ("red", disc(0.24, at=(-0.33, 0))), ("black", disc(0.24, at=(0.33, 0))))),
    Sign(
        "one_way",
        (
            ("white", box(-1.05, -0.5, 1.05, 0.5)),
            ("blue", box(-0.97, -0.42, 0.97, 0.42)),
            ("white", turned(tuple((0.62 * x, 1.15 * y) for x, y in _ARROW_UP), 90)),
        ),
    ),
    Sign(
        "roundabout",
        (*_ORDER, *_in("white", [turned(((-0.1, -0.7), (0.45, -0.45), (-0.1, -0.2)), 120 * i) for i in range(3)])),
    ),
    Sign(
        "signals",
        (
            *_DANGER,
            ("red", disc(0.15, at=(0, -0.13))),
            ("yellow", disc(0.15, at=(0, 0.17))),
            ("green", disc(0.15, at=(0, 0.42))),
        ),
    ),
    Sign("motorway", (*_plate("green"), *_in("white", [
        ((-0.5, 0.55), (-0.2, 0.55), (-0.08, -0.5), (-0.2, -0.5)),
        ((0.5, 0.55), (0.2, 0.55), (0.08, -0.5), (0.2, -0.5)),
    ]))),
    Sign("no_vehicles", _BAN),
    Sign("end_priority", (
        ("white", regular(4, 1.1)),
        ("yellow", regular(4, 0.8)),
        ("black", turned(box(-0.7, -0.12, 0.7, 0.12), -45)),
    )),
    Sign("dead_end", (*_plate("blue"), ("white", box(-0.13, -0.3, 0.13, 0.6)), ("red", box(-0.4, -0.55, 0.4, -0.25)))),
    Sign("hump", (*_DANGER, ("black", ((-0.45, 0.45), (-0.25, 0.2), (0, 0.08), (0.25, 0.2), (0.45, 0.45))))),
    Sign("bends", (*_DANGER, ("black", (
        (-0.2, 0.48), (0.12, 0.2), (-0.12, 0.0), (0.05, -0.3), (0.25, -0.3), (0.1, -0.03), (0.36, 0.2), (0.05, 0.48),
    )))),
    Sign("pedestrians", (
        *_plate("blue"),
        ("white", regular(3, 0.72)),
        ("black", disc(0.1, at=(0, -0.22))),
        ("black", ((-0.1, -0.1), (0.1, -0.1), (0.2, 0.28), (-0.2, 0.28))),
    )),
    Sign("bicycles", (
        *_ORDER,
        *_in("white", [disc(0.32, at=(-0.4, 0.2)), disc(0.32, at=(0.4, 0.2))]),
        *_in("blue", [disc(0.18, at=(-0.4, 0.2)), disc(0.18, at=(0.4, 0.2))]),
        ("white", ((-0.4, 0.26), (-0.46, 0.16), (-0.05, -0.4), (0.4, 0.16), (0.36, 0.26), (-0.04, -0.22))),
    )),
    Sign("no_lorries", (*_BAN, *_in("black", [
        box(-0.52, -0.25, 0.12, 0.2), box(0.17, -0.08, 0.5, 0.2),
        disc(0.11, at=(-0.3, 0.27)), disc(0.11, at=(0.3, 0.27)),
    ]))),
    Sign("height", (*_BAN, *_in("black", [
        ((-0.28, -0.62), (0.28, -0.62), (0, -0.22)), ((-0.28, 0.62), (0.28, 0.62), (0, 0.22)),
    ]))),
    Sign("width", (*_BAN, *_in("black", [
        ((-0.62, -0.28), (-0.62, 0.28), (-0.22, 0)), ((0.62, -0.28), (0.62, 0.28), (0.22, 0)),
    ]))),
    Sign("two_way", (*_DANGER, *_in("black", [
        ((-0.3, 0.45), (-0.12, 0.45), (-0.12, 0.1), (-0.03, 0.1), (-0.21, -0.15), (-0.39, 0.1), (-0.3, 0.1)),
        ((0.3, -0.05), (0.12, -0.05), (0.12, 0.25), (0.03, 0.25), (0.21, 0.48), (0.39, 0.25), (0.3, 0.25)),
    ]))),
    Sign("hills", (*_plate("brown"), ("white", ((-0.6, 0.5), (-0.25, -0.3), (0.0, 0.1), (0.2, -0.15), (0.6, 0.5))))),
    Sign("straight", (*_WARNING, ("black", tuple((0.8 * x, 0.8 * y) for x, y in _ARROW_UP)))),
    Sign("crossroads", (*_WARNING, *_in("black", cross(0.55, 0.14)))),
    Sign("junction", (*_WARNING, *_in("black", [box(-0.5, -0.42, 0.5, -0.14), box(-0.14, -0.3, 0.14, 0.6)]))),
    Sign("railway", (("black", disc(1.0)), ("yellow", disc(0.92)), *_in("black", cross(0.92, 0.12, by=45)))),
    Sign("narrows", (("black", regular(4, 1.12)), ("orange", regular(4, 1.02)), *_in("black", [
        ((-0.45, 0.5), (-0.3, 0.5), (-0.1, -0.1), (-0.1, -0.5), (-0.22, -0.5), (-0.22, -0.1)),
        box(0.2, -0.5, 0.34, 0.5),
    ]))),
    Sign("wrong_way", (("white", box(-0.9, -0.7, 0.9, 0.7)), ("red", box(-0.82, -0.62, 0.82, 0.62)), *_in("white", [
        box(-0.6, -0.36, 0.6, -0.12), box(-0.6, 0.12, 0.6, 0.36),
    ]))),
    Sign("information", _plate("blue"), Lettering("i", "white", 1.0)),
    Sign("exit", _plate("green"), Lettering("E", "white", 0.9)),
    Sign("limit_20", _BAN, Lettering("20", "black", 0.72)),
    Sign("limit_30", _BAN, Lettering("30", "black", 0.72)),
    Sign("limit_50", _BAN, Lettering("50", "black", 0.72)),
    Sign("limit_80", _BAN, Lettering("80", "black", 0.72)),
    Sign("limit_120", _BAN, Lettering("120", "black", 0.58)),
    Sign("least_40", _ORDER, Lettering("40", "white", 0.72)),
    Sign("weight_7", _BAN, Lettering("7T", "black", 0.66)),
)  # fmt: skip


def class_folder(label: int) -> str:
    """Return the folder name of a class; sorted names stand in the order of the classes."""
    return f"{label:02d}_{SIGNS[label].name}"
