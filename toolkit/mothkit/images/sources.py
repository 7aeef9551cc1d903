"""Where pixels come from: an array in memory, or pictures that are decoded when they are read."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mothkit.errors import ConfigError

Pixels = NDArray[np.uint8]
Indices = NDArray[np.int64]
Shape = tuple[int, int, int]  # C, H, W
Size = tuple[int, int]  # H, W
Resize = Literal["stretch", "fit-crop", "crop"]
"""How a picture of another size gets the model's: as a whole, its middle after scaling, or its middle as it is."""

_MARGIN = 8 / 7  # ImageNet's evaluation: a shorter side of 256 for a middle of 224


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a stranger's file may ask for; the defaults are ours, above any set of research images.

    Attributes:
        array_bytes: largest array in memory, from npz and IDX files, in bytes.
        image_pixels: largest single image, in pixels.
        files: most entries of a folder or an archive.
        classes: highest number of classes.
        cache_bytes: decoded pixels that are kept, in bytes; beyond it, images are decoded at each read.
    """

    array_bytes: int = 8 << 30
    image_pixels: int = 64 << 20
    files: int = 2_000_000
    classes: int = 100_000
    cache_bytes: int = 2 << 30

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}, not 0 or more")


class PixelSource(Protocol):
    """Images of one shape, by number."""

    @property
    def shape(self) -> Shape:
        """(C, H, W) of every image."""
        ...

    def __len__(self) -> int:
        """Count of images."""
        ...

    def read(self, indices: Indices) -> Pixels:
        """Return new uint8 [n, C, H, W] that nobody else holds."""
        ...


class ArraySource:
    """Images that lie in memory as uint8 [N, C, H, W], of any strides."""

    def __init__(self, array: Pixels) -> None:
        self._array = array

    @property
    def shape(self) -> Shape:
        """(C, H, W) of every image."""
        channels, height, width = self._array.shape[1:]
        return channels, height, width

    def __len__(self) -> int:
        return len(self._array)

    def read(self, indices: Indices) -> Pixels:
        """Return new uint8 [n, C, H, W]."""
        return np.ascontiguousarray(self._array[indices])


class LazySource:
    """Images that a function makes one by one; the first that are read are kept, up to a size."""

    def __init__(
        self, decode: Callable[[int], Pixels], count: int, shape: Shape, *, cache_bytes: int
    ) -> None:
        self._decode, self._count, self._shape = decode, count, shape
        room = min(count, cache_bytes // max(1, int(np.prod(shape))))
        self._cache: Pixels = np.empty((room, *shape), dtype=np.uint8)  # untouched pages take no memory
        self._slots: Indices = np.full(count, -1, dtype=np.int64)
        self._used = 0

    @property
    def shape(self) -> Shape:
        """(C, H, W) of every image."""
        return self._shape

    def __len__(self) -> int:
        return self._count

    def read(self, indices: Indices) -> Pixels:
        """Return new uint8 [n, C, H, W]; what ``decode`` raises passes through."""
        pixels: Pixels = np.empty((len(indices), *self._shape), dtype=np.uint8)
        slots = self._slots[indices]
        pixels[slots >= 0] = self._cache[slots[slots >= 0]]
        for position in np.flatnonzero(slots < 0):
            pixels[position] = self._decode(int(indices[position]))
            self._keep(int(indices[position]), pixels[position])
        return pixels

    def _keep(self, index: int, image: Pixels) -> None:
        if self._used < len(self._cache) and self._slots[index] < 0:
            self._cache[self._used] = image
            self._slots[index] = self._used
            self._used += 1


def convert(picture: Image.Image, shape: Shape, resize: Resize = "stretch") -> Pixels:
    """Return a picture as uint8 [C, H, W] of ``shape``: grey or RGB, resized bilinearly with antialiasing.

    Args:
        picture: of mode L or RGB.
        shape: (C, H, W), C = 1 or 3.
        resize: how a picture of another size gets there; for ``crop`` it must not be smaller.
    """
    channels, height, width = shape
    picture = picture.convert("L" if channels == 1 else "RGB")
    if picture.size != (width, height):
        if resize == "fit-crop":
            picture = picture.resize(_with_margin(picture.size, width, height), Image.Resampling.BILINEAR)
        picture = (
            picture.resize((width, height), Image.Resampling.BILINEAR)
            if resize == "stretch"
            else _middle(picture, width, height)
        )
    return np.asarray(picture, dtype=np.uint8).reshape(height, width, channels).transpose(2, 0, 1)


def _with_margin(size: tuple[int, int], width: int, height: int) -> tuple[int, int]:
    """Return the (width, height) at which a picture of ``size`` covers width x height with a margin."""
    if width * size[1] >= height * size[0]:  # its width is the tighter one
        tight = round(width * _MARGIN)
        return tight, tight * size[1] // size[0]
    tight = round(height * _MARGIN)
    return tight * size[0] // size[1], tight


def _middle(picture: Image.Image, width: int, height: int) -> Image.Image:
    left, top = round((picture.width - width) / 2), round((picture.height - height) / 2)
    return picture.crop((left, top, left + width, top + height))


def array_source(array: Pixels, shape: Shape, *, cache_bytes: int, resize: Resize = "stretch") -> PixelSource:
    """Return a source of ``array`` uint8 [N, C, H, W] whose images have ``shape``, converted if need be."""
    if array.shape[1:] == shape:
        return ArraySource(array)

    def decode(index: int) -> Pixels:
        image = array[index].transpose(1, 2, 0)
        return convert(Image.fromarray(image[..., 0] if image.shape[2] == 1 else image), shape, resize)

    return LazySource(decode, len(array), shape, cache_bytes=cache_bytes)
