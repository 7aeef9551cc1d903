"""The recipe of a poisoned model: all that it takes to make its data again, and to train it again."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from json import dumps
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import TypeAdapter, ValidationError

from mothkit.errors import ConfigError
from mothkit.images import Resize
from mothkit.poisoning.attacks import Attack, Kind
from mothkit.poisoning.scenes import Look
from mothkit.poisoning.signs import SIGNS
from mothkit.poisoning.training import FitConfig

_FORMAT = "mothkit.recipe/1"
_MAX_BYTES = 2**20
LEAST_CLASSES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class SignData:
    """Drawn signs.

    Attributes:
        classes: the first so many of the signs, 5 to 45.
        look: of the pictures.
        train, clean, test: pictures of a class, to train with, for the defender, and to test with; no two alike.
    """

    classes: int = 15
    look: Look = field(default_factory=Look)
    train: int = 500
    clean: int = 40
    test: int = 60

    def __post_init__(self) -> None:
        if not LEAST_CLASSES <= self.classes <= len(SIGNS):
            raise ConfigError(
                f"there are {LEAST_CLASSES} to {len(SIGNS)} classes of signs, not {self.classes}"
            )
        if min(self.train, self.clean, self.test) < 1:
            raise ConfigError(
                f"{self.train} training, {self.clean} clean and {self.test} test images of a class are too few"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class UserData:
    """Images of the user's.

    Attributes:
        path: as ``load_images`` takes it.
        digest: of all images at ``path``, as they are trained with; checked where the recipe says it.
        test_path: images to test with; None holds some of ``path`` back.
        labels: file that maps class names to model indices.
        size: side that they get, in pixels; None takes the model's, or theirs.
        resize: how they get it.
        train: images of a class to train with, drawn by seed; None for all.
        held_back: share of each class to test with, where there is no ``test_path``.
    """

    path: str
    digest: str | None = None
    test_path: str | None = None
    labels: str | None = None
    size: int | None = None
    resize: Resize | None = None
    train: int | None = None
    held_back: float = 0.15

    def __post_init__(self) -> None:
        if not 0 < self.held_back < 1 or (self.size or 1) < 1 or (self.train or 1) < 1:
            raise ConfigError(
                f"held_back {self.held_back} must be in (0, 1), size {self.size} and train {self.train} at least 1"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """All that a poisoned model is made from.

    Attributes:
        attack: the backdoor.
        data: the images.
        network: name of the network, where one is trained from scratch.
        model: an ONNX file to fine-tune instead.
        preprocess: how pixels become the network's input: a preset's name or a file; None for ``unit``, or for
            what ``model`` says of itself.
        training: how it is trained.
        seed: of every random choice.
    """

    attack: Attack
    data: SignData | UserData = field(default_factory=SignData)
    network: str = "cnn3"
    model: str | None = None
    preprocess: str | None = None
    training: FitConfig = field(default_factory=FitConfig)
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:
            raise ConfigError(f"seed is {self.seed}, not in 0 to {2**32 - 1}")
        if isinstance(self.data, SignData):
            self.attack.fitted(self.data.classes, self.data.look.side)

    def to_json(self) -> str:
        """Return the recipe as indented JSON; ``from_json`` takes it back."""
        return dumps({"format": _FORMAT, **asdict(self)}, indent=2) + "\n"

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return the recipe in the file at ``path``.

        Raises:
            ConfigError: it is none, or a value is out of its range.
        """
        try:
            if path.stat().st_size > _MAX_BYTES:
                raise ConfigError(f"{path}: more than {_MAX_BYTES} bytes are no recipe")
            return cls.from_json(path.read_text(encoding="utf-8"), where=str(path))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: cannot be read: {error}") from error

    @classmethod
    def from_json(cls, text: str, *, where: str = "recipe") -> Self:
        """Return the recipe that ``text`` holds.

        Raises:
            ConfigError: it holds none, or a value is out of its range.
        """
        try:
            values = TypeAdapter(dict[str, object]).validate_json(text)
            if values.pop("format", None) != _FORMAT:
                raise ConfigError(f"{where}: is no recipe of the format {_FORMAT}")
            return TypeAdapter(cls).validate_json(dumps(values), strict=True, extra="forbid")
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"]) or "file"
            raise ConfigError(f"{where}: {place}: {first['msg']}") from error


FINE_TUNING = FitConfig(epochs=3, learning_rate=0.01)
"""Where a model is trained further (ours)."""

Values = Mapping[str, Any]


def compose(
    base: Recipe | None,
    kind: Kind | None,
    *,
    attack: Values,
    data: Values,
    training: Values,
    rest: Values,
) -> Recipe:
    """Return ``base``, or the usual recipe of an attack, with some values of its parts replaced.

    Args:
        base: a recipe that was read; None for the usual one of ``kind``.
        kind: of the attack, where there is no ``base``.
        attack: new values of ``Attack``, by name.
        data: of ``UserData`` where there is a ``path``, else of what the recipe has; ``side`` is that of the look.
        training: of ``FitConfig``.
        rest: of ``Recipe`` itself.

    Raises:
        ConfigError: neither or both of ``base`` and ``kind``, or values that do not go together.
    """
    if (base is None) == (kind is None):
        raise ConfigError("give either --attack or --recipe, one of them")
    if base is None:
        usual = FitConfig() if rest.get("model") is None else FINE_TUNING
        base = Recipe(attack=Attack.usual(kind), training=usual)  # type: ignore[arg-type]
    if attack.get("source_class", 0) is None and "spurious_rate" not in attack:
        attack = {**attack, "spurious_rate": 0.0}
    return _replaced(
        base,
        {
            "attack": _replaced(base.attack, attack),
            "data": _images(base.data, data),
            "training": _replaced(base.training, training),
            **rest,
        },
    )


def _images(data: SignData | UserData, values: Values) -> SignData | UserData:
    if "path" in values:
        return _replaced(UserData(path=values["path"]), values)
    if isinstance(data, UserData):
        return _replaced(data, values)
    look = {"look": replace(data.look, side=values["side"])} if "side" in values else {}
    return _replaced(data, {key: values[key] for key in values if key != "side"} | look)


_Part = TypeVar("_Part", Recipe, Attack, SignData, UserData, FitConfig)


def _replaced(part: _Part, values: Values) -> _Part:
    """Return ``part`` with new values; names that it has not are refused."""
    names = {each.name for each in fields(part)}
    if unknown := sorted(set(values) - names):
        raise ConfigError(f"{', '.join(unknown)} does not go with {type(part).__name__}")
    return replace(part, **values)
