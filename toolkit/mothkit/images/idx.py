"""IDX files, plain or gzipped, as MNIST comes: an images file and its labels beside it."""

import gzip
import zlib
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from mothkit.errors import ImageError
from mothkit.images.sources import Limits, Pixels

_IMAGES, _LABELS = 0x00000803, 0x00000801
_GZIP = b"\x1f\x8b"


def is_idx(path: Path) -> bool:
    """Tell whether the file's name, or failing that its start, is that of IDX images or labels."""
    if "idx" in path.name and ("images" in path.name or "labels" in path.name):
        return True
    with path.open("rb") as file:
        return file.read(3) == b"\0\0\x08"


def find_idx(folder: Path) -> Path | None:
    """Return the images file of a folder that holds one IDX pair, None if it holds none.

    Raises:
        ImageError: it holds several.
    """
    found = sorted(
        path for path in folder.iterdir() if "images" in path.name and "idx3" in path.name and path.is_file()
    )
    if len(found) > 1:
        names = ", ".join(path.name for path in found[:10])
        raise ImageError(f"{folder}: holds {len(found)} IDX image files; give one of them: {names}")
    return found[0] if found else None


def read_idx(path: Path, limits: Limits) -> tuple[Pixels, NDArray[Any]]:
    """Return uint8 [N, 1, H, W] and uint8 labels [N] of an images file and of the labels beside it.

    Raises:
        ImageError: no labels file, a wrong magic number, cut off or too large, or counts that differ.
    """
    labels = _labels_beside(path)
    y = _read(labels, _LABELS, limits)
    x = _read(path, _IMAGES, limits)
    if len(x) != len(y):
        raise ImageError(f"{path}: has {len(x)} images, but {labels.name} has {len(y)} labels")
    return x[:, None], y


def _labels_beside(path: Path) -> Path:
    if "images" not in path.name:
        raise ImageError(f"{path}: is not the file of the images; give that (as train-images-idx3-ubyte)")
    name = path.name.replace("images", "labels").replace("idx3", "idx1").removesuffix(".gz")
    for candidate in (path.with_name(name), path.with_name(name + ".gz")):
        if candidate.is_file():
            return candidate
    raise ImageError(f"{path}: there are no labels; expected {name} or {name}.gz beside it")


def _read(path: Path, magic: int, limits: Limits) -> Pixels:
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == _GZIP
        with gzip.open(path, "rb") if zipped else path.open("rb") as stream:
            return _parse(cast("IO[bytes]", stream), magic, path, limits)
    except (OSError, EOFError, zlib.error) as error:
        raise ImageError(f"{path}: cannot be read: {error}; fetch it again") from error
    except MemoryError as error:
        raise ImageError(f"{path}: not enough memory for it; give a smaller file") from error


def _parse(stream: IO[bytes], magic: int, path: Path, limits: Limits) -> Pixels:
    """Return the array, after its header has passed; no more is read than that declares, and a byte."""
    rank = magic & 0xFF
    header = stream.read(4 + 4 * rank)
    if len(header) < 4 + 4 * rank or int.from_bytes(header[:4]) != magic:
        what = "images" if magic == _IMAGES else "labels"
        raise ImageError(
            f"{path}: starts with {header[:4].hex() or 'nothing'}, but IDX {what} start with {magic:08x}"
        )
    shape = tuple(int.from_bytes(header[4 * i : 4 * i + 4]) for i in range(1, rank + 1))
    count = int(np.prod(shape, dtype=object))
    if count == 0:
        raise ImageError(f"{path}: is {list(shape)}: there are no images")
    if count > limits.array_bytes or (rank == 3 and shape[1] * shape[2] > limits.image_pixels):
        raise ImageError(
            f"{path}: is {list(shape)}, {count} bytes, more than the limit of {limits.array_bytes}"
        )
    content = stream.read(count + 1)
    if len(content) != count:
        found = f"{len(content)}" if len(content) < count else "more"
        raise ImageError(f"{path}: declares {list(shape)}, {count} bytes, but holds {found}; fetch it again")
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)
