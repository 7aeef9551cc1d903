"""Checkpoints: a file of tensors and plain values from which an interrupted run goes on."""

import os
import pickle
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from mothkit.errors import ResumeError

_FORMAT = 1


@dataclass(slots=True)
class Checkpoint:
    """Where a run keeps its state.

    Attributes:
        path: the file; written to a temporary file beside it and renamed.
        fingerprint: names model, images, config and seed; a file of another run is refused.
        resume: whether an existing file is to be read.
        every: seconds between two writes.
    """

    path: Path
    fingerprint: str
    resume: bool = False
    every: float = 15.0
    _last: float = field(default_factory=time.monotonic)

    def load(self) -> dict[str, Any] | None:
        """Return the saved state, or None where there is nothing to resume.

        Raises:
            ResumeError: the file is damaged or belongs to another run.
        """
        if not self.resume or not self.path.exists():
            return None
        try:
            saved = torch.load(self.path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, KeyError, ValueError, pickle.UnpicklingError) as error:
            raise ResumeError(
                f"{self.path}: cannot be read as a checkpoint ({type(error).__name__}); delete it and start anew"
            ) from error
        if not isinstance(saved, dict) or saved.get("format") != _FORMAT:
            raise ResumeError(f"{self.path}: is no checkpoint of this version; delete it and start anew")
        if saved.get("fingerprint") != self.fingerprint:
            raise ResumeError(
                f"{self.path}: belongs to a run with another model, images, seed or settings; "
                "repeat that run's options, or leave out --resume to start anew"
            )
        state: dict[str, Any] = saved["state"]
        return state

    def due(self) -> bool:
        """Return whether it is time to save again."""
        return time.monotonic() - self._last >= self.every

    def save(self, state: dict[str, Any]) -> None:
        """Write ``state`` (tensors and plain values).

        Raises:
            ResumeError: there is no room, or the folder is not writable.
        """
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                torch.save({"format": _FORMAT, "fingerprint": self.fingerprint, "state": state}, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path)
        except (OSError, RuntimeError) as error:
            raise ResumeError(f"{self.path}: the checkpoint cannot be written: {error}") from error
        finally:
            temporary.unlink(missing_ok=True)
        self._last = time.monotonic()

    def remove(self) -> None:
        """Delete the file, if there is one."""
        self.path.unlink(missing_ok=True)
