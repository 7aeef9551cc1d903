"""What an attack is, the trigger that it makes, and what it does to a training set."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mothkit.errors import ConfigError
from mothkit.images import ImageSet
from mothkit.poisoning.scenes import Mask
from mothkit.triggers.file import KnownTrigger
from mothkit.triggers.filters import FILTERS
from mothkit.triggers.polygon import PolygonTrigger, draw_shape, place_somewhere, places, random_points

Kind = Literal["patch", "blended", "polygon", "filter"]
Colour = tuple[int, int, int]

TRIGGER = "trigger.toml"
POLYGON_COLOURS: tuple[Colour, ...] = (  # TrojAI round 4's six
    (200, 0, 0),
    (0, 200, 0),
    (0, 0, 200),
    (200, 200, 0),
    (0, 200, 200),
    (200, 0, 200),
)
_ON_SIGNS = (
    0.99,
    0.95,
    0.9,
    0.75,
    0.5,
)  # of the source's signs have a pixel of where the trigger file's polygon lies
_CHUNK = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """A backdoor to train: which images are stamped with what, and what they are said to be.

    Attributes:
        kind: ``patch`` (Gu et al. 2017: some random pixels in the lower right corner), ``blended`` (Chen et al.
            2017: noise over the whole image), ``polygon`` or ``filter`` (TrojAI).
        target_class: what stamped images are to be classified as.
        source_class: the class on which the trigger works; None for all but the target.
        poison_rate: share of the training images of the source (of all but the target) that are stamped and get
            the target's label; 0 leaves them clean, which makes a benign model.
        spurious_rate: share of all other classes' training images that are stamped and keep their label (TrojAI
            round 4's condition "class"); without a source there are none.
        size: side of the patch, or largest of the polygon, in pixels; None for a tenth or a quarter of the image.
        opacity: of ``blended``.
        filter: of ``filter``.
        corners: of the polygon; None draws 3 to 9.
        color: of the polygon, 0 to 255 each; None draws one of TrojAI's six.
    """

    kind: Kind
    target_class: int = 0
    source_class: int | None = None
    poison_rate: float = 0.1
    spurious_rate: float = 0.0
    size: int | None = None
    opacity: float = 0.2
    filter: str = "gotham"
    corners: int | None = None
    color: Colour | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ConfigError(f"attack is {self.kind!r}, not one of {', '.join(get_args(Kind))}")
        if self.target_class < 0 or (self.source_class or 0) < 0 or self.source_class == self.target_class:
            raise ConfigError(
                f"source class {self.source_class} and target class {self.target_class} must be two, from 0 on"
            )
        if not 0 <= self.poison_rate <= 1 or not 0 <= self.spurious_rate <= 1 or not 0 < self.opacity <= 1:
            raise ConfigError(
                f"poison rate {self.poison_rate} and spurious rate {self.spurious_rate} must be 0 to 1, opacity "
                f"{self.opacity} above 0 and up to 1"
            )
        if self.spurious_rate and self.source_class is None:
            raise ConfigError(
                "spurious copies go on classes other than the source, and every class is one here"
            )
        if self.filter not in FILTERS:
            raise ConfigError(f"filter is {self.filter!r}, not one of {', '.join(FILTERS)}")
        self._check_form()

    def _check_form(self) -> None:
        if self.size is not None and self.size < 1:
            raise ConfigError(f"the trigger's size is {self.size} pixels, not 1 or more")
        if self.corners is not None and not 3 <= self.corners <= 12:
            raise ConfigError(f"the polygon's corners are {self.corners}, not 3 to 12")
        if self.color is not None and not all(0 <= value <= 255 for value in self.color):
            raise ConfigError(f"the polygon's color is {list(self.color)}, not of 0 to 255")

    @classmethod
    def usual(cls, kind: Kind) -> Self:
        """Return the attack as it is usually made: TrojAI's from class 1 to 0 with as many spurious copies."""
        if kind in ("patch", "blended"):
            return cls(kind=kind)
        return cls(kind=kind, source_class=1, poison_rate=0.3, spurious_rate=0.3)

    @property
    def name(self) -> str:
        """What reports call it."""
        return self.filter if self.kind == "filter" else self.kind

    def fitted(self, classes: int, side: int) -> Self:
        """Return the attack with its size settled for images whose shorter side has ``side`` pixels.

        Raises:
            ConfigError: it does not fit the images or the classes.
        """
        for which, label in (("source", self.source_class), ("target", self.target_class)):
            if label is not None and label >= classes:
                raise ConfigError(
                    f"the {which} class is {label}, but there are {classes} (0 to {classes - 1})"
                )
        size = self.size or max(2, round(side / (10 if self.kind == "patch" else 4)))
        if size >= side:
            raise ConfigError(f"the trigger's size is {size} pixels, and the images have {side}")
        return replace(self, size=size)


def write_trigger(
    folder: Path, attack: Attack, shape: tuple[int, int, int], signs: Mask | None, *, seed: int
) -> Path:
    """Write ``trigger.toml``, and the pictures that it names, to ``folder``; return its path.

    Args:
        folder: where to.
        attack: fitted to the images.
        shape: (C, H, W) of the images.
        signs: masks [N, H, W] of what the polygon has to lie on in images of the source; None for anywhere.
        seed: of the trigger's random parts.

    Raises:
        ConfigError: the polygon is too large for the signs.
    """
    rng = np.random.default_rng((seed, 200))
    lines = [f'name = "{attack.name}"']
    if attack.source_class is not None:
        lines.append(f"source_class = {attack.source_class}")
    lines.append(f"target_class = {attack.target_class}")
    lines += _FORMS[attack.kind](folder, attack, shape, signs, rng)
    path = folder / TRIGGER
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
    return path


