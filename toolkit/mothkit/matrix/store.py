"""A folder of finished chunks, from which a stopped measurement goes on.

A chunk is two files: its triggers as plain float32, and its numbers as JSON, written last: a chunk counts once that
is there. Triggers are mapped from the disk and not kept in memory; torch's map, unlike numpy's, holds no file open.
"""

import hashlib
import json
import math
import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from mothkit.errors import OutputError, ResumeError, ShapeError
from mothkit.evaluation import Rate
from mothkit.matrix.draws import Draw, Measured
from mothkit.records import to_json, write_text
from mothkit.triggers.patch import Trigger

_PLAN = "plan.json"
_CHUNKS = "[0-9][0-9][0-9][0-9][0-9].*"
_FORMAT = "mothkit draws 1"


@dataclass(slots=True)
class DrawStore:
    """Chunks of one measurement.

    Attributes:
        folder: theirs alone.
        fingerprint: names model, images and settings.
        is_ours: whether the folder's chunks are this measurement's, and not those of an earlier one.
    """

    folder: Path
    fingerprint: str
    is_ours: bool = field(default=False, init=False)

    @property
    def holds_a_run(self) -> bool:
        """Whether the folder holds any measurement's chunks."""
        return (self.folder / _PLAN).exists()

    def open(self, *, resume: bool) -> None:
        """Make the folder ready. Chunks of an earlier measurement stay until the first new one is saved.

        Raises:
            ResumeError: it holds another measurement's chunks, and these were to be resumed.
            OutputError: it holds something else, or cannot be written.
        """
        if resume and self.holds_a_run:
            self._check_plan()
            self.is_ours = True
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not self.holds_a_run and any(self.folder.iterdir()):
                raise OutputError(f"{self.folder}: holds files of something else; choose another folder")
        except OSError as error:
            raise OutputError(f"{self.folder}: cannot be written: {error.strerror or error}") from error

    def _begin(self) -> None:
        """Replace an earlier measurement; its plan goes last, so that no chunk is ever taken for another's."""
        for old in self.folder.glob(_CHUNKS):
            old.unlink()
        plan = {"format": _FORMAT, "fingerprint": self.fingerprint}
        write_text(self.folder / _PLAN, json.dumps(plan) + "\n")
        self.is_ours = True

    def _check_plan(self) -> None:
        plan = self._json(_PLAN)
        if plan.get("format") != _FORMAT:
            raise ResumeError(
                f"{self.folder / _PLAN}: is of another version; leave out --resume to start anew"
            )
        if plan.get("fingerprint") != self.fingerprint:
            raise ResumeError(
                f"{self.folder}: belongs to a run with another model, images, seed or settings; "
                "repeat that run's options, or leave out --resume to start anew"
            )

    def load(self, number: int, chunk: Sequence[Draw]) -> list[Measured] | None:
        """Return what chunk ``number`` found, its triggers mapped from the disk; None where it is not there.

        Raises:
            ResumeError: its files are damaged, or those of other draws.
        """
        name = f"{number:05}.json"
        if not self.is_ours or not (self.folder / name).exists():
            return None
        told, array = self._json(name), self.folder / f"{number:05}.f32"
        try:
            with array.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest != told["sha256"]:
                raise ResumeError(f"{array}: is damaged; delete {name} to measure its part again")
            values = torch.from_file(str(array), size=math.prod(told["shape"])).view(told["shape"])
            measured = [_read(entry, values[k]) for k, entry in enumerate(told["draws"])]
        except (OSError, KeyError, TypeError, ValueError, IndexError, RuntimeError, ShapeError) as error:
            raise self._unreadable(self.folder / name, error) from error
        if [each.draw for each in measured] != list(chunk):
            raise ResumeError(f"{self.folder / name}: holds other draws than were planned; start anew")
        return measured

    def save(self, number: int, measured: list[Measured]) -> list[Measured]:
        """Write what chunk ``number`` found, and return the same with triggers mapped from the disk.

        Raises:
            OutputError: it cannot be written.
        """
        values = torch.stack([torch.cat([each.trigger.mask, each.trigger.pattern]) for each in measured])
        payload = values.numpy().tobytes()
        told = {
            "sha256": hashlib.sha256(payload).hexdigest(),
            "shape": list(values.shape),
            "draws": [_told(each) for each in measured],
        }
        try:
            if not self.is_ours:
                self._begin()
            write_bytes(self.folder / f"{number:05}.f32", payload)
            write_text(self.folder / f"{number:05}.json", to_json(told))
        except OSError as error:
            raise OutputError(
                f"{self.folder}: what was measured cannot be kept: {error.strerror or error}"
            ) from error
        return self.load(number, [each.draw for each in measured]) or measured

    def _json(self, name: str) -> dict[str, Any]:
        path = self.folder / name
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise self._unreadable(path, error) from error
        if not isinstance(found, dict):
            raise ResumeError(f"{path}: is no record of draws; delete it")
        return found

    @staticmethod
    def _unreadable(path: Path, error: Exception) -> ResumeError:
        return ResumeError(f"{path}: cannot be read ({type(error).__name__}: {error}); delete it")


def _told(each: Measured) -> dict[str, object]:
    rate = each.held_out
    return {
        "draw": list(each.draw),
        "mask_l1": each.mask_l1,
        "found": each.found,
        "success_rate": each.success_rate,
        "images": each.images,
        "held_out": None if rate is None else [rate.hits, rate.count],
    }


def _read(told: dict[str, Any], values: torch.Tensor) -> Measured:
    return Measured(
        draw=Draw(*told["draw"]),
        mask_l1=float(told["mask_l1"]),
        found=bool(told["found"]),
        success_rate=float(told["success_rate"]),
        images=int(told["images"]),
        held_out=None if told["held_out"] is None else Rate(*told["held_out"]),
        trigger=Trigger(values[:1], values[1:]),
    )


def write_bytes(path: Path, payload: bytes) -> None:
    """Write ``payload`` to ``path`` through a file beside it that is renamed.

    Raises:
        OSError: it cannot be written; what stood at ``path`` before still does.
    """
    write_through(path, lambda beside: beside.write_bytes(payload))


def write_through(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` make a file beside ``path``, sync it, and rename it to ``path``.

    Raises:
        OSError: it cannot be written; what stood at ``path`` before still does.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        write(beside)
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
