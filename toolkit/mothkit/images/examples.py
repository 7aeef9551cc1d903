"""Example images of TrojAI's rounds: one flat folder, the labels in file names or in JSON beside the files."""

import csv
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from mothkit.errors import ImageError
from mothkit.images.pictures import SUFFIXES, FolderFiles, Pictures
from mothkit.images.sources import Limits

_NAME = re.compile(r"class_(\d{1,6})(?:_trigger_(\d{1,6}))?_example_\d+")
_LOOKUP = "test_example_data_lookup.json"  # beside the folder, in the mitigation round
_MAX_JSON = 16 << 20


@dataclass(frozen=True, slots=True)
class Example:
    """One image of a round.

    Attributes:
        file: its name in the folder.
        clean_label: its true class, where the round says it.
        poisoned_label: the class that its trigger asks for, where it carries one and the round says it.
        trigger: the number of its trigger, where its name says it.
    """

    file: str
    clean_label: int | None
    poisoned_label: int | None = None
    trigger: int | None = None


def read_examples(folder: Path, limits: Limits) -> list[Example]:
    """Return the examples in ``folder``, sorted by name; none if it is no such folder.

    In a folder whose name says ``poisoned``, a bare number in JSON is the class that the trigger asks for.

    Raises:
        ImageError: labels that cannot be read or contradict each other, or too many files.
    """
    pictures, others = _listed(folder, limits)
    named = [file for file in pictures if _NAME.fullmatch(Path(file).stem)]
    described = [file for file in pictures if f"{Path(file).stem}.json" in others]
    lookup = _lookup(folder)
    if not (named or described or lookup):
        return []
    found = [_example(folder, file, others, lookup) for file in pictures]
    if "data.csv" in others:
        _check_table(folder / "data.csv", found)
    return found


def find_examples(folder: Path, limits: Limits) -> Pictures | None:
    """Return clean examples with their labels as class folders, or None if ``folder`` holds no examples.

    Raises:
        ImageError: they carry triggers, or some have no label.
    """
    examples = read_examples(folder, limits)
    if not examples:
        return None
    if any(example.poisoned_label is not None or example.trigger is not None for example in examples):
        raise ImageError(
            f"{folder}: holds examples that carry triggers, no clean images; give a clean folder"
        )
    return as_pictures(folder, examples)


def as_pictures(folder: Path, examples: Sequence[Example]) -> Pictures:
    """Return ``examples`` as pictures whose class folders are called by their clean labels.

    Raises:
        ImageError: some have no clean label.
    """
    if unknown := [example.file for example in examples if example.clean_label is None]:
        raise ImageError(
            f"{folder}: {len(unknown)} of {len(examples)} examples have no label, first {unknown[0]}; the label of an "
            "image lies in its name or in a .json beside it"
        )
    files = FolderFiles(folder, tuple(example.file for example in examples))
    return Pictures(files, tuple(str(example.clean_label) for example in examples))


def _listed(folder: Path, limits: Limits) -> tuple[list[str], set[str]]:
    """Return the sorted pictures in a folder, and all its other files."""
    pictures, others = [], set()
    for count, path in enumerate(folder.iterdir()):
        if count > limits.files:
            raise ImageError(f"{folder}: more than {limits.files} files")
        if path.suffix.lower() in SUFFIXES:
            pictures.append(path.name)
        else:
            others.add(path.name)
    return sorted(pictures), others


def _example(folder: Path, file: str, others: set[str], lookup: Mapping[str, Any]) -> Example:
    stem = Path(file).stem
    match = _NAME.fullmatch(stem)
    if match:
        trigger = None if match[2] is None else int(match[2])
        return Example(file, int(match[1]), trigger=trigger)
    if file in lookup:
        return _labelled(folder / file, lookup[file])
    if f"{stem}.json" in others:
        return _labelled(folder / file, _read_json(folder / f"{stem}.json"))
    return Example(file, None)


def _labelled(path: Path, found: object) -> Example:
    """Return the example at ``path`` with what was ``found`` of it: a number, or clean and poisoned labels."""
    if _is_label(found):
        return Example(path.name, None, found) if _is_poisoned(path.parent) else Example(path.name, found)
    if isinstance(found, dict) and _is_label(clean := found.get("clean_label")):
        poisoned = found.get("poisoned_label")
        if poisoned is None or _is_label(poisoned):
            return Example(path.name, clean, poisoned)
    raise ImageError(f"{path}: its label is {str(found)[:80]}; expected a class number, or clean_label")


def _is_label(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < 10**6


def _is_poisoned(folder: Path) -> bool:
    return "poisoned" in folder.name


def _lookup(folder: Path) -> Mapping[str, Any]:
    path = folder.parent / _LOOKUP
    if folder.name != "test-example-data" or not path.is_file():
        return {}
    found = _read_json(path)
    if not isinstance(found, dict):
        raise ImageError(f"{path}: holds a {type(found).__name__}, expected file names with their labels")
    return found


def _read_json(path: Path) -> Any:  # noqa: ANN401 - whatever the JSON holds
    try:
        if path.stat().st_size > _MAX_JSON:
            raise ImageError(f"{path}: {path.stat().st_size} bytes are no label")
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ImageError(f"{path}: a label cannot be read: {error}") from error


def _check_table(path: Path, examples: Sequence[Example]) -> None:
    """Refuse examples of which the table of rounds 0 and 1 says another label than their name."""
    by_name = {example.file: example for example in examples}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise ImageError(f"{path}: cannot be read: {error}") from error
    for row in rows:
        example = by_name.get(row.get("file") or "")
        said = {row.get("true_label"), row.get("train_label")}
        if example is not None and said != {str(example.clean_label)}:
            raise ImageError(
                f"{path}: says {sorted(map(str, said))} of {example.file}, its name {example.clean_label}"
            )
