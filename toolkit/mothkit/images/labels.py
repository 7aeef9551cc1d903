"""Which class has which index in the model: sorted folder names, or a file that says so."""

import csv
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from mothkit.errors import ImageError

_MAX_LABEL_FILE = 16 << 20


def sorted_classes(folders: Collection[str]) -> dict[str, int]:
    """Return folder name to index: in sorted order, or in numeric order where every name is a number."""
    numeric = all(name.isascii() and name.isdigit() for name in folders)
    ordered = sorted(folders, key=lambda name: (int(name) if numeric else 0, name))
    return {name: index for index, name in enumerate(ordered)}


def read_label_file(path: Path, *, max_classes: int) -> dict[str, int]:
    """Return class name to model index.

    Args:
        path: a CSV of ``name,index`` lines (a heading is allowed), a JSON object of the same, or text with
            one class name a line (or a JSON list of them) in the model's order.
        max_classes: indices must be below this.

    Raises:
        ImageError: it cannot be read, is empty, names a class or an index twice, or an index is out of range.
    """
    pairs = _read_pairs(path)
    if not pairs:
        raise ImageError(f"{path}: names no classes")
    indices: dict[str, int] = {}
    names: dict[int, str] = {}
    for name, index in pairs:
        if not 0 <= index < max_classes:
            raise ImageError(f"{path}: class {name!r} has index {index}, not in 0..{max_classes - 1}")
        if name in indices:
            raise ImageError(f"{path}: class {name!r} is named twice")
        if index in names:
            raise ImageError(f"{path}: classes {names[index]!r} and {name!r} both have index {index}")
        indices[name], names[index] = index, name
    return indices


def check_folders(folders: Collection[str], indices: Mapping[str, int], path: Path, origin: str) -> None:
    """Check that the folders of ``origin`` are just the classes of the label file ``path``.

    Raises:
        ImageError: a folder that the file does not name, or a class without a folder.
    """
    if unknown := sorted(set(folders) - set(indices)):
        raise ImageError(
            f"{origin}: {len(unknown)} folders are no class of {path}, first {unknown[0]!r}; "
            f"add them to the labels, or take the folders away"
        )
    if missing := sorted(set(indices) - set(folders)):
        raise ImageError(
            f"{origin}: {len(missing)} classes of {path} have no folder, first {missing[0]!r}; "
            f"add their images, or give labels as a CSV of 'folder,index' lines for the folders that exist"
        )


def ordered_names(indices: Mapping[str, int]) -> tuple[str, ...]:
    """Return class names by index; an index that has none is called ``class_<index>``."""
    by_index = {index: name for name, index in indices.items()}
    return tuple(by_index.get(index, f"class_{index}") for index in range(max(by_index) + 1))


def number_names(labels: NDArray[Any], origin: str, max_classes: int) -> tuple[str, ...]:
    """Return names ``0`` to the highest of integer ``labels`` [N].

    Raises:
        ImageError: no labels, or one that is not in 0..max_classes-1.
    """
    if not labels.size:
        raise ImageError(f"{origin}: there are no images")
    check_labels(labels, max_classes, origin)
    return tuple(map(str, range(int(labels.max()) + 1)))


def check_labels(labels: NDArray[Any], classes: int, origin: str) -> None:
    """Check that integer ``labels`` [N] lie in 0..classes-1.

    Raises:
        ImageError: one does not; the first is named.
    """
    wrong = ((labels < 0) | (labels >= classes)).nonzero()[0]
    if len(wrong):
        raise ImageError(
            f"{origin}: {len(wrong)} labels are out of range, first {labels[wrong[0]]} of image {wrong[0]}; "
            f"there are {classes} classes, so labels are 0..{classes - 1}"
        )


def _read_pairs(path: Path) -> list[tuple[str, int]]:
    try:
        if path.stat().st_size > _MAX_LABEL_FILE:
            raise ImageError(f"{path}: {path.stat().st_size} bytes are no label file")
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".json":
            return _json_pairs(json.loads(text, object_pairs_hook=list), path)
        if path.suffix.lower() == ".csv":
            return _csv_pairs(text, path)
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        raise ImageError(f"{path}: labels cannot be read: {error}") from error
    return [(name, index) for index, name in enumerate(filter(None, map(str.strip, text.splitlines())))]


def _json_pairs(parsed: Any, path: Path) -> list[tuple[str, int]]:  # noqa: ANN401 (whatever the JSON held)
    # Objects arrive as lists of pairs, so that a name that stands twice is seen.
    if isinstance(parsed, list) and all(isinstance(item, str) for item in parsed):
        return [(name, index) for index, name in enumerate(parsed)]
    if not isinstance(parsed, list) or not all(_is_pair(item) for item in parsed):
        raise ImageError(f"{path}: expected a JSON object of class name to index, or a list of class names")
    return [(name, index) for name, index in parsed]


def _is_pair(item: object) -> bool:
    return isinstance(item, tuple) and len(item) == 2 and type(item[1]) is int


def _csv_pairs(text: str, path: Path) -> list[tuple[str, int]]:
    pairs = []
    for line, row in enumerate(csv.reader(text.splitlines()), start=1):
        cells = [cell.strip() for cell in row]
        if not any(cells) or (line == 1 and len(cells) == 2 and not _is_integer(cells[1])):
            continue  # a blank line, or a heading
        if len(cells) != 2 or not cells[0] or not _is_integer(cells[1]):
            raise ImageError(f"{path}, line {line}: expected 'folder,index', found {','.join(row)!r}")
        pairs.append((cells[0], int(cells[1])))
    return pairs


def _is_integer(text: str) -> bool:
    digits = text.removeprefix("-")
    return digits.isascii() and digits.isdigit() and len(digits) < 12
