"""Model folders of a round: what is in them, and what their configs and tables say."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mothkit.errors import ModelError
from mothkit.trojai.architectures import usual_name
from mothkit.trojai.documents import entries_below, read_config, read_metadata, read_truth
from mothkit.trojai.rounds import Round, recognise

_ID = re.compile(r"id-\d{8}")
_CLEAN = ("clean-example-data", "clean_example_data", "example_data", "new-clean-example-data")
_POISONED = ("poisoned-example-data", "poisoned_example_data", "new-poisoned-example-data")
_MAX_MODELS = 100_000
_MOST_TRIGGERS = 16  # in a table; the rounds have 4 at most


@dataclass(frozen=True, slots=True)
class KnownBackdoor:
    """One trigger as a round describes it.

    Attributes:
        number: its number, as in ``trigger_0.png``.
        kind: ``polygon`` or ``filter``.
        sources: the classes that it works on; None for any.
        target: the class that it asks for.
        look: a polygon's colour, or a filter's name as in ``mothkit.triggers.filters``; None where it is not told.
        condition: ``spatial``, ``spectral``, ``class``, or None.
        colour: a polygon's, red, green, blue, 0 to 255.
        size: least and largest share of the sign's pixels that a polygon's square takes.
        quadrant: of the sign, where a polygon must lie: 1 upper right, 2 upper left, 3 lower left, 4 lower right.
    """

    number: int
    kind: str
    sources: tuple[int, ...] | None
    target: int | None
    look: str | None
    condition: str | None = None
    colour: tuple[int, int, int] | None = None
    size: tuple[float, float] | None = None
    quadrant: int | None = None


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A model of a round, with what is known of it; None is unknown.

    Attributes:
        path: its folder.
        round: the round, or None where the files could be several rounds'.
        architecture: torchvision's or timm's name.
        clean, poisoned_examples: the folders of its examples.
        missing: what a model of a round has and this one has not.
        conflicts: what its files say differently.
    """

    path: Path
    round: Round | None = None
    architecture: str | None = None
    classes: int | None = None
    poisoned: bool | None = None
    backdoors: tuple[KnownBackdoor, ...] = ()
    clean: Path | None = None
    poisoned_examples: Path | None = None
    missing: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def model(self) -> Path:
        """Where the pickled model lies."""
        return self.path / "model.pt"


def find_models(root: Path) -> list[Path]:
    """Return the model folders of a round, sorted: ``root`` itself, ``id-XXXXXXXX`` in it, in models/ or below.

    Raises:
        ModelError: there are none.
    """
    if _is_model(root):
        return [root]
    found: list[Path] = []
    try:
        for entry in _folders(root):
            found += [entry] if _is_model(entry) else [inner for inner in _folders(entry) if _is_model(inner)]
    except OSError as error:
        raise ModelError(f"{root}: cannot be listed: {error.strerror or error}") from error
    if not found or len(found) > _MAX_MODELS:
        raise ModelError(
            f"{root}: holds {len(found)} models; expected folders id-00000000 with a model.pt in each"
        )
    return sorted(found, key=lambda path: (path.name, path))


def read_model(path: Path, tables: Mapping[str, Mapping[str, Any]] | None = None) -> ModelFolder:
    """Return what is known of the model in the folder ``path``.

    Args:
        path: one of ``find_models``'.
        tables: ``read_tables``' of the round; None reads what lies above the folder.

    Raises:
        ModelError: a config, table or ground truth that is there cannot be read.
    """
    entries = set(os.listdir(path))  # noqa: PTH208 - names alone
    row = (read_tables(path.parent) if tables is None else tables).get(path.name, {})
    config = read_config(path / "config.json") if "config.json" in entries else {}
    if not config and "reduced-config.json" in entries:
        config = read_config(path / "reduced-config.json")
    facts = {**row, **config}
    told = {
        "ground_truth.csv": read_truth(path / "ground_truth.csv") if "ground_truth.csv" in entries else None,
        "config.json": _truth(config.get("poisoned")),
        "METADATA.csv": _truth(row.get("poisoned", row.get("ground_truth"))),
    }
    backdoors = tuple(_backdoors(config) or _backdoors(row))
    architecture = facts.get("model_architecture")
    clean, poisoned = (_first(path, names, entries) for names in (_CLEAN, _POISONED))
    return ModelFolder(
        path=path,
        round=recognise(entries, config, row),
        architecture=None if architecture is None else usual_name(str(architecture)),
        classes=facts.get("number_classes") if type(facts.get("number_classes")) is int else None,
        poisoned=next((value for value in told.values() if value is not None), None),
        backdoors=backdoors,
        clean=clean,
        poisoned_examples=poisoned,
        missing=tuple(_missing(entries, clean, bool(config))),
        conflicts=tuple(_conflicts(told, backdoors)),
        facts=facts,
    )


def read_models(root: Path) -> list[ModelFolder]:
    """Return what is known of each model of a round, by name; of one whose files cannot be read, why.

    Raises:
        ModelError: there are none, or METADATA.csv cannot be read.
    """
    paths = find_models(root)
    tables = {parent: read_tables(parent) for parent in {path.parent for path in paths}}
    return [_read_or_tell(path, tables[path.parent]) for path in paths]


