"""Checkpoints: a file of tensors and plain values from which an interrupted run goes on.

The file is one line that names the format, SHA-256 of what follows, and what ``torch.save`` wrote: a damaged file
is refused before any of it is interpreted.
"""

import contextlib
import hashlib
import io
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from mothkit.errors import ResumeError

_MAGIC = b"mothkit checkpoint 3\n"
_DIGEST = hashlib.sha256().digest_size
_QUICK = 0.5  # seconds that a write may take; where the state is gigabytes, writes become rarer


@dataclass(slots=True)
class Checkpoint:
    """Where a run keeps its state.

    Attributes:
        path: the file; written to a temporary file beside it and renamed.
        fingerprint: names model, images, config and seed; a file of another run is refused.
        resume: whether an existing file is to be read.
        every: seconds between two writes; as many times more as a write takes longer than half a second.
        is_ours: whether the file holds this run's state, and not that of an earlier one.
    """

    path: Path
    fingerprint: str
    resume: bool = False
    every: float = 15.0
    is_ours: bool = field(default=False, init=False)
    _last: float = field(default_factory=time.monotonic)
    _took: float = 0.0

    def load(self) -> dict[str, Any] | None:
        """Return the saved state, or None where there is nothing to resume.

        Raises:
            ResumeError: the file is damaged or belongs to another run.
        """
        if not self.resume or not self.path.exists():
            return None
        payload = self._payload()
        try:
            saved = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
            fingerprint, state = saved["fingerprint"], dict(saved["state"])
        except Exception as error:  # torch raises nearly anything on what it did not write
            raise ResumeError(
                f"{self.path}: cannot be read as a checkpoint ({type(error).__name__}); delete it and start anew"
            ) from error
        if fingerprint != self.fingerprint:
            raise ResumeError(
                f"{self.path}: belongs to a run with another model, images, seed or settings; "
                "repeat that run's options, or leave out --resume to start anew"
            )
        self.is_ours = True
        return state

    def _payload(self) -> bytes:
        """Return what ``torch.save`` wrote, if all of it is there and unchanged."""
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise ResumeError(f"{self.path}: the checkpoint cannot be read: {error.strerror}") from error
        if not content.startswith(_MAGIC):
            raise ResumeError(f"{self.path}: is no checkpoint of this version; delete it and start anew")
        digest, payload = content[len(_MAGIC) :][:_DIGEST], content[len(_MAGIC) + _DIGEST :]
        if hashlib.sha256(payload).digest() != digest:
            raise ResumeError(f"{self.path}: the checkpoint is damaged; delete it and start anew")
        return payload

    def due(self) -> bool:
        """Return whether it is time to save again."""
        return time.monotonic() - self._last >= self.every * max(1.0, self._took / _QUICK)

    def save(self, state: dict[str, Any]) -> None:
        """Write ``state`` (tensors and plain values).

        Raises:
            ResumeError: there is no room, or the folder is not writable.
        """
        began = time.monotonic()
        buffer = io.BytesIO()
        torch.save({"fingerprint": self.fingerprint, "state": state}, buffer)
        payload = buffer.getbuffer()
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                file.write(_MAGIC + hashlib.sha256(payload).digest())
                file.write(payload)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path)
        except OSError as error:
            raise ResumeError(f"{self.path}: the checkpoint cannot be written: {error.strerror}") from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        self.is_ours = True
        self._last = time.monotonic()
        self._took = self._last - began

    def remove(self) -> None:
        """Delete the file, if there is one."""
        self.path.unlink(missing_ok=True)
