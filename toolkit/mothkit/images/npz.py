"""Image arrays in npz files; every header is read and bounded before its array is."""

import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from mothkit.errors import ImageError
from mothkit.images.sources import Limits, Pixels

_READERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def read_npz(path: Path, split: str | None, limits: Limits) -> tuple[Pixels, NDArray[Any]]:
    """Return uint8 [N, C, H, W] and integer labels [N].

    Args:
        path: a file with ``x`` or ``images`` (uint8 [N, H, W, C], C = 1 or 3, or [N, H, W] grey) and ``y`` or
            ``labels`` (integers [N] or [N, 1]); nothing else in it is read.
        split: picks ``x_<split>`` and ``y_<split>``.
        limits: bounds the arrays.

    Raises:
        ImageError: broken, too large, arrays missing, of another dtype or shape, or counts that differ.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
            x_name = _pick(names, ("x", "images"), split, path)
            y_name = _pick(names, ("y", "labels"), split, path)
            y = _read(archive, y_name, path, limits)
            _check_labels(y, f"{path}: {y_name}")
            x = _read(archive, x_name, path, limits, pixels=True)
    except ImageError:
        raise
    except MemoryError as error:
        raise ImageError(f"{path}: not enough memory for its arrays; give a smaller file") from error
    except Exception as error:  # zipfile, zlib and numpy raise nearly anything on a broken file
        raise ImageError(f"{path}: is no npz that can be read: {error}") from error
    if len(x) != len(y):
        raise ImageError(f"{path}: {x_name} has {len(x)} images, {y_name} has {len(y)} labels")
    x = x[..., None] if x.ndim == 3 else x
    return x.transpose(0, 3, 1, 2), y.reshape(-1)


def _pick(names: Collection[str], stems: tuple[str, str], split: str | None, path: Path) -> str:
    """Return the one array that is called as one of ``stems``, with the split's ending."""
    wanted = [f"{stem}_{split}" if split else stem for stem in stems]
    found = [name for name in wanted if name in names]
    if len(found) == 1:
        return found[0]
    if found:
        raise ImageError(f"{path}: holds both {found[0]} and {found[1]}; keep one of them")
    starts = tuple(f"{stem}_" for stem in stems)
    splits = sorted({name.split("_", 1)[1] for name in names if name.startswith(starts)})
    hint = f"; choose a split, as {path}:{splits[0]} (there are {', '.join(splits[:20])})" if splits else ""
    listed = ", ".join(sorted(names)[:20]) or "no arrays"
    raise ImageError(f"{path}: no array {' or '.join(wanted)}; it holds {listed}{hint}")


def _read(
    archive: zipfile.ZipFile, name: str, path: Path, limits: Limits, *, pixels: bool = False
) -> NDArray[Any]:
    """Return one array, after its header has passed."""
    member = archive.getinfo(f"{name}.npy")
    with archive.open(member) as stream:
        shape, fortran, dtype = _header(stream)
        where = f"{path}: {name}"
        if dtype.hasobject:
            raise ImageError(f"{where} holds Python objects (pickles), which are not read; store numbers")
        if pixels:
            _check_pixels(shape, dtype, where, limits)
        declared = int(np.prod(shape, dtype=object)) * dtype.itemsize
        if declared > limits.array_bytes:
            raise ImageError(f"{where} is {declared} bytes, more than the limit of {limits.array_bytes}")
        if declared != member.file_size - stream.tell():
            raise ImageError(
                f"{where} should hold {declared} bytes, but has {member.file_size - stream.tell()}"
            )
        return _fill(stream, shape, dtype, fortran=fortran)


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy.read_magic(stream)
    if version not in _READERS:
        raise ValueError(f"npy version {version} is not known")
    shape, fortran, dtype = _READERS[version](stream)
    return tuple(shape), bool(fortran), dtype


def _fill(stream: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any], *, fortran: bool) -> NDArray[Any]:
    """Return the array whose bytes follow in ``stream``; zipfile checks their CRC."""
    buffer = np.empty(int(np.prod(shape)) * dtype.itemsize, dtype=np.uint8)
    filled = 0
    while filled < len(buffer):
        chunk = stream.read(min(1 << 24, len(buffer) - filled))
        if not chunk:
            raise ValueError(f"cut off after {filled} of {len(buffer)} bytes")
        buffer[filled : filled + len(chunk)] = np.frombuffer(chunk, dtype=np.uint8)
        filled += len(chunk)
    stream.read(1)  # past the end: the last block's CRC is compared here at the latest
    return buffer.view(dtype).reshape(shape, order="F" if fortran else "C")


def _check_pixels(shape: tuple[int, ...], dtype: np.dtype[Any], where: str, limits: Limits) -> None:
    if dtype != np.uint8:
        advice = (
            "; multiply pixels of 0..1 by 255, round and store them as uint8" if dtype.kind == "f" else ""
        )
        raise ImageError(f"{where} is {dtype} {list(shape)}, expected uint8, 0..255{advice}")
    if len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] not in (1, 3)):
        raise ImageError(f"{where} is {list(shape)}, expected [N, H, W, 3], [N, H, W, 1] or [N, H, W]")
    if shape[1] * shape[2] > limits.image_pixels:
        raise ImageError(f"{where}: images are {shape[1]}x{shape[2]}, more than {limits.image_pixels} pixels")
    if 0 in shape:
        raise ImageError(f"{where} is {list(shape)}: there are no images")


def _check_labels(y: NDArray[Any], where: str) -> None:
    if y.dtype.kind not in "iu" or y.ndim not in (1, 2) or (y.ndim == 2 and y.shape[1] != 1):
        raise ImageError(f"{where} is {y.dtype} {list(y.shape)}, expected integer class indices [N]")
