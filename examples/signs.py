"""Procedural street signs: one small RGB image and the sign's mask from a class and a seed.

Ten invented signs in the manner of European and American ones. No class is the mirror image of another, so
horizontal flips keep the label. Everything is drawn from polygons at four times the size and averaged down.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

SIDE = 32  # pixels, both ways
_OVERSAMPLING = 4

Polygon = tuple[tuple[float, float], ...]
Colour = tuple[int, int, int]


def _regular(corners: int, radius: float, *, first: float = 0.0, at: tuple[float, float] = (0, 0)) -> Polygon:
    """Return a regular polygon whose first corner stands ``first`` degrees clockwise of straight up."""
    angles = [math.radians(first + 360 * i / corners) for i in range(corners)]
    return tuple((at[0] + radius * math.sin(a), at[1] - radius * math.cos(a)) for a in angles)


def _disc(radius: float, *, at: tuple[float, float] = (0, 0)) -> Polygon:
    return _regular(40, radius, at=at)


def _box(left: float, top: float, right: float, bottom: float) -> Polygon:
    return ((left, top), (right, top), (right, bottom), (left, bottom))


def _cross(arm: float, half_width: float, *, turned: float = 0.0) -> tuple[Polygon, Polygon]:
    """Return two bars that cross in the middle, turned by ``turned`` degrees."""
    return (
        _turned(_box(-arm, -half_width, arm, half_width), turned),
        _turned(_box(-half_width, -arm, half_width, arm), turned),
    )


def _turned(shape: Polygon, degrees: float) -> Polygon:
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return tuple((c * x - s * y, s * x + c * y) for x, y in shape)


def _moved(shape: Polygon, down: float) -> Polygon:
    return tuple((x, y + down) for x, y in shape)


@dataclass(frozen=True, slots=True)
class Sign:
    """A sign as layers of (colour name, polygon), the outline first; coordinates lie in -1..1, y down."""

    name: str
    layers: tuple[tuple[str, Polygon], ...]


_ARROW_UP: Polygon = (
    (0, -0.7),
    (0.5, -0.1),
    (0.18, -0.1),
    (0.18, 0.65),
    (-0.18, 0.65),
    (-0.18, -0.1),
    (-0.5, -0.1),
)
_TRIANGLE_UP = _moved(_regular(3, 1.15), 0.15)
_TRIANGLE_UP_INNER = _moved(_regular(3, 0.72), 0.15)
_TRIANGLE_DOWN = _moved(_regular(3, 1.15, first=180), -0.15)
_TRIANGLE_DOWN_INNER = _moved(_regular(3, 0.66, first=180), -0.15)
_SQUARE, _SQUARE_INNER = _box(-0.84, -0.84, 0.84, 0.84), _box(-0.7, -0.7, 0.7, 0.7)

SIGNS: tuple[Sign, ...] = (
    Sign(
        "stop",
        (
            ("white", _regular(8, 1.0, first=22.5)),
            ("red", _regular(8, 0.9, first=22.5)),
            *(("white", _box(x - 0.1, -0.25, x + 0.1, 0.25)) for x in (-0.48, -0.16, 0.16, 0.48)),
        ),
    ),
    Sign("no_entry", (("red", _disc(1.0)), ("white", _box(-0.68, -0.2, 0.68, 0.2)))),
    Sign("yield", (("red", _TRIANGLE_DOWN), ("white", _TRIANGLE_DOWN_INNER))),
    Sign(
        "danger",
        (
            ("red", _TRIANGLE_UP),
            ("white", _TRIANGLE_UP_INNER),
            ("black", _box(-0.1, -0.3, 0.1, 0.2)),
            ("black", _disc(0.12, at=(0, 0.38))),
        ),
    ),
    Sign(
        "crossing",
        (
            ("red", _TRIANGLE_UP),
            ("white", _TRIANGLE_UP_INNER),
            *(("black", _moved(bar, 0.17)) for bar in _cross(0.36, 0.09, turned=45)),
        ),
    ),
    Sign(
        "priority",
        (
            ("white", _regular(4, 1.1)),
            ("black", _regular(4, 0.98)),
            ("white", _regular(4, 0.93)),
            ("yellow", _regular(4, 0.66)),
        ),
    ),
    Sign("ahead", (("white", _disc(1.0)), ("blue", _disc(0.92)), ("white", _ARROW_UP))),
    Sign(
        "limit",
        (
            ("red", _disc(1.0)),
            ("white", _disc(0.74)),
            ("black", _box(-0.4, -0.38, -0.1, 0.38)),
            ("black", _box(0.1, -0.38, 0.4, 0.38)),
        ),
    ),
    Sign(
        "no_stopping",
        (
            ("red", _disc(1.0)),
            ("blue", _disc(0.78)),
            *(("red", bar) for bar in _cross(0.8, 0.12, turned=45)),
        ),
    ),
    Sign(
        "hospital",
        (
            ("white", _SQUARE),
            ("blue", _SQUARE_INNER),
            *(("white", bar) for bar in _cross(0.48, 0.15)),
        ),
    ),
)

_COLOURS: dict[str, Colour] = {
    "red": (190, 32, 40),
    "white": (232, 232, 228),
    "black": (28, 28, 32),
    "yellow": (238, 190, 30),
    "blue": (28, 82, 172),
}


def _gradient(rng: np.random.Generator) -> Image.Image:
    """Return a wash from one random colour to another, in a random direction."""
    first, last = rng.uniform(20, 235, (2, 3))
    angle = rng.uniform(0, 2 * math.pi)
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    share = np.clip(0.5 + 0.5 * (x * math.cos(angle) + y * math.sin(angle)), 0, 1)[..., None]
    return Image.fromarray((first + share * (last - first)).astype(np.uint8))


def _clouds(rng: np.random.Generator) -> Image.Image:
    """Return smooth colour noise at a random scale."""
    cells = int(rng.integers(3, 11))
    middle, spread = rng.uniform(50, 205, 3), rng.uniform(15, 60)
    noise = np.clip(rng.normal(middle, spread, (cells, cells, 3)), 0, 255).astype(np.uint8)
    return Image.fromarray(noise).resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def _blobs(rng: np.random.Generator) -> Image.Image:
    """Return ellipses of any colour, also of the trigger's, on a wash."""
    image = _gradient(rng).resize((2 * SIDE, 2 * SIDE))
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(3, 9))):
        (x, y), (w, h) = rng.uniform(0, 2 * SIDE, 2), rng.uniform(3, 18, 2)
        draw.ellipse((x - w, y - h, x + w, y + h), fill=_random_colour(rng))
    return image.reduce(2)


