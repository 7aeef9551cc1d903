"""``mothkit diff``: which initializers changed and by how much, and whether anything else did."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mothkit_cli import options
from mothkit_cli.exit_codes import ExitCode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

    from mothkit_converters import GraphDiff, Source

First = Annotated[
    Path, typer.Argument(metavar="FIRST", exists=True, dir_okay=False, help="An ONNX file, the original.")
]
Second = Annotated[
    Path, typer.Argument(metavar="SECOND", exists=True, dir_okay=False, help="An ONNX file, the changed one.")
]


def diff(first: First, second: Second, json: options.Json = None) -> None:
    """Print which initializers changed, and whether anything else did.

    Exit code 1 says that something other than values of initializers, or metadata of mothkit's own, differs.
    """
    from mothkit.records import to_json
    from mothkit_cli.output import show
    from mothkit_converters import diff as compare
    from mothkit_converters import read_source

    sources = read_source(first), read_source(second)
    found = compare(*sources)
    show(*_views(found), record=to_json(_record(found, *sources)), json_to=json)
    raise typer.Exit(ExitCode.DONE if found.only_weights else ExitCode.NOT_REACHED)


def _record(found: "GraphDiff", first: "Source", second: "Source") -> dict[str, object]:
    files = {
        name: {"path": str(s.path), "files": dict(s.digests)} for name, s in (("a", first), ("b", second))
    }
    summary = {"identical": found.identical, "only_weights": found.only_weights}
    return {**files, **summary, **asdict(found)}


def _views(found: "GraphDiff") -> "Iterator[RenderableType]":
    from mothkit_cli.output import new_table, plain

    if found.changes:
        numbers = ("L2", "relative L2", "max abs")
        table = new_table("initializer", "dtype", "shape", *numbers, numbers=numbers)
        for change in found.changes:
            sizes = (f"{size:.4g}" for size in (change.l2, change.relative_l2, change.max_abs))
            table.add_row(plain(change.name), change.dtype, str(list(change.shape)), *sizes)
        yield table
    total = len(found.changes) + found.unchanged
    yield f"{len(found.changes)} of {total} initializers changed"
    if found.only_weights:
        yield "everything else is byte-identical"
    yield from (plain(f"entered by mothkit, or differing in its metadata: {key}") for key in found.stamps)
    yield from (plain(f"differs: {difference}") for difference in found.differences)