def _read_or_tell(path: Path, tables: Mapping[str, Mapping[str, Any]]) -> ModelFolder:
    try:
        return read_model(path, tables)
    except (ModelError, OSError) as error:
        return ModelFolder(path, conflicts=(str(error),))  # one damaged folder of hundreds


def read_tables(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the lines of the METADATA.csv in ``folder`` or above it, where models/ is in between; by model name.

    Raises:
        ModelError: it cannot be read.
    """
    for place in (folder, folder.parent):
        for path in sorted(place.glob("*METADATA.csv")):
            return read_metadata(path)
    return {}


def _folders(path: Path) -> list[Path]:
    return [entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith(".")]


def _is_model(path: Path) -> bool:
    held = ("model.pt", "config.json", *_CLEAN)
    return _ID.fullmatch(path.name) is not None or any((path / name).exists() for name in held)


def _first(path: Path, names: tuple[str, ...], entries: set[str]) -> Path | None:
    return next((path / name for name in names if name in entries), None)


def _missing(entries: set[str], clean: Path | None, has_config: bool) -> list[str]:  # noqa: FBT001
    found = [] if "model.pt" in entries else ["model.pt"]
    found += [] if clean is not None else ["clean examples"]
    return found + ([] if has_config else ["config.json"])


def _truth(value: object) -> bool | None:
    return bool(value) if isinstance(value, bool | int) else None


def _conflicts(told: Mapping[str, bool | None], backdoors: tuple[KnownBackdoor, ...]) -> list[str]:
    known = {source: value for source, value in told.items() if value is not None}
    if len(set(known.values())) > 1:
        return [", ".join(f"{source} says {'poisoned' if v else 'clean'}" for source, v in known.items())]
    if backdoors and known and not any(known.values()):
        return [f"{', '.join(known)} say clean, but {len(backdoors)} triggers are described"]
    return []


def _backdoors(facts: Mapping[str, Any]) -> list[KnownBackdoor]:
    """Return the triggers that a config or a line of METADATA.csv describes, of any round."""
    listed = facts.get("triggers")
    if isinstance(listed, list):
        return [_one(number, entry) for number, entry in enumerate(listed) if isinstance(entry, dict)]
    for stem, mark in (("triggers_{}_", "target_class"), ("trigger_{}.", "target_class")):
        below = [entries_below(facts, stem.format(number)) for number in range(_MOST_TRIGGERS)]
        if any(entry.get(mark) is not None for entry in below):
            return [_one(n, entry) for n, entry in enumerate(below) if entry.get(mark) is not None]
    if facts.get("trigger_target_class") is None:
        return []
    sources = facts.get("triggered_classes")
    numbers = [n for n in sources if type(n) is int] if isinstance(sources, list) else []
    everywhere = len(numbers) == facts.get("number_classes") or not numbers
    single = {**entries_below(facts, "trigger_"), **facts, "target_class": facts["trigger_target_class"]}
    single["type"] = facts.get("trigger_type")
    return [_one(0, single, sources=None if everywhere else tuple(numbers))]


def _one(number: int, entry: Mapping[str, Any], *, sources: tuple[int, ...] | None = None) -> KnownBackdoor:
    kinds = (str(entry.get(key)).lower() for key in ("py/object", "trigger_executor", "type"))
    is_filter = any("instagram" in kind for kind in kinds)
    source, target = entry.get("source_class"), entry.get("target_class")
    own = entry.get("trigger_number", entry.get("trigger_id", number))
    condition = entry.get("condition", entry.get("options"))
    colour, quadrant = _colour(entry), entry.get("spatial_quadrant")
    return KnownBackdoor(
        number=own if type(own) is int else number,
        kind="filter" if is_filter else "polygon",
        sources=(source,) if type(source) is int else sources,
        target=target if type(target) is int else None,
        look=_filter_name(entry) if is_filter else None if colour is None else f"rgb{colour}",
        condition=None if str(condition) in ("None", "none") else str(condition),
        colour=None if is_filter else colour,
        size=shares_of(entry, "size_percentage_of_foreground"),
        quadrant=quadrant or 4
        if type(quadrant) is int and 0 <= quadrant <= 4
        else None,  # round 11 counts from 0
    )


def _filter_name(entry: Mapping[str, Any]) -> str | None:
    """Return the filter by our name: GothamFilterXForm is gotham."""
    keys = ("instagram_filter_type", "trigger_type_option", "type")
    named = [str(entry.get(key)) for key in keys if str(entry.get(key)).endswith("XForm")]
    return named[0].removesuffix("XForm").removesuffix("Filter").lower() if named else None


def _colour(entry: Mapping[str, Any]) -> tuple[int, int, int] | None:
    found = entry.get("color", entry.get("trigger_color"))
    if not isinstance(found, list) or [type(value) for value in found] != [int, int, int]:
        return None
    red, green, blue = (min(max(value, 0), 255) for value in found)
    return red, green, blue


def shares_of(facts: Mapping[str, Any], name: str) -> tuple[float, float] | None:
    """Return the least and the largest share that a config gives as ``name_min`` and ``name_max``, if it does."""
    low, high = facts.get(f"{name}_min"), facts.get(f"{name}_max")
    if not isinstance(low, float | int) or not isinstance(high, float | int) or not 0 < low <= high <= 1:
        return None
    return float(low), float(high)
