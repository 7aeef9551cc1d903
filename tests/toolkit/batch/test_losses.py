"""Machines that go away under a batch, without any machine."""

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Self

import pytest

from mothkit.batch.jobs import STAGES, Job, Limits, Report, Stage
from mothkit.batch.ledger import Status
from mothkit.batch.run import harden_batch
from mothkit.batch.tasks import Task
from mothkit.events import Event, Note
from tests.toolkit.batch.test_run import SETTINGS


class GoneError(Exception):
    pass


class Shaky:
    """An engine whose workers end as ``end`` says of a job and how often it came before."""

    slots = 2
    losses: tuple[type[BaseException], ...] = (GoneError,)

    def __init__(self, end: Callable[[Job, int], Report]) -> None:
        self.end, self.seen = end, []  # type: tuple[Callable[[Job, int], Report], list[str]]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def submit(self, job: Job) -> Future[Report]:
        future: Future[Report] = Future()
        self.seen.append(job.task.name)
        try:
            future.set_result(self.end(job, self.seen.count(job.task.name)))
        except Exception as error:
            future.set_exception(error)
        return future


DONE = Report(status=Status.DONE, record="r.json")
TASKS = [Task(name=name, model=Path(f"/{name}.onnx"), data="/d") for name in "ab"]


@pytest.fixture(autouse=True)
def no_products(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = Stage(lambda _: DONE, "hardened.onnx")
    monkeypatch.setattr("mothkit.batch.run.STAGES", dict.fromkeys(STAGES, nothing))


def test_a_lost_machine_is_no_attempt(tmp_path: Path) -> None:
    def end(job: Job, time: int) -> Report:
        if job.task.name == "a" and time <= 5:
            raise GoneError("the node died\nand more")
        return DONE

    told: list[Event] = []
    limits = Limits(seconds=1)
    rows = harden_batch(TASKS, tmp_path / "out", SETTINGS, Shaky(end), limits, emit=told.append)
    assert [(row.status, row.attempts, row.reason) for row in rows] == [(Status.DONE, 1, None)] * 2
    lost = "a: the worker was lost (GoneError: the node died); it is run again elsewhere"
    assert [event for event in told if isinstance(event, Note)] == [Note(lost)] * 5


def test_one_whose_machines_always_go_away_fails_and_costs_no_other(tmp_path: Path) -> None:
    def end(job: Job, _time: int) -> Report:
        if job.task.name == "a":
            raise GoneError
        return DONE

    rows = harden_batch(TASKS, tmp_path / "out", SETTINGS, Shaky(end), Limits(seconds=1))
    assert [(row.status, row.attempts) for row in rows] == [(Status.FAILED, 2), (Status.DONE, 1)]


def test_an_engine_s_own_failure_is_an_attempt(tmp_path: Path) -> None:
    def end(_job: Job, _time: int) -> Report:
        raise OSError("no process can be begun")

    rows = harden_batch(TASKS, tmp_path / "out", SETTINGS, Shaky(end), Limits(seconds=1))
    assert [(row.status, row.attempts) for row in rows] == [(Status.FAILED, 2)] * 2
    assert "no process can be begun" in str(rows[0].reason)
