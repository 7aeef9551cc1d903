"""``mothkit distance``: the size of the smallest trigger from class to class."""

from typing import Annotated

import typer

from mothkit_cli import options
from mothkit_cli.opening import Opening, with_opening


@with_opening
def distance(
    *,
    opening: Opening,
    model: options.Model,
    data: options.Data,
    pairs: Annotated[
        str | None, typer.Option(metavar="S-T,...", help="Directions source-target; all of them by default.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Passes over a trigger's images (paper: 1000).")] = 1000,
    images: Annotated[int, typer.Option(min=1, help="Images of a source class, at most (paper: 100).")] = 100,
    json: options.Json = None,
    quiet: options.Quiet = False,
) -> None:
    """Measure class distance.

    Its unit is the L1 norm of the smallest trigger found, in pixels times channels.
    """
    from mothkit.measuring import distance_file
    from mothkit.records import to_json
    from mothkit_cli.output import show
    from mothkit_cli.progress import progress_sink
    from mothkit_cli.tables import distance_table
    from mothkit_cli.words import parse_pairs

    directions = parse_pairs(pairs)
    settings = opening.settings()
    with progress_sink(quiet=quiet) as emit:
        record = distance_file(
            model, data, settings, directions=directions, steps=steps, images_per_class=images, emit=emit
        )[1]
    show(distance_table(record["class_distance"]), record=to_json(record), json_to=json)
