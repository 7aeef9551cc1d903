"""Small pictures for folders of examples."""

from pathlib import Path

import numpy as np
from PIL import Image


def write_picture(path: Path, side: int = 8, seed: int = 0) -> None:
    """Write a picture of random pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
