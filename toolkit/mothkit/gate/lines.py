"""Where in a TOML text each key stands; tomllib does not tell."""

import tomllib
from collections.abc import Iterator, Mapping

KeyPath = tuple[str | int, ...]


def key_lines(text: str) -> dict[KeyPath, int]:
    """Return the line, counted from 1, on which the statement of each key begins.

    Args:
        text: valid TOML. Lines are added up until they parse, which is where a statement ends; each is parsed
            below its own table's heading.
    """
    lines: dict[KeyPath, int] = {}
    heading, pending, begun = "", "", 1
    for number, line in enumerate(text.split("\n"), start=1):
        pending += line + "\n"
        try:
            found = tomllib.loads(heading + pending)
        except tomllib.TOMLDecodeError:
            continue  # in the midst of an array or a string
        for path in _paths(found):
            lines.setdefault(path, begun)
        if pending.lstrip().startswith("["):
            heading = pending
        pending, begun = "", number + 1
    return lines


def line_of(path: KeyPath, lines: Mapping[KeyPath, int]) -> int:
    """Return the line of ``path``, or of what it would stand in; 1 for the file itself."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 1)


def _paths(table: Mapping[str, object], above: KeyPath = ()) -> Iterator[KeyPath]:
    for key, value in table.items():
        yield (*above, key)
        if isinstance(value, dict):
            yield from _paths(value, (*above, key))
