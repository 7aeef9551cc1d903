import json
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from mothkit.batch.conditions import parse_condition
from mothkit.batch.jobs import LOG, Job, Limits, Report
from mothkit.batch.ledger import Row, Status
from mothkit.batch.local import LocalEngine, spread
from mothkit.batch.report import read_batch
from mothkit.batch.run import exit_code, harden_batch
from mothkit.batch.tasks import Task, find_tasks
from mothkit.events import Event, Note, PhaseStarted, StepDone
from mothkit.hardening.base import Budget
from mothkit.pipeline import HardenSettings
from tests.planted import AGAIN, FAULTS, final, killing, write_batch

SETTINGS = HardenSettings(preprocess="unit", device="cpu", budget=Budget(steps=2, max_accuracy_drop=50))
LIMITS = Limits(seconds=120, memory=2 << 30)


def harden(
    manifest: Path,
    out: Path,
    where: str | None = None,
    *,
    settings: HardenSettings = SETTINGS,
    limits: Limits = LIMITS,
    resume: bool = False,
    told: list[Event] | None = None,
) -> list[Row]:
    tasks = find_tasks(manifest, where=None if where is None else parse_condition(where))
    emit = [].append if told is None else told.append
    return harden_batch(tasks, out, settings, LocalEngine(["cpu"], 2), limits, resume=resume, emit=emit)


def test_each_fault_costs_its_own_model_and_is_named(tmp_path: Path) -> None:
    manifest, out = write_batch(tmp_path / "in", 2), tmp_path / "out"
    os.mkfifo(tmp_path / "in/never.npz")
    assert [row.status for row in harden(manifest, out, "number == 0")] == [Status.DONE]
    (out / "readonly").write_text("a file where a folder should be")
    told: list[Event] = []
    with killing(out / "killed" / LOG) as killed:
        harden(manifest, out, 'kind != "hang"', resume=True, told=told)
    rows = harden(manifest, out, resume=True, limits=Limits(seconds=1, memory=2 << 30))
    by_model = {row.model: row for row in rows}
    assert by_model.keys() == {"good00", "good01", *FAULTS}
    for name, row in by_model.items():
        good = name.startswith("good")
        assert (row.status, row.attempts) == (
            Status.DONE if good else Status.FAILED,
            2 if name in AGAIN else 1,
        )
        assert (row.reason is None) if good else (FAULTS[name] in str(row.reason)), row
    assert len(killed) == 2
    assert exit_code(rows) == 2
    assert Note("1 of 9 models were finished before") in told
    assert PhaseStarted("harden models", 8) in told
    assert told[-1] == StepDone(8, 8, "7 failed")


def test_what_was_not_reached_is_kept_apart_from_failure(tmp_path: Path) -> None:
    manifest, out = write_batch(tmp_path / "in", 1, []), tmp_path / "out"
    settings = replace(SETTINGS, budget=Budget(seconds=0.001))
    (row,) = harden(manifest, out, settings=settings)
    assert (row.status, row.attempts, exit_code([row])) == (Status.NOT_REACHED, 1, 1)
    assert "time was up" in str(row.reason)
    assert json.loads((out / str(row.record)).read_text())["written"] is False
    (line,) = read_batch(out)["models"]
    assert (line["status"], line["accuracy_before"], line["accuracy_after"]) == ("not reached", 1.0, None)
    assert {path.name for path in (out / "good00").iterdir()} == {"hardened.record.json", LOG}


def test_a_finished_model_whose_results_are_gone_is_done_anew(tmp_path: Path) -> None:
    manifest, out = write_batch(tmp_path / "in", 2, []), tmp_path / "out"
    harden(manifest, out)
    before, kept = final(out), (out / "good01/hardened.onnx").stat()
    (out / "good00/hardened.onnx").unlink()
    told: list[Event] = []
    assert exit_code(harden(manifest, out, resume=True, told=told)) == 0
    assert Note("good00: its results are gone; it is done anew") in told
    assert (final(out), (out / "good01/hardened.onnx").stat()) == (before, kept)


def test_workers_take_turns_on_devices(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No machine with two GPUs is at hand, so the process is left out."""
    together = threading.Barrier(4, timeout=60)

    def on_device(job: Job, _stop: threading.Event) -> Report:
        together.wait()
        return Report(status=Status.DONE, reason=job.settings.device)

    monkeypatch.setattr("mothkit.batch.local.attempt", on_device)
    task = Task(name="a", model=tmp_path, data="d")
    job = Job(task=task, stage="harden", folder=tmp_path, settings=SETTINGS, limits=LIMITS)
    with LocalEngine(["cuda:0", "cuda:1"], 4) as engine:
        for _ in range(2):
            reports = [future.result() for future in [engine.submit(job) for _ in range(4)]]
            assert sorted(str(report.reason) for report in reports) == ["cuda:0"] * 2 + ["cuda:1"] * 2
    assert LocalEngine(["cuda:0", "cuda:1", "cuda:2"]).slots == 3
    assert spread("cpu") == ["cpu"]
