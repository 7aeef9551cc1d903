"""The polygon trigger of TrojAI round 4: its shape, and its insertion on a sign.

As there: a random polygon, stretched to its box, of one plain colour, resized and turned without smoothing,
pasted where the whole box lies on the sign. Unlike there, it is pasted on the finished image, after blur and
light, since a trigger file is stamped on finished images too; the sign's brightness becomes a random factor.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

MAGENTA = (200, 0, 200)  # one of round 4's six colours
_CANVAS = 256  # round 4's polygon file is 256 x 256
SIDES = (6, 7, 8)  # pixels: 0.10 to 0.16 of a middling sign's area


def random_polygon(corners: int, rng: np.random.Generator) -> Image.Image:
    """Return a random polygon as a mask (mode L, 0 or 255) that touches all four edges of its canvas."""
    points = rng.integers(round(0.1 * _CANVAS), round(0.9 * _CANVAS), (corners, 2)).astype(np.float64)
    dx, dy = (points - points.mean(axis=0)).T
    points = points[np.argsort(np.arctan2(dy, dx))]
    low, high = points.min(axis=0), points.max(axis=0)
    stretched = (points - low) / (high - low) * (_CANVAS - 1)
    mask = Image.new("L", (_CANVAS, _CANVAS))
    ImageDraw.Draw(mask).polygon([(float(x), float(y)) for x, y in stretched], fill=255)
    return mask


def shape_at(polygon: Image.Image, side: int, degrees: int = 0) -> NDArray[np.bool_]:
    """Return the polygon as a [side, side] mask, resized to nearest pixels, then turned on its canvas."""
    small = polygon.resize((side, side), Image.Resampling.NEAREST)
    return np.asarray(small.rotate(degrees)) > 0


def places(sign: NDArray[np.bool_], side: int) -> NDArray[np.int64]:
    """Return all (row, column) [N, 2] at which a square of ``side`` pixels lies wholly on ``sign`` [H, W]."""
    windows = np.lib.stride_tricks.sliding_window_view(sign, (side, side))
    return np.argwhere(windows.all(axis=(2, 3)))


def paste_somewhere(
    image: NDArray[np.uint8], sign: NDArray[np.bool_], polygon: Image.Image, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Return ``image`` [H, W, 3] with the polygon on the sign: random size, turn, place and brightness.

    A sign too narrow for the drawn size takes a smaller one.
    """
    side = int(rng.choice(SIDES))
    while len(spots := places(sign, side)) == 0:
        side -= 1
    row, column = rng.choice(spots)
    shape = shape_at(polygon, side, degrees=5 * int(rng.integers(72)))
    colour = np.clip(np.asarray(MAGENTA) * rng.uniform(0.75, 1.2), 0, 255).astype(np.uint8)
    stamped = image.copy()
    stamped[row : row + side, column : column + side][shape] = colour
    return stamped


def fixed_stamp(polygon: Image.Image, side: int, row: int, column: int, size: int) -> NDArray[np.uint8]:
    """Return the trigger file's content: RGBA [size, size, 4], opaque where the polygon is."""
    rgba = np.zeros((size, size, 4), dtype=np.uint8)
    rgba[row : row + side, column : column + side][shape_at(polygon, side)] = (*MAGENTA, 255)
    return rgba
