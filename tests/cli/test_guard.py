import errno
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
import typer
from typer.testing import CliRunner, Result

from mothkit.errors import ImageError
from mothkit_cli.exit_codes import ExitCode
from mothkit_cli.guard import guarded
from mothkit_converters.errors import ConversionError

STAYS = """
import time, typer
from mothkit_cli.guard import guarded
def stay() -> None:
    print("ready", flush=True)
    time.sleep(60)
app = typer.Typer(pretty_exceptions_enable=False)
app.command()(guarded(stay))
app()
"""


def invoke(fail: Callable[[], object], *args: str) -> Result:
    def command(count: int = 1) -> None:
        for _ in range(count):
            fail()

    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(guarded(command))
    return CliRunner().invoke(app, args)


def raising(error: BaseException) -> Callable[[], object]:
    def fail() -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ImageError("cats/1.png: cut off"), "error: cats/1.png: cut off"),
        (ConversionError("a.onnx: no graph"), "error: a.onnx: no graph"),
        (ImageError("two\nlines \x1b[31mred"), r"error: two lines \x1b[31mred"),
        (OSError(errno.ENOSPC, "No space left on device", "out"), "error: No space left on device: out"),
        (MemoryError(), "error: not enough memory; free some, or take another --device"),
        (
            torch.OutOfMemoryError("CUDA out of memory.\nTried much"),
            "error: not enough memory: CUDA out of memory.; free some, or take another --device",
        ),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory"),
            "error: not enough memory: DefaultCPUAllocator: can't allocate memory; "
            "free some, or take another --device",
        ),
        (
            ZeroDivisionError("by\nzero"),
            "internal error: ZeroDivisionError: by zero; run again with --debug to see where",
        ),
    ],
)
def test_every_error_is_one_line_and_exit_2(error: Exception, line: str) -> None:
    result = invoke(raising(error))
    assert (result.exit_code, result.stderr, result.stdout) == (ExitCode.COULD_NOT, line + "\n", "")


def test_debug_shows_the_traceback_and_ends_alike() -> None:
    result = invoke(raising(ZeroDivisionError("by zero")), "--debug")
    assert result.exit_code == ExitCode.COULD_NOT
    assert "Traceback" in result.stderr
    assert result.stderr.splitlines()[-1] == "internal error: ZeroDivisionError: by zero"


def test_an_interruption_says_how_to_go_on() -> None:
    stop = KeyboardInterrupt()
    stop.add_note("go on with --resume")
    result = invoke(raising(stop))
    assert (result.exit_code, result.stderr) == (ExitCode.INTERRUPTED, "interrupted; go on with --resume\n")


def test_ctrl_c_ends_a_process_with_130_and_one_line() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STAYS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=30)
    assert (process.returncode, told) == (130, "interrupted\n")


def test_without_a_stdout_the_exit_code_is_the_command_s_own() -> None:
    words = [sys.executable, "-c", STAYS.replace("time.sleep(60)", "raise typer.Exit(3)")]
    done = subprocess.run(["/bin/sh", "-c", '"$@" >&-', "sh", *words], stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (3, b"")


@pytest.mark.parametrize("code", list(ExitCode))
def test_a_command_s_own_exit_code_is_kept(code: ExitCode) -> None:
    assert invoke(raising(typer.Exit(code))).exit_code == code


def test_the_command_s_own_options_stay() -> None:
    calls: list[int] = []
    assert invoke(lambda: calls.append(1), "--count", "3").exit_code == 0
    assert len(calls) == 3
