"""``mothkit batch``: many models in one run, and what came of them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mothkit_cli import options
from mothkit_cli.exit_codes import ExitCode
from mothkit_cli.hardening import Hardening
from mothkit_cli.opening import Opening, with_options

if TYPE_CHECKING:
    from rich.table import Table

    from mothkit.batch.jobs import Limits
    from mothkit.batch.local import Engine
    from mothkit_cli.tables import Record

_DAY = 24 * 3600.0
_BESIDE_BUDGET = 900.0  # seconds: what loading, evaluation and writing may take beside hardening


@with_options(hardening=Hardening, opening=Opening)
def harden(
    *,
    opening: Opening,
    hardening: Hardening,
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE",
            exists=True,
            help="A folder of .onnx files, a CSV manifest with the columns model, data, triggers, or a TrojAI round.",
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FOLDER", file_okay=False, help="Where results go.")
    ],
    data: Annotated[
        str | None,
        typer.Option(
            "--data", metavar="PATH", help="Labelled clean images, for models that name none of their own."
        ),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(
            metavar="CONDITION",
            help="Which models: a condition over what is known of them, as in "
            "'poisoned and architecture == \"resnet50\"'.",
        ),
    ] = None,
    round_name: options.RoundName = None,
    trust_pickle: options.TrustPickle = False,
    draw: options.Draw = None,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", "-j", min=1, help="Workers at once; one a GPU, or one a core, unless given."),
    ] = None,
    engine: Annotated[
        Literal["local", "ray"], typer.Option(help="Workers on this machine, or on a Ray cluster.")
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Of the Ray cluster; unless given, a local one is started."),
    ] = None,
    per_model_budget: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="How long hardening one model may take: 90s, 10m, 1.5h."),
    ] = None,
    time_limit: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Stop a worker after this long; twice the budget and 15m, or 24h without one, unless given.",
        ),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Stop a worker that holds more: 500M, 4G; 80 % of the machine's unless given.",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the batch in --out; repeat its other options.")
    ] = False,
    json: options.Json = None,
    quiet: options.Quiet = False,
) -> None:
    """Harden many models, each in a worker of its own, and keep a ledger of them.

    Exit code 2 if one failed, else 1 if one did not keep its accuracy, 3 if there was none, else 0.
    """
    from mothkit.batch.conditions import parse_condition
    from mothkit.batch.report import read_batch
    from mothkit.batch.run import exit_code, harden_batch
    from mothkit.batch.tasks import Preparing, find_tasks
    from mothkit.records import to_json
    from mothkit_cli.output import say, show
    from mothkit_cli.progress import progress_sink

    settings = hardening.settings(opening, budget=per_model_budget)
    limits = _limits(settings.budget.seconds, time_limit, memory)
    condition = None if where is None else parse_condition(where)
    preparing = Preparing(round=round_name, trust=trust_pickle, drawn=draw)
    tasks = find_tasks(source, data=data, where=condition, preparing=preparing)
    if not tasks:
        say(f"no model of {source} meets {where}")
        raise typer.Exit(ExitCode.NOTHING_CHECKED)
    workers = _engine(engine, address, jobs, opening.device)
    with progress_sink(quiet=quiet) as emit:
        rows = harden_batch(tasks, out, settings, workers, limits, resume=resume, emit=emit)
    record = read_batch(out)
    show(*_tables(record), record=to_json(record), json_to=json)
    raise typer.Exit(exit_code(rows))


def _limits(budget: float | None, time_limit: str | None, memory: str | None) -> "Limits":
    from mothkit.batch.jobs import Limits
    from mothkit_cli.words import parse_bytes, parse_seconds

    usual = _DAY if budget is None else 2 * budget + _BESIDE_BUDGET
    return Limits(seconds=parse_seconds(time_limit) or usual, memory=parse_bytes(memory))


def _engine(name: str, address: str | None, jobs: int | None, device: str) -> "Engine":
    if name == "ray":
        from mothkit.batch.ray import RayEngine

        return RayEngine(address, device, jobs)
    from mothkit.batch.local import LocalEngine, spread

    if address is not None:
        raise typer.BadParameter("--address is of a Ray cluster; add --engine ray")
    return LocalEngine(spread(device), jobs)


def report(
    *,
    folder: Annotated[
        Path, typer.Argument(metavar="OUT", exists=True, file_okay=False, help="The folder of a batch.")
    ],
    csv: Annotated[
        str | None,
        typer.Option(metavar="FILE", callback=options.checked_target, help="Write CSV, a line a model."),
    ] = None,
    parquet: Annotated[
        str | None, typer.Option(metavar="FILE", callback=options.checked_target, help="Write Parquet.")
    ] = None,
    markdown: Annotated[
        str | None, typer.Option(metavar="FILE", callback=options.checked_target, help="Write Markdown.")
    ] = None,
    html: options.Html = None,
    json: options.Json = None,
) -> None:
    """Show what came of a batch, at work or ended: accuracy, ASR and fidelity of each model, times and failures."""
    from mothkit.batch.report import check_parquet, read_batch, write_view
    from mothkit.records import to_json
    from mothkit.report.html import write_html
    from mothkit_cli.output import show

    if parquet is not None:
        check_parquet()
    record = read_batch(folder)
    for name, file in (("csv", csv), ("parquet", parquet), ("markdown", markdown)):
        if file is not None:
            write_view(record, name, Path(file))
    if html is not None:
        write_html(record, Path(html))
    show(*_tables(record), record=to_json(record), json_to=json)


def _tables(record: "Record") -> list["Table"]:
    """Return the table of models, and that of what went wrong, if anything did."""
    from mothkit.batch.report import NUMBERS, share
    from mothkit_cli.output import new_table, plain
    from mothkit_cli.progress import clock

    columns = ("accuracy", "after", "ASR", "after ", "fidelity", "time")
    table = new_table("model", "status", *columns, numbers=columns)
    reasons = new_table("model", "why")
    for line in record["models"]:
        shares = (share(line[name]) for name in NUMBERS)
        table.add_row(plain(line["model"]), line["status"], *shares, clock(line["seconds"]))
        if line["reason"]:
            reasons.add_row(plain(line["model"]), plain(line["reason"]))
    summary = record["summary"]
    counts = ", ".join(f"{count} {status}" for status, count in summary["by_status"].items())
    means = (share(summary["mean"][name]) for name in NUMBERS)
    table.add_row("mean", counts, *means, clock(summary["seconds"]))
    return [table, reasons] if reasons.row_count else [table]
