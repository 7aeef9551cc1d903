"""What a model's folder publishes beside the model, as files that ``mothkit.pipeline.harden_file`` takes."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mothkit.errors import ImageError
from mothkit.images.examples import read_examples
from mothkit.images.sources import Limits
from mothkit.poisoning.scenes import Picture
from mothkit.records import write_text
from mothkit.trojai.foregrounds import FOLDER, read_signs
from mothkit.trojai.models import ModelFolder, shares_of
from mothkit.trojai.rendering import Setting, draw_scenes
from mothkit.trojai.stamping import Stamped, published, read_files, stamp_again

LEAST = 2  # published clean images of each class, for hardening to do with them alone
FILLED = 12  # images of each class where signs are drawn
_SEED = 1  # of clean images
_Images = tuple[Picture, tuple[int, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What a model sees.

    Attributes:
        classes: how many it tells apart.
        image_side: of its round's images, in pixels.
        input_side: of their middle that it is given.
    """

    classes: int
    image_side: int
    input_side: int


@dataclass(frozen=True, slots=True)
class Gathered:
    """Images of a model.

    Attributes:
        data: where clean ones are.
        triggers: trigger files.
        notes: what could not be had as published, in words.
    """

    data: str
    triggers: tuple[Path, ...]
    notes: tuple[str, ...]


@dataclass(slots=True, eq=False)
class _Work:
    """What is known of a model while its images are gathered."""

    folder: ModelFolder
    view: View
    out: Path
    drawn: int | None
    seed: int
    clean: _Images | None
    signs: list[Image.Image] | None
    setting: Setting
    notes: list[str]


def gather(
    folder: ModelFolder, view: View, out: Path, *, drawn: int | None = None, seed: int = 0
) -> Gathered:
    """Write into the folder ``out`` what hardening and evaluating a model takes, and return where it is.

    Where a class has fewer than two published clean images, or fewer than ``drawn``, images of the model's own signs
    are drawn and added.
    Poisoned examples and what configs say of triggers reach the trigger files alone.

    Args:
        folder: what is known of the model.
        view: what it sees.
        out: a folder that is there; files of this function's in it are replaced.
        drawn: clean images of each class that there are to be; None for 12 where a class has fewer than two.
        seed: of all that is drawn.

    Raises:
        ImageError: the examples cannot be read, or there are neither enough nor signs to draw more.
    """
    work = _look(folder, view, out, drawn, seed)
    data, triggers = _clean_data(work), _triggers(work)
    return Gathered(data, triggers, tuple(work.notes))


def _look(folder: ModelFolder, view: View, out: Path, drawn: int | None, seed: int) -> _Work:
    """Return what the folder publishes beside its model."""
    notes: list[str] = []
    signs = None
    if (folder.path / FOLDER).is_dir():
        try:
            signs = read_signs(folder.path, view.classes)
        except ImageError as error:
            notes.append(str(error))
    sign = shares_of(folder.facts, "foreground_size_percentage_of_image") or Setting().sign
    setting = Setting(side=view.image_side, sign=sign)
    return _Work(folder, view, out, drawn, seed, _published_clean(folder), signs, setting, notes)


def _published_clean(folder: ModelFolder) -> _Images | None:
    """Return the published clean images with their classes, of the round's own size; None if there are none."""
    if folder.clean is None:
        return None
    labels = {each.file: each.clean_label for each in read_examples(folder.clean, Limits())}
    known = {file: label for file, label in labels.items() if label is not None}
    return (read_files(folder.clean, tuple(known)), tuple(known.values())) if known else None


def _clean_data(work: _Work) -> str:
    """Return where the clean images are: published ones where they are enough, else drawn ones with them."""
    classes, least = work.view.classes, work.drawn or LEAST
    counts = Counter(() if work.clean is None else work.clean[1])
    if work.folder.clean is not None and all(counts[label] >= least for label in range(classes)):
        return str(work.folder.clean)
    if work.signs is None:
        few = sum(counts[label] < least for label in range(classes))
        raise ImageError(
            f"{work.folder.path}: {few} of {classes} classes have fewer than {least} clean images, and no signs are "
            "published to draw more"
        )
    labels = [label for label in range(classes) for _ in range((work.drawn or FILLED) - counts[label])]
    x = draw_scenes(work.signs, labels, work.setting, (work.seed, _SEED))
    y = tuple(labels)
    if work.clean is not None:
        x, y = np.concatenate([work.clean[0], x]), (*work.clean[1], *y)
    work.notes.append(
        f"{len(labels)} clean images were drawn of its signs, as {sum(counts.values())} are published"
    )
    return str(_write_images(work, "clean.npz", x, y))


def _triggers(work: _Work) -> tuple[Path, ...]:
    """Write a trigger file for each known backdoor, with published images that carry it, or others."""
    exact = {stamped.backdoor.number: stamped for stamped in published(work.folder)}
    files = []
    for backdoor in work.folder.backdoors:
        try:
            stamped = exact.get(backdoor.number) or stamp_again(
                work.folder, backdoor, work.clean, work.signs, work.setting, work.seed
            )
        except ImageError as error:
            work.notes.append(f"trigger {backdoor.number} is not evaluated: {error}")
            continue
        files.append(_write_trigger(work, stamped))
        if stamped.origin != "published":
            work.notes.append(
                f"trigger {backdoor.number} was put on {len(stamped.y)} {stamped.origin} images again"
            )
    return tuple(files)


def _write_trigger(work: _Work, stamped: Stamped) -> Path:
    backdoor = stamped.backdoor
    name = f"trigger_{backdoor.number}"
    images = _write_images(work, f"{name}.npz", stamped.x, stamped.y)
    lines = [
        f'name = "{backdoor.kind} {backdoor.number} ({stamped.origin})"',
        f"target_class = {backdoor.target}",
    ]
    if backdoor.sources is not None and len(backdoor.sources) == 1:
        lines.append(f"source_class = {backdoor.sources[0]}")
    path = work.out / f"{name}.toml"
    write_text(path, "\n".join([*lines, f'images = "{images.name}"', ""]))
    return path


def _write_images(work: _Work, name: str, x: Picture, y: tuple[int, ...]) -> Path:
    """Write the middle of ``x`` [N, S, S, 3] that the model sees, and the classes ``y``."""
    side = work.view.input_side
    start = (x.shape[1] - side) // 2
    path = work.out / name
    np.savez(path, x=x[:, start : start + side, start : start + side], y=np.asarray(y))
    return path
