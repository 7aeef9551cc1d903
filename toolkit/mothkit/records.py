"""The JSON record of a run, and where it lies."""

import json
import math
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mothkit.errors import OutputError, RecordError
from mothkit.events import Event, EventSink, PhaseStarted

SCHEMA = "mothkit.record/1"
MAX_BYTES = 64 * 2**20  # of a record that is read


def record_path(model: Path) -> Path:
    """Return where the record of the model file ``model`` lies: ``a.onnx`` has ``a.record.json``."""
    return model.with_name(f"{model.stem}.record.json")


def read_record(path: Path) -> dict[str, Any]:
    """Return the record in ``path``, of whatever schema; numbers that JSON does not know are None.

    Raises:
        RecordError: it is none, or too large for one.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise RecordError(f"{path}: has more than {MAX_BYTES} bytes; expected a record")
    try:
        record = json.loads(content.decode("utf-8"), parse_constant=lambda _: None)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path}: is no JSON ({error}); expected a record") from error
    if not isinstance(record, dict) or not isinstance(record.get("schema"), str):
        raise RecordError(f"{path}: is no record; a record names its schema")
    return record


def to_json(record: Mapping[str, Any]) -> str:
    """Return ``record`` as indented JSON: arrays as lists, numbers that are not finite as null."""
    text = json.dumps(_plain(record), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return text.encode(
        errors="backslashreplace"
    ).decode()  # file names that are no Unicode: \udcff is JSON too


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # numpy's and torch's, neither of which is imported for it
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def write_record(record: Mapping[str, Any], path: Path) -> None:
    """Write ``record`` to ``path``, as ``write_text`` does.

    Raises:
        OutputError: it cannot be written; what stood there still stands.
    """
    try:
        write_text(path, to_json(record))
    except OSError as error:
        raise OutputError(f"{path}: the record cannot be written: {error.strerror or error}") from error


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` through a file beside it that is synced and renamed.

    Raises:
        OSError: it cannot be written; what stood at ``path`` before still does.
    """
    write_texts({path: text})


def write_texts(texts: Mapping[Path, str]) -> None:
    """Write several files, as ``write_text`` does: all are complete before the first is renamed.

    Raises:
        OSError: one cannot be written; what stood at every path before still does, unless a renaming failed.
    """
    targets = {path.resolve(): text for path, text in texts.items()}
    with ExitStack() as stack:
        staged = [
            (_staged(target, text, stack), target) for target, text in targets.items() if _keeps(target)
        ]
        for target, text in targets.items():
            if not _keeps(target):
                with _naming(target):
                    target.write_text(text, encoding="utf-8")
        for beside, target in staged:
            beside.replace(target)


def _keeps(target: Path) -> bool:
    """Return whether a file is to be kept at ``target``; a device or a named pipe holds nothing."""
    return target.is_file() or not target.exists()


def _staged(target: Path, text: str, stack: ExitStack) -> Path:
    """Return a new file beside ``target`` that holds ``text``, and is deleted as ``stack`` closes."""
    beside = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    stack.callback(beside.unlink, missing_ok=True)
    with _naming(target), beside.open("x", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    return beside


@contextmanager
def _naming(target: Path) -> Iterator[None]:
    """Have errors name ``target``: those of a write name no file, and those of a staged one a name of ours."""
    try:
        yield
    except OSError as error:
        error.filename = str(target)
        raise


@dataclass(slots=True)
class PhaseClock:
    """An event sink that passes everything on and adds up the seconds of each phase."""

    emit: EventSink
    seconds: dict[str, float] = field(default_factory=dict)
    _name: str = "start"
    _since: float = field(default_factory=time.monotonic)

    def __call__(self, event: Event) -> None:
        """Take one event."""
        if isinstance(event, PhaseStarted):
            self._close()
            self._name = event.name
        self.emit(event)

    def stop(self) -> dict[str, float]:
        """Return the seconds of every phase, the running one included."""
        self._close()
        return dict(self.seconds)

    def _close(self) -> None:
        now = time.monotonic()
        self.seconds[self._name] = round(self.seconds.get(self._name, 0.0) + now - self._since, 3)
        self._since = now
