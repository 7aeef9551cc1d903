"""Entry point of the ``mothkit`` command.

A further command is one line in ``COMMANDS`` and one file; ``group name`` is a command of a group. Only the file of
the command that is run is imported; ``--help`` imports all, so they keep heavy imports (torch, onnx, numpy) inside
their functions.
"""

import importlib
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from mothkit_cli.exit_codes import ExitCode
from mothkit_cli.guard import Command, explain, guarded

COMMANDS = {
    # name: module:function, in the order in which --help lists them: groups last
    "inspect": "mothkit_cli.inspect:inspect",
    "harden": "mothkit_cli.harden:harden",
    "methods": "mothkit_cli.methods:methods",
    "evaluate": "mothkit_cli.evaluate:evaluate",
    "compare": "mothkit_cli.compare:compare",
    "distance": "mothkit_cli.distance:distance",
    "poison": "mothkit_cli.poison:poison",
    "parity": "mothkit_cli.parity:parity",
    "diff": "mothkit_cli.diff:diff",
    "gate": "mothkit_cli.gate:gate",
    "policy": "mothkit_cli.policy:policy",
    "report": "mothkit_cli.report:report",
    "sign": "mothkit_cli.sign:sign",
    "verify": "mothkit_cli.verify:verify",
    "bom": "mothkit_cli.bom:bom",
    "doctor": "mothkit_cli.doctor:doctor",
    "batch harden": "mothkit_cli.batch:harden",
    "batch report": "mothkit_cli.batch:report",
    "trojai ls": "mothkit_cli.trojai:ls",
    "trojai convert": "mothkit_cli.trojai:convert",
    "trojai prepare": "mothkit_cli.trojai:prepare",
    "trojai pack": "mothkit_cli.trojai:pack",
    "trojai make": "mothkit_cli.trojai:make",
    "trojai mitigate": "mothkit_cli.trojai_api:mitigate",
    "trojai test": "mothkit_cli.trojai_api:test",
    "trojai detect": "mothkit_cli.trojai_api:detect",
}
GROUPS = {
    "batch": "Many models in one run, and what came of them.",
    "trojai": "NIST's TrojAI rounds: their models to ONNX, and back.",
}


def main() -> None:
    """Run the command line and leave with its exit code."""
    args = sys.argv[1:]
    try:
        assemble(args)(args=args, prog_name="mothkit")
    except Exception as error:  # a command that cannot even be loaded
        sys.exit(explain(error, debug="--debug" in args))
    except KeyboardInterrupt as error:
        sys.exit(explain(error, debug=False))
    sys.exit(ExitCode.DONE)


def assemble(args: Sequence[str] = ()) -> typer.Typer:
    """Return the app with the command that ``args`` name, or with all commands if they name none."""
    app = _group("mothkit")
    app.callback()(common)
    first = next((arg for arg in args if not arg.startswith("-")), None)
    groups: dict[str, typer.Typer] = {}
    for name in [name for name in COMMANDS if name.split()[0] == first] or COMMANDS:
        group, _, own = name.rpartition(" ")
        if group and group not in groups:
            groups[group] = _group(group)
            app.add_typer(groups[group], name=group, help=GROUPS[group])
        (groups[group] if group else app).command(own)(guarded(_function(COMMANDS[name])))
    return app


def _group(name: str) -> typer.Typer:
    return typer.Typer(
        name=name,
        add_completion=False,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def _function(where: str) -> Command:
    module, function = where.split(":")
    command: Command = getattr(importlib.import_module(module), function)
    return command


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"mothkit {version('mothkit')}")
        raise typer.Exit(ExitCode.DONE)


def common(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Harden ONNX image classifiers against backdoors, and prove it in onnxruntime."""
