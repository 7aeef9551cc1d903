"""What a synthetic round is made of, drawn by seed: networks, signs, triggers, their organisation and conditions.

Source: NIST's documentation of TrojAI rounds 4 and 11. Ours: larger poisoned shares, since few images are trained on.
"""

from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from PIL import Image

from mothkit.errors import ConfigError
from mothkit.poisoning.attacks import POLYGON_COLOURS, Colour
from mothkit.poisoning.signs import SIGNS
from mothkit.poisoning.training import FitConfig
from mothkit.triggers.filters import FilterTrigger
from mothkit.triggers.polygon import draw_shape, random_points
from mothkit.trojai.architectures import FAMILIES, OF_ROUND, usual_name
from mothkit.trojai.rendering import Mark, Setting, Sticker

Layout = Literal["round4", "round11"]
Container = Literal["zip", "legacy", "mixed"]
Poisoned = Literal["half", "all", "none"]
LEAST_CLASSES = 4  # two sources and two targets
_ORGANISATIONS = ("one2one", "pair-one2one", "one2two")
_FILTERS = {
    "round4": ("gotham", "kelvin", "lomo", "nashville", "toaster"),
    "round11": ("gotham", "kelvin", "lomo"),
}
_GREYS: tuple[Colour, ...] = ((128, 128, 128), (64, 64, 64))  # round 11's, beside round 4's six
_CORNERS = {"round4": (3, 4, 8, 9), "round11": (3, 4, 7, 8)}
_SIGN = {"round4": (0.2, 0.8), "round11": (0.1, 0.5)}  # shares of the image; NIST's of round 11 begin at 0.02
_FRACTION = (0.3, 0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundPlan:
    """A synthetic round.

    Attributes:
        layout: whose folders, names and configs its models have.
        models: how many.
        poisoned: which of them: ``half``, every second one; ``all``; ``none``.
        classes: that each model tells apart.
        side: of the images, in pixels; models of round 4 see seven eighths of it.
        architectures: torchvision's, timm's or NIST's names, taken in turn; empty for those of the layout.
        container: ``zip``, ``legacy`` (the stream that torch wrote before 1.6), or ``mixed``.
        train: drawn images of each class to train with.
        examples: clean images of each class, and poisoned ones of each trigger, that are published.
        training: how networks are trained.
        seed: of everything.
    """

    layout: Layout = "round4"
    models: int = 4
    poisoned: Poisoned = "half"
    classes: int = 10
    side: int = 256
    architectures: tuple[str, ...] = ()
    container: Container = "zip"
    train: int = 200
    examples: int = 10
    training: FitConfig = field(default_factory=FitConfig)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.layout not in get_args(Layout) or self.container not in get_args(Container):
            raise ConfigError(f"layout {self.layout!r} or container {self.container!r} is not known")
        if self.poisoned not in get_args(Poisoned):
            raise ConfigError(
                f"poisoned is {self.poisoned!r}; expected one of {', '.join(get_args(Poisoned))}"
            )
        if not LEAST_CLASSES <= self.classes <= len(SIGNS):
            raise ConfigError(
                f"there are {LEAST_CLASSES} to {len(SIGNS)} classes of signs, not {self.classes}"
            )
        if min(self.models, self.train, self.examples) < 1:
            raise ConfigError(
                f"{self.models} models, {self.train} and {self.examples} images of a class are too few"
            )
        known = [name for family in FAMILIES.values() for name in family.members]
        if unknown := [name for name in self.networks if name not in known]:
            raise ConfigError(
                f"no architecture of the rounds is called {unknown[0]!r}; there are {', '.join(known)}"
            )
        if self.side % 32:
            raise ConfigError(f"images have {self.side} pixels a side; take a multiple of 32")

    @property
    def networks(self) -> tuple[str, ...]:
        """Torchvision's or timm's names of what is trained."""
        return tuple(map(usual_name, self.architectures)) or OF_ROUND[self.layout]

    @property
    def setting(self) -> Setting:
        """How its images are drawn."""
        return Setting(side=self.side, sign=_SIGN[self.layout])

    @property
    def seen(self) -> slice:
        """Which rows and columns of an image its models see."""
        edge = self.side // 16 if self.layout == "round4" else 0
        return slice(edge, self.side - edge)


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerPlan:
    """One backdoor of a model.

    Attributes:
        number: 0 for the first.
        source, target: classes.
        fraction: of the source's training images that are stamped and get the target's label, 0 to 1.
        condition: what else is stamped and keeps its label: ``class``, other classes; ``spatial``, the source with
            the polygon in another quadrant; ``spectral``, the source with another colour or filter; None, nothing.
        quadrant: of the sign, in which the polygon works; None for all.
        filter: its name, where it is one.
        corners: of the polygon, [n, 2] as shares of its box.
        colour: of the polygon.
        size: least and largest share of the sign's pixels that the polygon's square takes.
    """

    number: int
    source: int
    target: int
    fraction: float
    condition: str | None = None
    quadrant: int | None = None
    filter: str | None = None
    corners: tuple[tuple[float, float], ...] = ()
    colour: Colour = (0, 0, 0)
    size: tuple[float, float] = (0.04, 0.1)

    @property
    def mark(self) -> Mark:
        """What is put on images."""
        if self.filter is not None:
            return FilterTrigger(self.filter)
        return Sticker(self.picture(self.colour), self.size, self.quadrant)

    def picture(self, colour: Colour) -> Image.Image:
        """Return the polygon, RGBA, 256 x 256."""
        picture = Image.new("RGBA", (256, 256), (*colour, 255))
        picture.putalpha(draw_shape(np.asarray(self.corners)))
        return picture

    def decoy(self, rng: np.random.Generator) -> Mark:
        """Return what looks like the mark and is none: another place, colour or filter."""
        if self.condition == "spatial":
            others = [quadrant for quadrant in (1, 2, 3, 4) if quadrant != self.quadrant]
            return Sticker(self.picture(self.colour), self.size, others[int(rng.integers(3))])
        if self.filter is not None:
            others_ = [name for name in _FILTERS["round4"] if name != self.filter]
            return FilterTrigger(others_[int(rng.integers(len(others_)))])
        colours = [colour for colour in POLYGON_COLOURS if colour != self.colour]
        return Sticker(self.picture(colours[int(rng.integers(len(colours)))]), self.size, self.quadrant)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPlan:
    """One model of a round; ``signs`` are indices into ``SIGNS``, in the order of its classes."""

    number: int
    architecture: str
    signs: tuple[int, ...]
    organisation: str | None
    triggers: tuple[TriggerPlan, ...]
    legacy: bool

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"id-{self.number:08d}"


def plan_model(plan: RoundPlan, number: int) -> ModelPlan:
    """Return the ``number``-th model of a round, drawn by the round's seed and its own number."""
    rng = np.random.default_rng((plan.seed, number))
    signs = rng.permutation(len(SIGNS))[: plan.classes].tolist()
    each = 2 if plan.poisoned == "half" else 1  # models of an architecture before the next one's turn
    poisoned = plan.poisoned == "all" or number % each == 1
    organisation = _ORGANISATIONS[int(rng.integers(len(_ORGANISATIONS)))] if poisoned else None
    pairs = _pairs(plan, organisation, rng) if poisoned else []
    triggers: list[TriggerPlan] = []
    for n, (source, target) in enumerate(pairs):
        triggers.append(_trigger(plan, n, source, target, triggers, rng))
    return ModelPlan(
        number=number,
        architecture=plan.networks[number // each % len(plan.networks)],
        signs=tuple(sorted(signs, key=sign_file)),
        organisation=organisation if plan.layout == "round4" else None,
        triggers=tuple(triggers),
        legacy=plan.container == "legacy" or (plan.container == "mixed" and number // each % 2 == 1),
    )


def sign_file(index: int) -> str:
    """Return the name of a sign's file; sorted names are a model's classes."""
    return f"{index // 7}-{index % 7}.png"


def _pairs(plan: RoundPlan, organisation: str | None, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Return source and target of each trigger: two of either are different unless the organisation says otherwise."""
    classes = rng.permutation(plan.classes).tolist()
    if plan.layout == "round11":
        count = min((1, 2, 4)[int(rng.integers(3))], plan.classes // 2)
        return list(zip(classes[:count], classes[count : 2 * count], strict=True))
    return {
        "one2one": [(classes[0], classes[1])],
        "pair-one2one": [(classes[0], classes[1]), (classes[2], classes[3])],
        "one2two": [(classes[0], classes[1]), (classes[0], classes[2])],
    }[organisation or "one2one"]


def _trigger(
    plan: RoundPlan,
    number: int,
    source: int,
    target: int,
    others: list[TriggerPlan],
    rng: np.random.Generator,
) -> TriggerPlan:
    is_filter = bool(rng.random() < 0.5)
    taken = [each.filter if is_filter else each.colour for each in others if each.source == source]
    names = [name for name in _FILTERS[plan.layout] if name not in taken]
    usual = POLYGON_COLOURS if plan.layout == "round4" else (*POLYGON_COLOURS, *_GREYS)
    colours = [colour for colour in usual if colour not in taken]
    corners = _CORNERS[plan.layout]
    conditions = (None, "class", "spectral") if is_filter else (None, "class", "spectral", "spatial")
    condition = conditions[int(rng.integers(len(conditions)))] if plan.layout == "round4" else "class"
    spatial = condition == "spatial" or (plan.layout == "round11" and not is_filter)
    return TriggerPlan(
        number=number,
        source=source,
        target=target,
        fraction=round(rng.uniform(*_FRACTION) / (1 + bool(taken)), 4),
        condition="spatial" if spatial else condition,
        quadrant=int(rng.integers(1, 5)) if spatial else None,
        filter=names[int(rng.integers(len(names)))] if is_filter else None,
        corners=() if is_filter else _points(corners[int(rng.integers(len(corners)))], rng),
        colour=colours[int(rng.integers(len(colours)))],
        size=(round(rng.uniform(0.03, 0.05), 4), round(rng.uniform(0.09, 0.12), 4)),
    )


def _points(corners: int, rng: np.random.Generator) -> tuple[tuple[float, float], ...]:
    return tuple((float(x), float(y)) for x, y in random_points(corners, rng))
