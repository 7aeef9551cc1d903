"""Around every command: ``--debug``, one line for each error, and the exit code that it means."""

import functools
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Annotated

import typer

from mothkit.errors import is_out_of_memory
from mothkit_cli.exit_codes import ExitCode
from mothkit_cli.options import check_outputs_apart

Command = Callable[..., None]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def guarded(command: Command) -> Command:
    """Return ``command`` with ``--debug`` added, and every failure turned into a line and an exit code."""

    @functools.wraps(command)
    def run(*, debug: bool, **options: object) -> None:
        check_outputs_apart(options)
        try:
            _run_and_flush(command, options)
        except (typer.Exit, typer.Abort, typer.BadParameter):
            raise  # typer's own signals
        except BaseException as error:
            if isinstance(error, (SystemExit, GeneratorExit)):
                raise
            raise typer.Exit(explain(error, debug=debug)) from error

    signature = inspect.signature(command, eval_str=True)
    added = inspect.Parameter("debug", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Debug)
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), added])  # type: ignore[attr-defined]
    return run


def _run_and_flush(command: Command, options: Mapping[str, object]) -> None:
    try:
        command(**options)
    finally:
        if sys.stdout is not None:  # closed before we began
            sys.stdout.flush()  # a closed pipe shows here, not at the interpreter's end


def explain(error: BaseException, *, debug: bool) -> ExitCode:
    """Write what went wrong to stderr, on one line, and return the exit code that it means."""
    from mothkit_cli.output import say

    if isinstance(error, BrokenPipeError):
        _let_go_of_stdout()
        return ExitCode.COULD_NOT
    if debug:
        traceback.print_exception(error)
    if isinstance(error, KeyboardInterrupt):
        say(f"interrupted{_notes(error)}")
        return ExitCode.INTERRUPTED
    say(_line(error, debug=debug))
    return ExitCode.COULD_NOT


def _line(error: BaseException, *, debug: bool) -> str:
    if isinstance(error, _refusals()):
        return f"error: {error}{_notes(error)}"
    if isinstance(error, OSError):
        return f"error: {error.strerror or error}" + (f": {error.filename}" if error.filename else "")
    if is_out_of_memory(error):
        first = next(iter(str(error).splitlines()), "")
        return f"error: not enough memory{f': {first}' if first else ''}; free some, or take another --device"
    hint = "" if debug else "; run again with --debug to see where"
    return f"internal error: {type(error).__name__}: {error}{hint}"


def _refusals() -> tuple[type[BaseException], ...]:
    """The error roots of both packages. One whose module was never loaded cannot have been raised."""
    roots = (("mothkit.errors", "MothkitError"), ("mothkit_converters.errors", "ConversionError"))
    return tuple(getattr(sys.modules[module], root) for module, root in roots if module in sys.modules)


def _notes(error: BaseException) -> str:
    return "".join(f"; {note}" for note in getattr(error, "__notes__", ()))


def _let_go_of_stdout() -> None:
    """Point stdout at nothing, so that the interpreter's last flush does not fail a second time."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
