"""load_images: from a path as a user writes it to an ImageSet."""

import zipfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mothkit.errors import ConfigError, ImageError, SizeError
from mothkit.images.examples import find_examples
from mothkit.images.idx import find_idx, is_idx, read_idx
from mothkit.images.imageset import ImageSet
from mothkit.images.labels import (
    check_folders,
    number_names,
    ordered_names,
    read_label_file,
    sorted_classes,
)
from mothkit.images.npz import read_npz
from mothkit.images.pictures import Pictures, find_in_folder, find_in_zip, measure, picture_source
from mothkit.images.sources import Limits, Pixels, Resize, Shape, Size, array_source


def load_images(
    path: str | Path,
    *,
    labels: Path | None = None,
    size: tuple[int, int] | None = None,
    gray: bool = False,
    resize: Resize | None = None,
    limits: Limits | None = None,
) -> ImageSet:
    """Return the labelled images at ``path``.

    Arrays are held in memory; pictures are measured now and decoded when they are read. A picture's EXIF
    orientation is not applied, as torchvision's loader does not.

    Args:
        path: a folder of class folders (PNG, JPEG, PPM, PGM, BMP), or of clean examples as TrojAI's rounds have
            them; a zip of class folders (``FILE.zip:train`` takes the folder ``train`` in it); ``FILE.npz`` with
            ``x`` or ``images`` and ``y`` or ``labels`` (``FILE.npz:train`` takes ``x_train`` and ``y_train``); an
            IDX images file with its labels beside it, plain or gzipped, or a folder of one such pair.
        labels: a file that maps class names to model indices: CSV or JSON, or text with one name a line (see
            ``read_label_file``). Without it folders are classes in sorted order, numeric if all are numbers.
            Labels in arrays are model indices; there the file only names them.
        size: the (height, width) that the images must have, or get with ``resize``. None takes theirs, if all
            are equal.
        gray: whether images become one grey channel (ITU-R 601 luma) instead of RGB.
        resize: how images of another size get there, bilinearly with antialiasing: ``stretch`` to it;
            ``fit-crop``, scaled until the middle of that size is 7/8 of their tighter side, then cropped to it
            (256 and 224, as ImageNet models are evaluated); ``crop``, their middle as it is. None refuses them.
        limits: what the files may ask for; None takes the defaults.

    Raises:
        SizeError: the images have not ``size``, or differ in size, and ``resize`` does not help.
        ImageError: the images or labels cannot be read or do not fit each other; names the file.
        ConfigError: ``resize`` without ``size``, or a ``size`` that is not positive.
    """
    limits = limits or Limits()
    if resize and size is None:
        raise ConfigError("resize is asked for, but no size")
    if size is not None and not (min(size) > 0 and size[0] * size[1] <= limits.image_pixels):
        raise ConfigError(
            f"size is {size}; expected (height, width) above 0, up to {limits.image_pixels} pixels"
        )
    indices = None if labels is None else read_label_file(Path(labels), max_classes=limits.classes)
    try:
        return _load(_Wish(str(path), labels, indices, size, gray, resize, limits))
    except OSError as error:
        raise ImageError(f"{path}: cannot be read: {error}") from error


def split_path(text: str) -> tuple[Path, str | None]:
    """Return the path and, after a colon, the part of it that is meant: ``a.npz:train`` is a.npz and train.

    A path that exists as it is has no such part, and the colon of a Windows drive starts none.
    """
    head, colon, tail = text.rpartition(":")
    drive = len(head) == 1 and tail[:1] in ("/", "\\")
    if not colon or not head or not tail or drive or _exists(Path(text)):
        return Path(text), None
    return Path(head), tail


@dataclass(frozen=True, slots=True)
class _Wish:
    """What the caller of ``load_images`` asks for; ``indices`` is what the label file says."""

    origin: str
    label_file: Path | None
    indices: Mapping[str, int] | None
    size: Size | None
    gray: bool
    resize: Resize | None
    limits: Limits


