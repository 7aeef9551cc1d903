"""The ledger of a batch: one SQLite file with a row for each model and stage, which every stop leaves readable."""

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mothkit.errors import OutputError, ResumeError

if TYPE_CHECKING:
    from mothkit.batch.tasks import Task  # a report is made without torch

_FORMAT = "1"
_PATIENCE = 60.0  # seconds that a write waits for a reader
_SCHEMA = """
CREATE TABLE batch (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE models (name TEXT PRIMARY KEY, task TEXT NOT NULL);
CREATE TABLE stages (
    model TEXT NOT NULL REFERENCES models (name), stage TEXT NOT NULL, number INTEGER NOT NULL, status TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0, reason TEXT, record TEXT, started TEXT, seconds REAL,
    PRIMARY KEY (model, stage)
);
"""


class Status(StrEnum):
    """Where a stage of a model is."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    NOT_REACHED = "not reached"  # ran, and what was asked is not reached
    FAILED = "failed"  # could not run


FINAL = (Status.DONE, Status.NOT_REACHED, Status.FAILED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One stage of one model.

    Attributes:
        attempts: how often it was begun and came to an end, of whatever kind.
        reason: why it failed, or was not reached; of the last attempt.
        record: its record, relative to the batch's folder; None where it has none.
        started: when, in UTC.
        seconds: how long the last attempt took.
    """

    model: str
    stage: str
    status: Status
    attempts: int
    reason: str | None
    record: str | None
    started: str | None
    seconds: float | None


def ledger_path(folder: Path) -> Path:
    """Return where the ledger of the batch in ``folder`` lies."""
    return folder / "ledger.sqlite"


@contextmanager
def sole_run(folder: Path) -> Iterator[None]:
    """Hold ``folder`` for this process alone; the system lets go of it however the process ends.

    Raises:
        OutputError: another run holds it, or the folder cannot be written to.
    """
    lock = sqlite3.connect(folder / ".lock.sqlite", timeout=0, isolation_level=None)
    try:
        lock.execute("BEGIN EXCLUSIVE")
    except sqlite3.Error as error:
        lock.close()
        raise OutputError(
            f"{folder}: another batch works on it, or it cannot be written to ({error})"
        ) from error
    try:
        yield
    finally:
        lock.close()


