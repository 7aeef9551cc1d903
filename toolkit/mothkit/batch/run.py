"""The driver of a batch: hands jobs to an engine, and keeps the ledger. Nothing else writes to it."""

import json
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from mothkit.batch.jobs import STAGES, Job, Limits, Report
from mothkit.batch.ledger import FINAL, Ledger, Row, Status, ledger_path, sole_run
from mothkit.batch.local import Engine
from mothkit.batch.tasks import Task
from mothkit.errors import OutputError, ResumeError
from mothkit.events import EventSink, Note, PhaseStarted, StepDone, silent
from mothkit.outputs import check_folder
from mothkit.pipeline import HardenSettings

_ATTEMPTS = 2  # of a worker that dies, hangs or runs out of memory
_LOSSES = 5  # of a model's workers that count as no attempt; more are hardly its machines' fault


def harden_batch(
    tasks: Sequence[Task],
    out: Path,
    settings: HardenSettings,
    engine: Engine,
    limits: Limits,
    *,
    resume: bool = False,
    emit: EventSink = silent,
) -> list[Row]:
    """Harden every task, each in a folder of its own name in ``out``, and return how each of their stages ended.

    Args:
        tasks: what ``find_tasks`` found.
        out: the folder for results, with the ledger. Empty or new, unless ``resume``.
        settings: of every model, where its task has no others. The engine picks the device.
        engine: runs the workers; entered and left here.
        limits: what one attempt may take.
        resume: go on with the batch in ``out``: what is finished stays, what a stop left undone is done.
        emit: told of models done, and of those that failed.

    Raises:
        OutputError: ``out`` holds something else, cannot be written to, or another run is at it.
        ResumeError: the batch in ``out`` has other settings, or its ledger cannot be read.
    """
    out = out.absolute()
    settings = _from_anywhere(settings)
    check_folder(out, [task.model.parent for task in tasks])
    with sole_run(out):
        ledger = _open(out, _told(settings), resume=resume)
        try:
            ledger.add(tasks)
            run = _Run(ledger, {task.name: task for task in tasks}, settings, engine, limits, emit)
            run.all()
            return run.rows()
        except KeyboardInterrupt as stop:
            stop.add_note("what is finished is kept; go on with --resume")
            raise
        finally:
            ledger.release()
            ledger.close()


def exit_code(rows: Sequence[Row]) -> int:
    """Return the code of a batch: 2 where a model failed, else 1 where one was not reached, 3 without any, else 0."""
    codes = {_exit_code(list(of_one)) for _, of_one in groupby(rows, key=lambda row: row.model)}
    return next((code for code in (2, 1, 0) if code in codes), 3)


def _exit_code(rows: Sequence[Row]) -> int:
    """Return the code of one model, whose ``rows`` these are."""
    unfinished = next((row for row in rows if row.status is not Status.DONE), None)
    return 0 if unfinished is None else 1 if unfinished.status is Status.NOT_REACHED else 2


def _from_anywhere(settings: HardenSettings) -> HardenSettings:
    """Return ``settings`` with absolute paths: workers may run elsewhere."""
    spec = settings.preprocess
    return replace(
        settings,
        triggers=tuple(path.absolute() for path in settings.triggers),
        eval_data=None if settings.eval_data is None else str(Path(settings.eval_data).absolute()),
        labels=None if settings.labels is None else settings.labels.absolute(),
        preprocess=str(Path(spec).absolute()) if spec and Path(spec).is_file() else spec,
    )


def _told(settings: HardenSettings) -> dict[str, Any]:
    """Return what another run must repeat to go on, as plain JSON types; the device is the engine's."""
    values = asdict(settings)
    del values["device"], values["budget"]["now"]
    told: dict[str, Any] = json.loads(json.dumps(values, default=str))
    return told


def _open(out: Path, told: dict[str, Any], *, resume: bool) -> Ledger:
    if not ledger_path(out).exists():
        if others := [path.name for path in out.iterdir() if not path.name.startswith(".")]:
            raise OutputError(f"{out}: holds {others[0]} and no batch; name a new folder, or an empty one")
        return Ledger.create(out, told)
    if not resume:
        raise OutputError(f"{out}: holds a batch already; go on with --resume, or name another folder")
    ledger = Ledger(out, writable=True)
    held = ledger.settings
    if other := sorted(name for name in held.keys() | told.keys() if held.get(name) != told.get(name)):
        ledger.close()
        raise ResumeError(
            f"{out}: its batch was begun with another {', '.join(other)}; repeat that run's options, or name another "
            "folder"
        )
    return ledger


