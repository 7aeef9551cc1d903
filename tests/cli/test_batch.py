import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import pytest
from pyarrow.parquet import read_table
from typer.testing import Result

from mothkit.batch.ledger import Ledger, Status, ledger_path
from tests.planted import final, write_batch

Run = Callable[..., Result]

QUICK = ("--preprocess", "unit", "--device", "cpu", "--steps", "2", "--max-accuracy-drop", "50")
LONGER = (*QUICK[:-3], "60", *QUICK[-2:])
PATIENCE = 300  # seconds until a test gives up


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with three models, one without images, and their manifest."""
    monkeypatch.chdir(tmp_path)
    write_batch(tmp_path / "in", 3, ["images"])
    return tmp_path


def started(*words: object) -> "subprocess.Popen[str]":
    code = "import sys; from mothkit_cli.main import main; main()"
    args = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(happened: Callable[[], object]) -> None:
    until = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < until, "it never happened"
        time.sleep(0.05)


def done(out: Path) -> int:
    if not ledger_path(out).exists():
        return 0
    ledger = Ledger(out)
    try:
        return sum(row.status is Status.DONE for row in ledger.rows())
    finally:
        ledger.close()


def test_a_batch_is_hardened_and_reported(folder: Path, run: Run) -> None:
    asked = ("batch", "harden", "in/manifest.csv", "-o", "out", *QUICK, "--eval-data", "in/eval.npz")
    ended = run(*asked, "--jobs", "2", "--json", "batch.json")
    assert ended.exit_code == 2, ended.output
    assert "images: failed: " in ended.stderr
    assert "gone.npz: there is no such file" in ended.stdout
    record = json.loads(Path("batch.json").read_text())
    assert [line["status"] for line in record["models"]] == ["done"] * 3 + ["failed"]

    told = run("batch", "report", "out", "--csv", "b.csv", "--markdown", "b.md", "--json", "-")
    assert told.exit_code == 0
    assert json.loads(told.stdout) == record
    assert told.stderr == ended.stdout
    with Path("b.csv").open() as file:
        lines = list(csv.DictReader(file))
    for line, row in zip(record["models"], lines, strict=True):
        assert (row["model"], row["status"], row["kind"]) == (line["model"], line["status"], line["kind"])
        if line["status"] == "done":
            own = json.loads((folder / "out" / row["record"]).read_text())
            assert float(row["accuracy_after"]) == own["after"]["accuracy"]["value"]
            assert float(row["asr_before"]) == own["before"]["triggers"][0]["asr"]["value"]
    assert "| `good00` | done |" in Path("b.md").read_text()
    assert run("batch", "report", "out", "--parquet", "b.parquet", "--html", "b.html").exit_code == 0
    assert "gone.npz: there is no such file" in Path("b.html").read_text()
    assert run("report", "batch.json", "-o", "again.html").exit_code == 0
    assert Path("again.html").read_text() == Path("b.html").read_text()
    columns = {name for line in record["models"] for name in line}
    assert read_table("b.parquet").to_pylist() == [dict.fromkeys(columns) | line for line in record["models"]]

    again = run(*asked, "--resume", "--where", "kind == 'good' and number < 2")
    assert again.exit_code == 0, again.stderr
    assert "2 of 2 models were finished before" in again.stderr
    assert run(*asked, "--resume", "--where", "number > 7").exit_code == 3


def test_what_cannot_be_begun_is_refused_and_nothing_is_written(folder: Path, run: Run) -> None:
    (folder / "full").mkdir()
    (folder / "full/something").touch()
    for words, told in (
        (("in", "-o", "out"), "give --data"),
        (("in/manifest.csv", "-o", "out", "--where", "x.y"), "is not allowed"),
        (("in/manifest.csv", "-o", "out", "--where", "clases > 3"), "nothing is called 'clases'"),
        (("in/manifest.csv", "-o", "out", "--memory", "much"), "no size of memory"),
        (("in/manifest.csv", "-o", "out", "--time-limit", "soon"), "no length of time"),
        (("in/manifest.csv", "-o", "out", "--address", "here:1"), "add --engine ray"),
        (
            ("in/manifest.csv", "-o", "out", "--trust-pickle"),
            "is no round; --round, --trust-pickle and --draw",
        ),
        (("in/manifest.csv", "-o", "out", "--method", "none"), "no method is called 'none'"),
        (("in/manifest.csv", "-o", "full"), "holds something and no batch"),
        (("in/manifest.csv", "-o", "in"), "is read by this run"),
    ):
        ended = run("batch", "harden", *words, "--device", "cpu")
        assert (ended.exit_code, ended.stdout) == (2, ""), words
        assert told in " ".join(ended.stderr.split()), words
    assert not (folder / "out").exists()
    assert run("batch", "report", "full").exit_code == 2


def test_another_run_s_batch_is_left_alone(folder: Path, run: Run) -> None:
    asked = ("batch", "harden", "in/manifest.csv", "-o", "out", *QUICK, "--where", "kind == 'images'")
    assert run(*asked).exit_code == 2
    before = final(folder / "out")
    assert "go on with --resume" in run(*asked).stderr
    assert "another seed" in run(*asked, "--resume", "--seed", "1").stderr
    ended = run(
        *asked, "--resume", "--data", "elsewhere"
    )  # the manifest names images, so that nothing differs
    assert "1 of 1 models were finished before" in ended.stderr
    assert final(folder / "out") == before


def descendants(process: "subprocess.Popen[str]") -> Sequence[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def all_gone(processes: Sequence[psutil.Process]) -> bool:
    return not psutil.wait_procs(processes, timeout=PATIENCE)[1]


def test_killed_and_interrupted_it_goes_on_as_if_it_had_not_been(folder: Path, run: Run) -> None:
    asked = ("batch", "harden", "in/manifest.csv", *LONGER, "--jobs", "1", "--where", "kind == 'good'", "-o")
    with started(*asked, "out") as process:
        wait_for(lambda: done(folder / "out") == 1 and list(folder.glob("out/good01/*.checkpoint")))
        left = descendants(process)
        process.send_signal(signal.SIGKILL)
    assert all_gone(left)
    first = (folder / "out/good00/hardened.onnx").stat()
    with started(*asked, "out", "--resume") as process:
        wait_for(lambda: done(folder / "out") == 2)
        left = descendants(process)
        os.kill(process.pid, signal.SIGINT)
        _, told = process.communicate()
    assert process.returncode == 130, told
    assert told.splitlines()[-1] == "interrupted; what is finished is kept; go on with --resume"
    assert all_gone(left)
    assert run(*asked, "out", "--resume").exit_code == 0
    assert (folder / "out/good00/hardened.onnx").stat() == first
    assert run(*asked, "whole").exit_code == 0
    assert final(folder / "out") == final(folder / "whole")