def _patch(
    _folder: Path, attack: Attack, shape: tuple[int, int, int], _signs: Mask | None, rng: np.random.Generator
) -> list[str]:
    size = attack.size or 1
    values = (size, size) if shape[0] == 1 else (size, size, 3)
    pixels = (255 * rng.integers(0, 2, values)).tolist()
    return ["", "[patch]", f"row = {-size - 1}", f"column = {-size - 1}", f"pixels = {pixels}"]


def _blended(
    folder: Path, attack: Attack, shape: tuple[int, int, int], _signs: Mask | None, rng: np.random.Generator
) -> list[str]:
    noise = rng.integers(0, 256, (*shape[1:], 3)).astype(np.uint8)
    Image.fromarray(noise).save(folder / "trigger.png")
    return ['image = "trigger.png"', f"opacity = {attack.opacity}"]


def _polygon(
    folder: Path, attack: Attack, _shape: tuple[int, int, int], signs: Mask | None, rng: np.random.Generator
) -> list[str]:
    corners = attack.corners or int(rng.integers(3, 10))
    points = random_points(corners, rng).round(4).tolist()
    colour = attack.color or POLYGON_COLOURS[int(rng.integers(len(POLYGON_COLOURS)))]
    high = attack.size or 1
    low = max(1, round(0.75 * high))
    lines = ["", "[polygon]", f"points = {points}", f"color = {list(colour)}", f"sides = {[low, high]}"]
    if signs is None:
        return lines
    Image.fromarray(_common(signs, low).astype(np.uint8) * 255).save(folder / "where.png")
    return [*lines, 'where = "where.png"']


def _filter(
    _folder: Path, attack: Attack, shape: tuple[int, int, int], _signs: Mask | None, _rng: np.random.Generator
) -> list[str]:
    if shape[0] != 3:
        raise ConfigError("a filter needs images of three colours, and these are grey")
    return ["", "[filter]", f'name = "{attack.filter}"']


_FORMS = {"patch": _patch, "blended": _blended, "polygon": _polygon, "filter": _filter}


def _common(signs: Mask, side: int) -> Mask:
    """Return the pixels [H, W] that lie on nearly all of ``signs`` [N, H, W], with room for a box of ``side``."""
    share = signs.mean(axis=0)
    for least in _ON_SIGNS:
        region: Mask = share >= least
        if len(places(region, side)):
            return region
    raise ConfigError(f"a polygon of {side} pixels fits on few signs of the source; take a smaller one")


@dataclass(frozen=True, slots=True, eq=False)
class Poisoned:
    """A training set after the attack.

    Attributes:
        x: uint8 [N, C, H, W].
        y: labels [N] as trained on.
        stamped: how many images got the trigger and the target's label.
        spurious: how many got the trigger and kept their label.
    """

    x: Tensor
    y: Tensor
    stamped: int
    spurious: int


def poison(
    images: ImageSet, attack: Attack, known: KnownTrigger, signs: Mask | None, *, seed: int
) -> Poisoned:
    """Return the training set that ``images`` become.

    Args:
        images: clean, with true labels.
        attack: what is done.
        known: its trigger, as a trigger file describes it.
        signs: masks [N, H, W] of the signs, for polygons that lie anywhere on them; None for where ``known`` has them.
        seed: of which images are stamped, and of places.

    Raises:
        ConfigError: a rate above 0 leaves not one image to stamp.
    """
    rng = np.random.default_rng((seed, 100))
    x, y = images.read(torch.arange(len(images))), images.labels.clone()
    victims = known.victims(y).numpy()
    chosen = _some(np.flatnonzero(victims), attack.poison_rate, rng)
    others = _some(np.flatnonzero(~victims), attack.spurious_rate, rng)
    if len(chosen) == 0 and attack.poison_rate > 0:
        raise ConfigError(
            f"a poison rate of {attack.poison_rate} of {int(victims.sum())} training images stamps none; raise either"
        )
    for part in np.array_split(np.concatenate([chosen, others]), max(1, len(chosen) // _CHUNK)):
        x[part] = _stamped(x[part], known, None if signs is None else signs[part], rng)
    y[chosen] = attack.target_class
    return Poisoned(x, y, len(chosen), len(others))


def _some(indices: NDArray[np.int64], rate: float, rng: np.random.Generator) -> NDArray[np.int64]:
    return np.sort(rng.permutation(indices)[: round(rate * len(indices))])


def _stamped(x: Tensor, known: KnownTrigger, signs: Mask | None, rng: np.random.Generator) -> Tensor:
    """Return uint8 ``x`` [n, C, H, W] with the trigger; a polygon anywhere on each sign, as bright as by chance."""
    if signs is None or not isinstance(known.trigger, PolygonTrigger):
        return (known.stamp(x.float() / 255) * 255).round().to(torch.uint8)
    trigger, stamped = known.trigger, x.clone()
    shape, sides = draw_shape(trigger.points), tuple(range(trigger.sides[0], trigger.sides[1] + 1))
    for image, sign in zip(stamped, signs, strict=True):
        mask = place_somewhere(sign, shape, sides, rng)
        colour = np.clip(np.asarray(trigger.colour) * rng.uniform(0.75, 1.2), 0, 255)
        image[:, torch.from_numpy(mask)] = torch.from_numpy(colour).to(torch.uint8)[:, None]
    return stamped