@dataclass(slots=True)
class _Run:
    """A batch at work: what waits, what runs, and how often each was tried."""

    ledger: Ledger
    tasks: dict[str, Task]
    settings: HardenSettings
    engine: Engine
    limits: Limits
    emit: EventSink
    waiting: deque[Row] = field(default_factory=deque)
    running: dict[Future[Report], Row] = field(default_factory=dict)
    lost: Counter[str] = field(default_factory=Counter)
    ended: int = 0
    failed: int = 0

    def all(self) -> None:
        """Do all that is left."""
        self._take_up()
        total = len(self.waiting)
        if finished := len(self.tasks) - total:
            self.emit(Note(f"{finished} of {len(self.tasks)} models were finished before"))
        self.emit(PhaseStarted("harden models", total))
        with self.engine:
            while self.waiting or self.running:
                while self.waiting and len(self.running) < self.engine.slots:
                    self._start(self.waiting.popleft())
                for future in wait(self.running, return_when=FIRST_COMPLETED).done:
                    self._take(self.running.pop(future), _report(future, self.engine))
                    self.emit(StepDone(self.ended, total, f"{self.failed} failed" if self.failed else ""))

    def rows(self) -> list[Row]:
        """Return how the stages of this run's tasks stand."""
        return [row for row in self.ledger.rows() if row.model in self.tasks]

    def _take_up(self) -> None:
        """Let every model wait for its first stage that has not ended; one whose results are gone begins anew."""
        self.ledger.release()
        for model, rows in groupby(self.rows(), key=lambda row: row.model):
            if self._is_lost(list(rows)):
                self.emit(Note(f"{model}: its results are gone; it is done anew"))
                self.ledger.reopen(model)
        for _, rows in groupby(self.rows(), key=lambda row: row.model):
            if (row := _next(rows)) is not None:
                self.waiting.append(row)

    def _is_lost(self, rows: Sequence[Row]) -> bool:
        """Return whether what a model's last stage that was done had made is not there."""
        last = next((row for row in reversed(rows) if row.status is Status.DONE), None)
        folder = self.ledger.folder
        return last is not None and not all(
            (folder / path).is_file()
            for path in (str(last.record), f"{last.model}/{STAGES[last.stage].product}")
        )

    def _start(self, row: Row) -> None:
        task = self.tasks[row.model]
        job = Job(
            task=task,
            stage=row.stage,
            folder=self.ledger.folder / task.name,
            settings=self.settings,
            limits=self.limits,
        )
        self.ledger.start(row.model, row.stage)
        self.running[self.engine.submit(job)] = row

    def _take(self, row: Row, report: Report) -> None:
        """Take a report; one that tells of a loss alone is no attempt, and the stage waits for another worker."""
        self.lost[row.model] += report.lost
        if not report.lost or self.lost[row.model] > _LOSSES:
            self._end(row, report)
            return
        self.ledger.release(row.model)
        self.emit(Note(f"{row.model}: {report.reason}; it is run again elsewhere"))
        self.waiting.append(row)

    def _end(self, row: Row, report: Report) -> None:
        """Write down how an attempt ended, and let wait what follows from it."""
        again = report.again and row.attempts + 1 < _ATTEMPTS
        reason = None if report.reason is None else " ".join(report.reason.split())
        self.ledger.finish(
            row.model,
            row.stage,
            Status.WAITING if again else report.status,
            reason=reason,
            record=None if report.record is None else f"{row.model}/{report.record}",
            seconds=report.seconds,
        )
        following = _next(each for each in self.rows() if each.model == row.model)
        if again:
            self.emit(Note(f"{row.model}: {reason}; it is tried once more"))
        elif report.status is not Status.DONE:
            self.emit(Note(f"{row.model}: {report.status}: {reason}"))
        if following is None:
            self.ended += 1
            self.failed += report.status is Status.FAILED
        elif again:
            self.waiting.append(following)
        else:
            self.waiting.appendleft(following)


def _next(rows: Iterable[Row]) -> Row | None:
    """Return which of a model's ``rows``, in order, is to be done next; None where it came to an end."""
    unfinished = next((row for row in rows if row.status is not Status.DONE), None)
    return None if unfinished is None or unfinished.status in FINAL else unfinished


def _report(future: Future[Report], engine: Engine) -> Report:
    """Return what an attempt ended as; where the engine itself failed, that it failed or lost its worker."""
    error = future.exception()
    if error is None:
        return future.result()
    told = next(iter(str(error).splitlines()), "")
    reason = f"the worker was lost ({type(error).__name__}: {told})"
    return Report(status=Status.FAILED, reason=reason, again=True, lost=isinstance(error, engine.losses))