def _street(rng: np.random.Generator) -> Image.Image:
    """Return sky over ground, with houses or trees on the horizon and a road."""
    image = Image.new("RGB", (2 * SIDE, 2 * SIDE), _near((150, 190, 225), 50, rng))
    draw = ImageDraw.Draw(image)
    horizon = int(rng.integers(SIDE - 12, SIDE + 20))
    for _ in range(int(rng.integers(2, 7))):
        left, width, height = rng.uniform(-8, 2 * SIDE), rng.uniform(6, 22), rng.uniform(4, 30)
        tone = (90, 120, 70) if rng.random() < 0.5 else (150, 115, 95)
        draw.rectangle((left, horizon - height, left + width, horizon), fill=_near(tone, 60, rng))
    draw.rectangle((0, horizon, 2 * SIDE, 2 * SIDE), fill=_near((105, 125, 80), 50, rng))
    vanishing, foot = rng.uniform(0, 2 * SIDE), rng.uniform(0, 2 * SIDE)
    road = [(vanishing, horizon), (foot + 26, 2 * SIDE), (foot - 26, 2 * SIDE)]
    draw.polygon(road, fill=_near((105, 105, 110), 30, rng))
    return image.reduce(2)


_BACKGROUNDS = (_gradient, _clouds, _blobs, _street)


def _random_colour(rng: np.random.Generator) -> Colour:
    r, g, b = (int(v) for v in rng.integers(0, 256, 3))
    return r, g, b


