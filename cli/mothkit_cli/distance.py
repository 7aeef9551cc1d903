"""``mothkit distance``: the size of the smallest trigger from class to class."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mothkit_cli import options
from mothkit_cli.exit_codes import ExitCode
from mothkit_cli.opening import Opening, with_opening

if TYPE_CHECKING:
    from mothkit.matrix.run import MatrixSettings


@with_opening
def distance(
    *,
    opening: Opening,
    model: options.Model,
    data: options.Data,
    pairs: Annotated[
        str | None,
        typer.Option(metavar="S-T,...|none", help="Directions source-target; all of --classes by default."),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(metavar="C,...", help="Classes whose pairs are measured; all of them by default."),
    ] = None,
    universal: Annotated[
        bool, typer.Option("--universal", help="Also one trigger a target from all other classes.")
    ] = False,
    profile: Annotated[
        Literal["default", "paper"],
        typer.Option(help="default: quick inversions; paper: 1000 steps, the smallest of three."),
    ] = "default",
    steps: Annotated[
        int | None, typer.Option(min=1, help="Passes over a trigger's images; the profile's by default.")
    ] = None,
    images: Annotated[
        int | None, typer.Option(min=1, help="Images of a trigger, at most; 100 by default.")
    ] = None,
    repeats: Annotated[
        int | None,
        typer.Option(min=1, help="Inversions of a repeated direction, for the errors; 1 measures none."),
    ] = None,
    repeat_pairs: Annotated[
        int | None, typer.Option(min=1, help="Directions that are repeated, at most; 20 by default.")
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Stop after this long with what was found: 90s, 10m, 1.5h."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FOLDER", help="Write record, table, arrays and pictures there."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from what a stopped run left in the folder of --out.")
    ] = False,
    json: options.Json = None,
    quiet: options.Quiet = False,
) -> None:
    """Measure class distance.

    Its unit is the L1 norm of the smallest trigger found, in pixels times channels.
    """
    from mothkit.matrix.run import profile_settings
    from mothkit_cli.words import parse_classes, parse_pairs, parse_seconds

    if resume and out is None:
        raise typer.BadParameter("--resume goes with --out, the folder of the run that was stopped")
    what = replace(
        profile_settings(
            profile, steps=steps, images_per_class=images, repeats=repeats, repeat_pairs=repeat_pairs
        ),
        directions=[] if pairs == "none" else parse_pairs(pairs),
        classes=parse_classes(classes),
        universal=universal,
        seconds=parse_seconds(budget),
    )
    _run(model, data, opening, what, out=out, resume=resume, json=json, quiet=quiet)


def _run(
    model: Path,
    data: str,
    opening: Opening,
    what: "MatrixSettings",
    *,
    out: Path | None,
    resume: bool,
    json: str | None,
    quiet: bool,
) -> None:
    from mothkit.measuring import MeasurementInterrupted, distance_file
    from mothkit.records import to_json
    from mothkit_cli.output import say, show
    from mothkit_cli.progress import progress_sink
    from mothkit_cli.tables import distance_tables

    stopped = None
    try:
        with progress_sink(quiet=quiet) as emit:
            distances, record = distance_file(
                model, data, opening.settings(), what, out=out, resume=resume, emit=emit
            )
    except MeasurementInterrupted as stop:
        stopped, distances, record = stop, stop.distances, stop.record
    show(*distance_tables(record["class_distance"]), record=to_json(record), json_to=json)
    if not distances.measured:
        say("nothing was measured in time: allow more with --budget, or ask for fewer --steps")
        raise typer.Exit(ExitCode.NOTHING_CHECKED)
    if out is not None and not quiet:
        say(f"written: {out}" + ("" if distances.is_complete else ", to go on from with --resume"))
    if stopped is not None:
        raise stopped
