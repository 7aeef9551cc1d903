"""``mothkit parity``: do two files, or a file and its torch import, give the same logits?"""

from pathlib import Path
from typing import Annotated

import typer

from mothkit_cli import options
from mothkit_cli.exit_codes import ExitCode
from mothkit_cli.opening import Opening, with_opening


@with_opening
def parity(
    *,
    opening: Opening,
    model: options.Model,
    other: Annotated[
        Path | None,
        typer.Argument(metavar="OTHER", exists=True, dir_okay=False, help="The file to compare with it."),
    ] = None,
    torch: Annotated[
        bool, typer.Option("--torch", help="Compare with the model's own torch import.")
    ] = False,
    data: Annotated[str | None, typer.Option(metavar="PATH", help="Clean images to compare on too.")] = None,
    size: Annotated[
        str | None, typer.Option(metavar="HxW", help="Size of the images, where the model takes any.")
    ] = None,
    json: options.Json = None,
    quiet: options.Quiet = False,
) -> None:
    """Compare the outputs of two models.

    On real, stamped and random images, at batch 1 and more; exit 1 where they differ.
    """
    from mothkit.measuring import parity_files
    from mothkit.records import to_json
    from mothkit_cli.output import show
    from mothkit_cli.progress import progress_sink
    from mothkit_cli.tables import parity_table
    from mothkit_cli.words import parse_size

    if (other is None) != torch:
        raise typer.BadParameter("give a second file or --torch, one of them")
    settings = opening.settings()
    shape = parse_size(size)
    with progress_sink(quiet=quiet) as emit:
        record = parity_files(model, other, settings, data=data, shape=shape, emit=emit)
    show(parity_table(record["parity"]), record=to_json(record), json_to=json)
    raise typer.Exit(ExitCode.DONE if record["parity"]["agrees"] else ExitCode.NOT_REACHED)
