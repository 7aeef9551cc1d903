import os
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version

import pytest
from typer.testing import Result

from mothkit_cli.main import COMMANDS

Run = Callable[..., Result]
HEAVY = {"torch", "torchvision", "onnx", "onnxruntime", "onnx2torch", "numpy", "PIL"}
PROBE = f"""
import sys
from mothkit_cli.main import main
try:
    main()
except SystemExit as stop:
    print("heavy:", sorted({HEAVY!r} & sys.modules.keys()), "exit:", stop.code)
"""


@pytest.mark.parametrize(
    "args",
    [["--help"], ["--version"], ["nonsense"], *([*name.split(), "--help"] for name in COMMANDS)],
    ids=" ".join,
)
def test_help_version_and_usage_errors_import_nothing_heavy(args: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", PROBE, *args], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == f"heavy: [] exit: {2 if args == ['nonsense'] else 0}", done.stderr


def test_help_takes_less_than_400_ms(mothkit: str) -> None:
    def seconds() -> float:
        start = time.perf_counter()
        subprocess.run([mothkit, "--help"], capture_output=True, check=True)
        return time.perf_counter() - start

    assert min(seconds() for _ in range(5)) < 0.4


def test_help_lists_every_command(run: Run) -> None:
    shown = run("--help").stdout
    assert [line.split()[0] for line in shown.partition("Commands:")[2].split("\n") if line] == list(
        dict.fromkeys(name.split()[0] for name in COMMANDS)
    )


def test_script_and_module_print_the_same_version(mothkit: str) -> None:
    for command in ([mothkit], [sys.executable, "-m", "mothkit"]):
        done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
        assert done.stdout == f"mothkit {version('mothkit')}\n"


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["hardne"], "No such command"),
        (["doctor", "--nonsense"], "No such option"),
        (["inspect"], "Missing argument"),
        (["inspect", "nowhere.onnx"], "nowhere.onnx"),
        (["doctor", "--json", "no/such/folder/record.json"], "does not exist"),
        (["evaluate", "LICENSE", "--data", "x", "--device", "gpu"], "'gpu' is none of auto, cpu, cuda"),
        (["evaluate", "LICENSE", "--data", "x", "--layout", "chw"], "chw"),
        (["evaluate", "LICENSE", "--data", "x", "--seed", "-1"], "--seed"),
    ],
)
def test_usage_errors_exit_with_2_and_name_the_fault(run: Run, args: list[str], told: str) -> None:
    result = run(*args)
    assert result.exit_code == 2
    assert told in result.stderr
    assert result.stdout == ""


def test_no_arguments_are_a_usage_error_that_shows_the_help(run: Run) -> None:
    result = run()
    assert result.exit_code == 2
    assert "Commands:" in result.stdout + result.stderr


def test_a_closed_pipe_ends_in_silence(mothkit: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as pipe:
        done = subprocess.run([mothkit, "doctor"], stdout=pipe, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (2, b"")
