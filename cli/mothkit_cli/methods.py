"""``mothkit methods``: what ``mothkit harden --method`` takes."""

from typing import Annotated, Any

import typer

from mothkit_cli import options


def methods(
    *,
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="A method, to see its settings too.")
    ] = None,
    json: options.Json = None,
) -> None:
    """List the hardening methods: what each does, costs and needs, and where it comes from."""
    from mothkit.hardening.methods import METHODS, described, entry_of
    from mothkit.records import to_json
    from mothkit_cli.output import show
    from mothkit_cli.tables import methods_table, settings_table

    chosen = METHODS if name is None else {name: entry_of(name)}
    record: dict[str, Any] = {"methods": {each: described(entry) for each, entry in chosen.items()}}
    tables = (
        [methods_table(record)] if name is None else [methods_table(record), settings_table(record, name)]
    )
    show(*tables, record=to_json(record), json_to=json)
