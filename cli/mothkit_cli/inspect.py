"""``mothkit inspect``: what an ONNX file is, and what can be trained in it."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mothkit_cli import options
from mothkit_cli.exit_codes import ExitCode
from mothkit_cli.opening import Opening, with_opening

if TYPE_CHECKING:
    from rich.table import Table

    from mothkit.inspection import Inspection, Share
    from mothkit_converters import Value

LISTED = 8  # names that a line of the table shows; the record has all


@with_opening
def inspect(
    *,
    opening: Opening,
    model: options.Model,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="PATH", help="Labelled images: show how each preprocessing does on them instead."
        ),
    ] = None,
    json: options.Json = None,
    quiet: options.Quiet = False,
) -> None:
    """Print what a model is, and what can be trained in it.

    A file that cannot be imported is described too, with the reason. With --data, print how accurate it is under
    each preprocessing instead; exit 1 if none is clearly ahead.
    """
    if data is not None:
        _show_preprocessing(model, data, opening, json, quiet=quiet)
        return
    if replace(opening, output=None) != Opening():
        raise typer.BadParameter("how to open model and images matters only with --data")
    from mothkit.inspection import inspect_model
    from mothkit.records import to_json
    from mothkit_cli.output import show
    from mothkit_converters import read_source

    found = inspect_model(read_source(model), opening.output)
    show(_table(found), record=to_json(asdict(found)), json_to=json)


def _show_preprocessing(model: Path, data: str, opening: Opening, json: str | None, *, quiet: bool) -> None:
    from mothkit.measuring import preprocessing_file
    from mothkit.records import to_json
    from mothkit_cli.output import say, show
    from mothkit_cli.progress import progress_sink
    from mothkit_cli.tables import preprocessing_table

    with progress_sink(quiet=quiet) as emit:
        record = preprocessing_file(model, data, opening.settings(), emit=emit)
    found = record["preprocessing_search"]
    show(preprocessing_table(found), record=to_json(record), json_to=json)
    if found["taken"] is None:
        say(f"none taken: {found['reason']}")
        raise typer.Exit(ExitCode.NOT_REACHED)


def _table(found: "Inspection") -> "Table":
    from mothkit_cli.output import new_table, plain

    table = new_table("", "")
    table.show_header = False
    for label, text in [*_file_rows(found), *_network_rows(found), *_training_rows(found)]:
        table.add_row(label, plain(text))
    return table


def _file_rows(found: "Inspection") -> list[tuple[str, str]]:
    opsets = ", ".join(f"{domain or 'ai.onnx'} {number}" for domain, number in found.opsets.items())
    rows = [
        ("file", found.path),
        *((f"sha256 {name}" if len(found.files) > 1 else "sha256", sha) for name, sha in found.files.items()),
        ("producer", found.producer or "not named"),
        ("format", f"IR {found.ir_version}, opset {opsets}"),
    ]
    return rows + [("metadata", f"{key} = {value}") for key, value in found.metadata.items()]


def _network_rows(found: "Inspection") -> list[tuple[str, str]]:
    head = found.head
    stripped = f", before {' and '.join(reversed(head.stripped))}" if head.stripped else ""
    return [
        *(("input", _value(value)) for value in found.inputs),
        *(("output", _value(value)) for value in found.outputs),
        ("layout", found.layout or f"unknown: {found.layout_why}"),
        ("logits", f"{head.value}{stripped}"),
        ("classes", str(head.classes or "unknown: the graph's shapes do not say")),
        ("operators", ", ".join(f"{op} {count}" for op, count in found.operators.items())),
        ("float tensors", _share(found.floats)),
    ]


def _training_rows(found: "Inspection") -> list[tuple[str, str]]:
    if found.training is None:
        return [("import", f"no: {found.refusal}")]
    training = found.training
    more = f" and {len(training.unbound) - LISTED} more" if len(training.unbound) > LISTED else ""
    return [
        ("import", "yes"),
        ("trainable", _share(training.trainable)),
        ("statistics", _share(training.statistics)),
        ("fixed", _share(training.fixed)),
        ("unbound", ", ".join(training.unbound[:LISTED]) + more if training.unbound else "none"),
    ]


def _share(share: "Share") -> str:
    return f"{share.tensors} tensors, {share.parameters} parameters"


def _value(value: "Value") -> str:
    shape = (
        "unknown shape" if value.shape is None else f"[{', '.join(str(dim or '?') for dim in value.shape)}]"
    )
    return f"{value.name}: {value.dtype or 'no tensor'} {shape}"
