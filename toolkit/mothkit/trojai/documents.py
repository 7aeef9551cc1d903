"""NIST's configs and tables, read as plain values: jsonpickle's objects are never made."""

import csv
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mothkit.errors import ModelError

_MAX_BYTES = 64 << 20
_MAX_DEPTH = 50
_COLOUR = 3


def read_config(path: Path) -> dict[str, Any]:
    """Return a config.json as a mapping: keys in lower case, objects as the mappings of their attributes.

    jsonpickle's references to a list that occurred before become that list where it is a colour, else None.

    Raises:
        ModelError: it cannot be read, or holds no mapping.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ModelError(f"{path}: {path.stat().st_size} bytes are no config")
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(document, dict):
        raise ModelError(f"{path}: holds a {type(document).__name__}, expected a config")
    found = _plain(document, list(_referable(document)))
    assert isinstance(found, dict)  # noqa: S101 - a mapping stays one
    return found


def _referable(value: object, depth: int = 0) -> Iterator[object]:
    """Yield what jsonpickle counts for its references, in its order: objects and lists."""
    if depth > _MAX_DEPTH:
        return
    if isinstance(value, list) or (isinstance(value, dict) and "py/object" in value):
        yield value
    inner = value if isinstance(value, list) else list(value.values()) if isinstance(value, dict) else []
    for each in inner:
        yield from _referable(each, depth + 1)


def _plain(value: object, referable: list[object], depth: int = 0) -> object:
    if depth > _MAX_DEPTH:
        return None
    if isinstance(value, list):
        return [_plain(item, referable, depth + 1) for item in value]
    if not isinstance(value, dict):
        return value
    if "py/id" in value:
        return _colour_at(value["py/id"], referable)
    state = value.get("py/state")
    merged = value | (state if isinstance(state, dict) else {})
    return {
        str(key).lower(): _plain(item, referable, depth + 1)
        for key, item in merged.items()
        if key != "py/state"
    }


def _colour_at(number: object, referable: list[object]) -> object:
    if type(number) is not int or not 0 <= number < len(referable):
        return None
    found = referable[number]
    is_colour = isinstance(found, list) and len(found) == _COLOUR and all(type(n) is int for n in found)
    return found if is_colour else None


def read_metadata(path: Path) -> dict[str, dict[str, Any]]:
    """Return the lines of a METADATA.csv by model name, of any round's dialect; column names in lower case.

    Raises:
        ModelError: it cannot be read, names no models, or a line has another number of values than columns.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ModelError(f"{path}: {path.stat().st_size} bytes are no METADATA.csv")
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file)
            columns = [name.strip().lower() for name in next(lines, [])]
            rows = [row for row in lines if row]
    except (OSError, ValueError, csv.Error) as error:
        raise ModelError(f"{path}: cannot be read: {error}") from error
    if "model_name" not in columns:
        raise ModelError(f"{path}: has no column model_name")
    for number, row in enumerate(rows, start=2):
        if len(row) != len(columns):
            raise ModelError(f"{path}, line {number}: has {len(row)} values for {len(columns)} columns")
    parsed = [{c: parse_value(v) for c, v in zip(columns, row, strict=True)} for row in rows]
    return {str(each["model_name"]): each for each in parsed}


def parse_value(text: str) -> object:
    """Return a table's value: a number, a truth value, a list of numbers, None, or the text."""
    text = text.strip()
    if text.lower() in ("", "none", "nan", "null"):
        return None
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if re.fullmatch(r"-?\d{1,18}", text):
        return int(text)
    if re.fullmatch(r"\[[\s\d,.-]*\]", text):
        return [parse_value(part) for part in re.split(r"[\s,]+", text[1:-1].strip()) if part]
    if re.fullmatch(r"-?\d+\.?\d*(?:[eE][-+]?\d+)?", text):
        return float(text)
    return text


def read_truth(path: Path) -> bool:
    """Return whether a ground_truth.csv says that the model is poisoned.

    Raises:
        ModelError: it says something else than 0 or 1.
    """
    try:
        text = path.read_text(encoding="utf-8")[:64].strip()
        number = float(text)
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read as 0 or 1: {error}") from error
    if number not in (0, 1):
        raise ModelError(f"{path}: says {text!r}, expected 0 or 1")
    return number == 1


def entries_below(row: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Return the entries of ``row`` that begin with ``prefix``, without it."""
    return {key.removeprefix(prefix): value for key, value in row.items() if key.startswith(prefix)}