class Ledger:
    """What is known of each model of the batch in ``folder``. One process writes, any number may read.

    Raises:
        ResumeError: there is no ledger, it is damaged, or of another version.
    """

    def __init__(self, folder: Path, *, writable: bool = False) -> None:
        self.folder = folder
        mode = "rw" if writable else "ro"
        try:
            self._database = sqlite3.connect(
                f"{ledger_path(folder).absolute().as_uri()}?mode={mode}",
                uri=True,
                timeout=_PATIENCE,
                isolation_level=None,
            )
            found = self._value("format")
        except sqlite3.Error as error:
            raise ResumeError(f"{folder}: holds no readable ledger of a batch ({error})") from error
        if found != _FORMAT:
            raise ResumeError(f"{ledger_path(folder)}: is of version {found}, expected {_FORMAT}")
        if writable:
            self._database.execute(
                "PRAGMA synchronous = FULL"
            )  # what was told to be finished outlives power loss

    @classmethod
    def create(cls, folder: Path, settings: Mapping[str, Any]) -> "Ledger":
        """Return a new ledger in ``folder`` of a batch with these ``settings`` (plain JSON types).

        Raises:
            OutputError: it cannot be written.
        """
        path = ledger_path(folder)
        beside = path.with_name(f".{path.name}.new")
        try:
            beside.unlink(missing_ok=True)
            database = sqlite3.connect(beside, isolation_level=None)
            database.executescript(_SCHEMA)
            told = [("format", _FORMAT), ("settings", json.dumps(settings, sort_keys=True))]
            database.executemany("INSERT INTO batch VALUES (?, ?)", told)
            database.execute("PRAGMA journal_mode = WAL")
            database.close()
            beside.replace(path)  # never half a ledger
        except (sqlite3.Error, OSError) as error:
            raise OutputError(f"{path}: cannot be written: {error}") from error
        return cls(folder, writable=True)

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that it was made with."""
        found: dict[str, Any] = json.loads(self._value("settings"))
        return found

    def _value(self, key: str) -> str:
        (value,) = self._database.execute("SELECT value FROM batch WHERE key = ?", (key,)).fetchone() or ("",)
        return str(value)

    def add(self, tasks: Sequence["Task"]) -> None:
        """Add the models that are not there yet, all of whose stages wait.

        Raises:
            ResumeError: one that is there is another model, or has other images or triggers.
            OutputError: the ledger cannot be written to, as for all that follow.
        """
        with self._writing() as database:
            for task in tasks:
                text = json.dumps(task.to_dict(), sort_keys=True)
                held = database.execute("SELECT task FROM models WHERE name = ?", (task.name,)).fetchone()
                if held is not None and held[0] != text:
                    raise ResumeError(
                        f"{self.folder}: {task.name} was begun with another model, images, triggers or facts; repeat "
                        "these, or take another folder"
                    )
                database.execute("INSERT OR IGNORE INTO models VALUES (?, ?)", (task.name, text))
                database.executemany(
                    "INSERT OR IGNORE INTO stages (model, stage, number, status) VALUES (?, ?, ?, ?)",
                    [(task.name, stage, number, Status.WAITING) for number, stage in enumerate(task.stages)],
                )

    def start(self, model: str, stage: str) -> None:
        """Note that a stage was begun."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        with self._writing() as database:
            database.execute(
                "UPDATE stages SET status = ?, started = ? WHERE model = ? AND stage = ?",
                (Status.RUNNING, now, model, stage),
            )

    def finish(
        self,
        model: str,
        stage: str,
        status: Status,
        *,
        reason: str | None,
        record: str | None,
        seconds: float,
    ) -> None:
        """Note how an attempt ended; ``WAITING`` if there is to be another."""
        with self._writing() as database:
            database.execute(
                "UPDATE stages SET attempts = attempts + 1, status = ?, reason = ?, record = ?, seconds = ? "
                "WHERE model = ? AND stage = ?",
                (status, reason, record, round(seconds, 3), model, stage),
            )

    def reopen(self, model: str) -> None:
        """Let all stages of a model wait as if none had ever been begun."""
        with self._writing() as database:
            database.execute(
                "UPDATE stages SET status = ?, attempts = 0, reason = NULL, record = NULL, started = NULL, "
                "seconds = NULL WHERE model = ?",
                (Status.WAITING, model),
            )

    def release(self, model: str | None = None) -> None:
        """Let stages wait that a run was at as it ended, or lost, of one model or of all; that is no attempt."""
        with self._writing() as database:
            database.execute(
                "UPDATE stages SET status = ?, started = NULL WHERE status = ? AND model = coalesce(?, model)",
                (Status.WAITING, Status.RUNNING, model),
            )

    def rows(self) -> list[Row]:
        """Return all stages, by model and in their order."""
        names = ", ".join(Row.__slots__)
        found = self._database.execute(f"SELECT {names} FROM stages ORDER BY model, number")  # noqa: S608
        return [_row(dict(zip(Row.__slots__, values, strict=True))) for values in found]

    def facts(self) -> dict[str, dict[str, Any]]:
        """Return what is known of each model, by name."""
        found = self._database.execute("SELECT name, task FROM models ORDER BY name")
        return {name: json.loads(task)["facts"] for name, task in found}

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """Yield the database within a transaction."""
        try:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            raise OutputError(f"{ledger_path(self.folder)}: cannot be written to: {error}") from error


def _row(values: dict[str, Any]) -> Row:
    return Row(**values | {"status": Status(values["status"])})