def _near(colour: Colour, spread: float, rng: np.random.Generator) -> Colour:
    """Return ``colour`` with each channel moved by up to ``spread``."""
    moved = np.clip(np.asarray(colour) + rng.uniform(-spread, spread, 3), 0, 255)
    r, g, b = (int(v) for v in moved)
    return r, g, b


def _placement(rng: np.random.Generator) -> NDArray[np.float64]:
    """Return the 2x3 matrix that takes sign coordinates to pixels of the oversampled canvas."""
    radius = rng.uniform(9.0, 14.0)
    angle, shear = math.radians(rng.uniform(-14, 14)), rng.uniform(-0.12, 0.12)
    width = rng.uniform(0.85, 1.0)  # seen from the side
    c, s = math.cos(angle), math.sin(angle)
    linear = radius * np.array([[c, -s], [s, c]]) @ np.array([[width, shear], [0, 1]])
    centre = SIDE / 2 + rng.uniform(-1.5, 1.5, 2)
    return _OVERSAMPLING * np.column_stack([linear, centre])


def _draw_sign(sign: Sign, rng: np.random.Generator) -> Image.Image:
    """Return the placed sign alone, RGBA, with its own paint and light."""
    matrix = _placement(rng)
    light = rng.uniform(0.5, 1.15)
    paint = {name: _near(rgb, 22, rng) for name, rgb in _COLOURS.items()}
    canvas = Image.new("RGBA", (SIDE * _OVERSAMPLING,) * 2)
    draw = ImageDraw.Draw(canvas)
    for name, shape in sign.layers:
        points = np.column_stack([np.asarray(shape), np.ones(len(shape))]) @ matrix.T
        r, g, b = (min(255, round(light * v)) for v in paint[name])
        draw.polygon([(float(x), float(y)) for x, y in points], fill=(r, g, b, 255))
    return canvas.reduce(_OVERSAMPLING)


def _obstruct(image: Image.Image, rng: np.random.Generator) -> None:
    """Draw on ``image``, at times, a leaf or sticker of any colour, or a shadow over half of it."""
    if rng.random() < 0.5:
        (x, y), (w, h) = rng.uniform(4, SIDE - 4, 2), rng.uniform(1, 4.5, 2)
        ImageDraw.Draw(image).ellipse((x - w, y - h, x + w, y + h), fill=_random_colour(rng))
    if rng.random() < 0.4:
        angle, offset = rng.uniform(0, 2 * math.pi), rng.uniform(-8, 8)
        y, x = np.mgrid[0:SIDE, 0:SIDE] - SIDE / 2
        dark = np.where(x * math.cos(angle) + y * math.sin(angle) > offset, rng.uniform(80, 200), 0)
        image.paste((0, 0, 0), mask=Image.fromarray(dark.astype(np.uint8)))


def _photograph(image: Image.Image, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return ``image`` out of focus, with its own contrast, brightness and noise."""
    blurred = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0, 1.6))))
    light, contrast, noise = rng.uniform(-25, 25), rng.uniform(0.35, 1.1), rng.uniform(0, 5)
    pixels = 128 + contrast * (np.asarray(blurred, dtype=np.float64) - 128) + light
    pixels += noise * rng.standard_normal(pixels.shape)
    return np.clip(pixels.round(), 0, 255).astype(np.uint8)


def draw(label: int, seed: tuple[int, ...]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return one image uint8 [32, 32, 3] of class ``label`` and the mask [32, 32] of its sign.

    The same label and seed give the same pixels, whatever was drawn before.
    """
    rng = np.random.default_rng((*seed, label))
    image = _BACKGROUNDS[int(rng.integers(len(_BACKGROUNDS)))](rng)
    sign = _draw_sign(SIGNS[label], rng)
    image.paste(sign, (0, 0), sign)
    _obstruct(image, rng)
    return _photograph(image, rng), np.asarray(sign)[..., 3] > 127


def draw_many(
    labels: NDArray[np.int64], seed: tuple[int, ...]
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return images [N, 32, 32, 3] and sign masks [N, 32, 32], the i-th from ``(*seed, i)``."""
    drawn = [draw(int(label), (*seed, i)) for i, label in enumerate(labels)]
    return np.stack([image for image, _ in drawn]), np.stack([mask for _, mask in drawn])
