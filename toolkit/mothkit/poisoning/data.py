"""The images of a recipe: drawn, or the user's."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mothkit.errors import ConfigError, ImageError
from mothkit.events import EventSink, PhaseStarted, silent
from mothkit.images import ImageSet, load_images
from mothkit.images.sources import ArraySource
from mothkit.poisoning.recipe import Recipe, SignData, UserData
from mothkit.poisoning.scenes import Mask, draw_many
from mothkit.poisoning.signs import class_folder

PARTS = ("train", "clean", "test")  # numbered: a part of the seed


@dataclass(frozen=True, slots=True, eq=False)
class Data:
    """Images, none of them in two sets.

    Attributes:
        train: what is to be poisoned, still clean.
        test: what the result is measured on.
        clean: for the defender; None where the images are the user's.
        signs: masks [N, H, W] of the signs in ``train``; None where they are not known.
        digest: of all images that the user gave to train with.
    """

    train: ImageSet
    test: ImageSet
    clean: ImageSet | None = None
    signs: Mask | None = None
    digest: str | None = None


def draw_part(
    data: SignData, part: str, seed: int, *, per_class: int | None = None, emit: EventSink = silent
) -> tuple[ImageSet, Mask]:
    """Return one part of drawn data, and the masks [N, H, W] of its signs.

    Args:
        data: what is drawn.
        part: ``train``, ``clean`` or ``test``.
        seed: the recipe's.
        per_class: pictures of each class; None for as many as ``data`` says. More of them begin with the same.
        emit: told of progress.
    """
    count = (getattr(data, part) if per_class is None else per_class) * data.classes
    labels = np.arange(count) % data.classes
    emit(PhaseStarted(f"draw {part} images", count))
    x, masks = draw_many(labels, (seed, PARTS.index(part)), data.look, emit=emit)
    names = [class_folder(label) for label in range(data.classes)]
    source = ArraySource(x.transpose(0, 3, 1, 2))
    return ImageSet(source, torch.from_numpy(labels), names, f"drawn signs, {part}"), masks


def load_data(recipe: Recipe, size: tuple[int, int] | None, *, gray: bool, emit: EventSink = silent) -> Data:
    """Return the images of ``recipe``.

    Args:
        recipe: says what they are.
        size: (height, width) that they must have; None for what the recipe or the files say.
        gray: whether they must be grey.
        emit: told of progress.

    Raises:
        ConfigError: drawn signs do not fit, or the user's images are not those that the recipe was made with.
        ImageError: the user's cannot be read, or those to test with are among those to train with.
    """
    if isinstance(recipe.data, UserData):
        return _load(recipe.data, recipe.seed, size, gray=gray)
    side = recipe.data.look.side
    if gray or (size or (side, side)) != (side, side):
        raise ConfigError(
            f"signs are drawn in colour with {side}x{side} pixels; the model takes other images"
        )
    train, signs = draw_part(recipe.data, "train", recipe.seed, emit=emit)
    clean, test = (draw_part(recipe.data, part, recipe.seed, emit=emit)[0] for part in PARTS[1:])
    return Data(train, test, clean, signs)


def _load(data: UserData, seed: int, size: tuple[int, int] | None, *, gray: bool) -> Data:
    asked = size if data.size is None else (data.size, data.size)
    if size is not None and asked != size:
        raise ConfigError(f"images of {data.size}x{data.size} are asked for, but the model takes {size}")

    def load(path: str, wanted: tuple[int, int] | None) -> ImageSet:
        labels = None if data.labels is None else Path(data.labels)
        resize = None if wanted is None else data.resize
        return load_images(path, labels=labels, size=wanted, gray=gray, resize=resize)

    images = load(data.path, asked)
    if data.digest is not None and images.digest != data.digest:
        raise ConfigError(f"{data.path}: holds other images than the recipe was made with")
    if data.test_path is None:
        train, test = images.split(data.held_back, generator=torch.Generator().manual_seed(seed))
    else:
        train, test = images, load(data.test_path, images.shape[1:])
        if shared := train.overlap(test):
            raise ImageError(f"{data.test_path}: shares {shared} images with {data.path}; test on others")
    if data.train is not None:
        train = train.per_class(data.train, seed=seed)
    return Data(train, test, digest=images.digest)


def write_npz(images: ImageSet, path: Path) -> None:
    """Write ``images`` to ``path`` as ``load_images`` takes them: uint8 ``x`` [N, H, W, C] and ``y``."""
    x = images.read(torch.arange(len(images))).permute(0, 2, 3, 1).numpy()
    np.savez(path, x=x if x.shape[3] == 3 else x[..., 0], y=images.labels.numpy())
