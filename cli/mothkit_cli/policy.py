"""``mothkit policy``: a policy to begin with, a check of one, and the schema of all."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from mothkit_cli.exit_codes import ExitCode


def policy(
    action: Annotated[
        Literal["init", "check", "schema"],
        typer.Argument(
            help="init prints a policy to begin with, check reads one, schema prints the JSON Schema."
        ),
    ],
    file: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE]", exists=True, dir_okay=False, help="The policy to check."),
    ] = None,
    preset: Annotated[
        Literal["basic", "strict"], typer.Option("--preset", help="Which policy init prints.")
    ] = "basic",
) -> None:
    """Print or check a policy of mothkit gate."""
    from mothkit.gate.policy import preset_text

    if (action == "check") != (file is not None):
        raise typer.BadParameter("check takes a FILE, init and schema take none")
    if file is not None:
        _check(file)
    elif action == "init":
        typer.echo(preset_text(preset), nl=False)
    else:
        typer.echo(_schema())


def _check(file: Path) -> None:
    """Print which checks are on; one line for each problem and exit code 2 where it is no policy."""
    from mothkit.gate.policy import PolicyError, load_policy
    from mothkit_cli.output import plain, say

    try:
        checks = load_policy(file.absolute()).policy.checks()
    except PolicyError as error:
        for line in error.lines:
            say(f"error: {line}")
        raise typer.Exit(ExitCode.COULD_NOT) from error
    for name, check in checks.items():
        asked = ", ".join(f"{key} {value}" for key, value in check.model_dump(exclude_none=True).items())
        typer.echo(plain(f"{name}: {asked}"))
    if not checks:
        say("no check is on: a gate with this policy checks nothing")
        raise typer.Exit(ExitCode.NOTHING_CHECKED)


def _schema() -> str:
    import json

    from mothkit.gate.policy import Policy

    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Policy.model_json_schema()}
    return json.dumps(schema, indent=2)
