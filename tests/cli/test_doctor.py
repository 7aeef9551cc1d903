import json
import os
import platform
from collections.abc import Callable
from importlib.metadata import version

from typer.testing import Result

from mothkit_cli.exit_codes import ExitCode

Run = Callable[..., Result]


def test_the_record_holds_what_a_bug_report_needs(run: Run) -> None:
    result = run("doctor", "--json", "-")
    record = json.loads(result.stdout)
    assert result.exit_code == (ExitCode.NOT_REACHED if record["faults"] else ExitCode.DONE)
    assert record["python"] == platform.python_version()
    assert record["versions"].items() >= {
        (name, version(name)) for name in ("mothkit", "torch", "onnx", "numpy")
    }
    assert record["devices"][0]["name"] == "cpu"
    assert 1 <= record["cores"] <= (os.cpu_count() or 1)


def test_the_cpu_provider_runs_and_one_that_falls_back_is_not_said_to_work(run: Run) -> None:
    record = json.loads(run("doctor", "--json", "-").stdout)
    works = {provider["name"]: provider["works"] for provider in record["providers"]}
    assert works["CPUExecutionProvider"]
    if len(record["devices"]) == 1:
        assert not works.get("CUDAExecutionProvider", False)
    assert all(provider["works"] or provider["why"] for provider in record["providers"])


def test_the_table_names_every_package(run: Run) -> None:
    shown = run("doctor").stdout
    for package in (
        "python",
        "mothkit",
        "torch",
        "torchvision",
        "onnx",
        "onnx2torch",
        "numpy",
        "onnxruntime",
    ):
        assert any(line.startswith(package) for line in shown.splitlines())