def _load(wish: _Wish) -> ImageSet:
    """Find out what is at the path, and read it."""
    path, split = split_path(wish.origin)
    if not _exists(path):
        raise ImageError(f"{wish.origin}: there is no such file or folder")
    if path.is_dir():
        return _load_folder(path / split if split else path, wish)
    if path.suffix.lower() == ".npz":
        return _from_arrays(*read_npz(path, split, wish.limits), wish)
    if path.suffix.lower() == ".zip" or (path.is_file() and zipfile.is_zipfile(path)):
        return _from_pictures(find_in_zip(path, split, wish.limits), wish)
    if split is None and path.is_file() and is_idx(path):
        return _from_arrays(*read_idx(path, wish.limits), wish)
    raise ImageError(
        f"{wish.origin}: is no set of images; expected a folder or a zip of class folders, an npz file, "
        f"or an IDX images file (of these, zip and npz take :NAME)"
    )


def _load_folder(folder: Path, wish: _Wish) -> ImageSet:
    if not folder.is_dir():
        raise ImageError(f"{wish.origin}: there is no folder {folder}")
    pair = find_idx(folder)
    if pair is not None:
        return _from_arrays(*read_idx(pair, wish.limits), wish)
    examples = find_examples(folder, wish.limits)
    if examples is None:
        return _from_pictures(find_in_folder(folder, wish.limits), wish)
    if wish.label_file is not None:
        raise ImageError(f"{wish.origin}: its files say their classes themselves; leave --labels out")
    labels = np.array([int(label) for label in examples.folders])
    names = number_names(labels, wish.origin, wish.limits.classes)
    return _from_pictures(examples, replace(wish, indices={name: int(name) for name in names}))


def _from_pictures(pictures: Pictures, wish: _Wish) -> ImageSet:
    """Return the set of picture files, whose folders are the classes."""
    folders = set(pictures.folders)
    indices = wish.indices if wish.indices is not None else sorted_classes(folders)
    if wish.label_file is not None:
        check_folders(folders, indices, wish.label_file, wish.origin)
    sizes = measure(pictures.files, len(pictures.folders), wish.limits)
    shape = _shape(sizes, pictures.files.name, wish)
    source = picture_source(pictures.files, sizes, shape, wish.limits, resize=wish.resize or "stretch")
    labels = torch.tensor([indices[folder] for folder in pictures.folders])
    return ImageSet(source, labels, ordered_names(indices), wish.origin)


def _from_arrays(x: Pixels, y: NDArray[Any], wish: _Wish) -> ImageSet:
    """Return the set of uint8 ``x`` [N, C, H, W] and integer ``y`` [N], the model's class indices."""
    names = ordered_names(wish.indices) if wish.indices else number_names(y, wish.origin, wish.limits.classes)
    height, width = x.shape[2:]
    shape = _shape([(height, width)] * len(x), lambda index: f"image {index}", wish)
    source = array_source(x, shape, cache_bytes=wish.limits.cache_bytes, resize=wish.resize or "stretch")
    return ImageSet(source, torch.from_numpy(y.astype(np.int64)), names, wish.origin)


def _shape(sizes: Sequence[Size], name: Callable[[int], str], wish: _Wish) -> Shape:
    """Return the (C, H, W) that the images get, given what (height, width) they have.

    Raises:
        SizeError: they have not all the size that is asked for, or differ, and are not to be resized or are
            too small to be cropped.
    """
    most, count = Counter(sizes).most_common(1)[0]
    target = wish.size or most
    odd = [index for index, size in enumerate(sizes) if size != target]
    small = [index for index in odd if sizes[index][0] < target[0] or sizes[index][1] < target[1]]
    if wish.resize == "crop" and small:
        raise SizeError(
            f"{wish.origin}: {len(small)} of {len(sizes)} images are smaller than {_by(target)} (height x width), "
            f"first {name(small[0])} with {_by(sizes[small[0]])}; use another --resize than crop"
        )
    if odd and not wish.resize:
        first = f"first {name(odd[0])} with {_by(sizes[odd[0]])}"
        if wish.size is None:
            raise SizeError(
                f"{wish.origin}: images differ in size: {count} of {len(sizes)} are {_by(most)} (height x "
                f"width), {len(odd)} are not, {first}; use --resize to bring all to the model's size"
            )
        raise SizeError(
            f"{wish.origin}: {len(odd)} of {len(sizes)} images are not {_by(target)} (height x width), "
            f"{first}; use --resize to bring them to that size"
        )
    return (1 if wish.gray else 3), *target


def _by(size: Size) -> str:
    return f"{size[0]}x{size[1]}"


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name too long, or with a null byte
        return False
