"""``mothkit doctor``: what a bug report needs."""

from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from mothkit_cli import options
from mothkit_cli.exit_codes import ExitCode

if TYPE_CHECKING:
    from rich.table import Table

    from mothkit.environment import Environment


def doctor(json: options.Json = None) -> None:
    """Print what a bug report needs: versions, devices, providers.

    Exit code 1 says that something is broken; stderr says what.
    """
    from mothkit.environment import describe_environment
    from mothkit.records import to_json
    from mothkit_cli.output import say, show

    environment = describe_environment()
    show(_table(environment), record=to_json(asdict(environment)), json_to=json)
    for fault in environment.faults:
        say(f"fault: {fault}")
    raise typer.Exit(ExitCode.NOT_REACHED if environment.faults else ExitCode.DONE)


def _table(environment: "Environment") -> "Table":
    from mothkit_cli.output import new_table, plain

    table = new_table("", "")
    table.show_header = False
    table.add_row("python", environment.python)
    table.add_row("platform", plain(environment.platform))
    for package, number in environment.versions.items():
        table.add_row(package, number or "not installed")
    for provider in environment.providers:
        table.add_row(provider.name, plain("works" if provider.works else f"no: {provider.why}"))
    for device in environment.devices:
        memory = "" if device.memory_mib is None else f", {device.memory_mib} MiB"
        table.add_row(f"device {device.name}", plain(device.model + memory))
    table.add_row("cores", str(environment.cores))
    table.add_row("torch threads", str(environment.torch_threads or "unknown"))
    return table
