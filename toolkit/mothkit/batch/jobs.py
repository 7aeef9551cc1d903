"""What is asked of a worker and what it tells, and the stages that a model goes through."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from mothkit.batch.ledger import Status
from mothkit.batch.tasks import Task
from mothkit.errors import ConfigError, ResumeError
from mothkit.hardening.methods import entry_of
from mothkit.pipeline import HardenSettings, checkpoint_path, harden_file
from mothkit.records import SCHEMA, record_path, write_record
from mothkit.trojai.conversion import BY_TENSORS, pack_model
from mothkit.trojai.preparing import prepare_model
from mothkit.trojai.trusted import LOADED_BY

LOG = "worker.log"
_HARDENED = "hardened.onnx"
_PREPARED = "prepared"
_SCALINGS = (None, "unit", "minmax")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one attempt may take.

    Attributes:
        seconds: from its start.
        memory: bytes that the process holds in memory; None for a share of the machine's.
    """

    seconds: float
    memory: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One stage of one task, with all that a worker needs.

    Attributes:
        folder: the task's own, for results.
        settings: the batch's; the task may have some of its own.
        threads: of torch and onnxruntime, on the CPU.
    """

    task: Task
    stage: str
    folder: Path
    settings: HardenSettings
    limits: Limits
    threads: int = 1

    def on(self, device: str) -> "Job":
        """Return this job for ``device``."""
        return replace(self, settings=replace(self.settings, device=device))


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """How an attempt ended.

    Attributes:
        reason: why it failed, or was not reached.
        record: name of the record in the task's folder, where there is one.
        again: whether another attempt may end otherwise: the worker failed, and not the model.
        lost: whether the engine lost the worker, as with the machine that it was on: that says nothing of the model.
    """

    status: Status
    reason: str | None = None
    record: str | None = None
    again: bool = False
    lost: bool = False
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of the way of a model.

    Attributes:
        run: does it, within the worker.
        product: the file that is in the task's folder once it is done.
    """

    run: Callable[[Job], Report]
    product: str


def _prepare(job: Job) -> Report:
    preset = job.settings.preprocess
    if preset not in _SCALINGS:
        raise ConfigError(
            f"--preprocess is {preset!r}: models of a round take unit, minmax, or what their round says"
        )
    task, out = job.task, job.folder / _PREPARED
    how = task.preparing
    prepare_model(
        task.model,
        out,
        round_name=how.round,
        preset=preset,
        trust=how.trust,
        drawn=how.drawn,
        seed=job.settings.seed,
    )
    return Report(status=Status.DONE, record=f"{_PREPARED}/prepared.json")


def _harden(job: Job) -> Report:
    out = job.folder / _HARDENED
    model, data, settings = _prepared(job.task, job.folder, job.settings)
    saved = entry_of(settings.method).resumes and checkpoint_path(out).exists()
    try:
        outcome = harden_file(model, data, out, replace(settings, resume=saved))
    except ResumeError:
        if not saved:
            raise
        checkpoint_path(out).unlink()
        outcome = harden_file(model, data, out, settings)
    record = record_path(out)
    if outcome.written:
        return Report(status=Status.DONE, record=record.name)
    write_record(outcome.record, record)
    checkpoint_path(out).unlink(missing_ok=True)
    drops = [each["accuracy_drop"] for each in outcome.record["method"]["candidates"]]
    least = f"; the least estimated drop is {min(drops):+.1f} points" if drops else "; time was up"
    return Report(
        status=Status.NOT_REACHED, reason=f"no weights kept the accuracy asked for{least}", record=record.name
    )


def _prepared(task: Task, folder: Path, settings: HardenSettings) -> tuple[Path, str, HardenSettings]:
    """Return model, clean images and settings for hardening: as they are given, or as they were prepared."""
    own = task.settings(settings)
    if "prepare" not in task.stages:
        return task.model, task.data, own
    told = json.loads((folder / _PREPARED / "prepared.json").read_text(encoding="utf-8"))
    triggers = tuple(map(Path, told["triggers"])) or own.triggers
    return (
        folder / _PREPARED / "model.onnx",
        str(told["data"]),
        replace(own, triggers=triggers, preprocess=None),
    )


def _pack(job: Job) -> Report:
    out = job.folder / "model.pt"
    trust = job.task.preparing.trust
    parity = pack_model(job.task.model / "model.pt", job.folder / _HARDENED, out, trust=trust)
    record = record_path(out)
    told = {"loaded_by": LOADED_BY if trust else BY_TENSORS, "parity": parity.to_dict()}
    write_record({"schema": SCHEMA, "command": "trojai pack", **told}, record)
    return Report(status=Status.DONE, record=record.name)


STAGES: Mapping[str, Stage] = MappingProxyType(
    {
        "prepare": Stage(_prepare, f"{_PREPARED}/model.onnx"),
        "harden": Stage(_harden, _HARDENED),
        "pack": Stage(_pack, "model.pt"),
    }
)
"""By name."""
