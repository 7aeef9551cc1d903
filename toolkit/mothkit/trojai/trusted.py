"""Pickles that the user trusts: loaded as torch loads them, which may run any code, in a process of its own.

That process does what needs the module and leaves files; what comes back from it is read as data. It is no sandbox: the
code in the pickle runs with the rights of the user.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from mothkit.agreement import Parity, ProbeResult
from mothkit.classifier import open_source
from mothkit.errors import ModelError, MothkitError
from mothkit.trojai.transfer import check_parity, export_module, weights_of

LOADED_BY = "torch.load, trusted: the pickle may have run any code, in a process of its own"
LIMIT = 1800.0  # seconds
_MAX_BYTES = 1 << 20  # of what is told
_GLANCE = 0.5  # seconds between two looks at who waits
_SHOWN = 300  # characters of what a failed process said


@dataclass(frozen=True, slots=True)
class Told:
    """What the process that loaded a pickle says of it."""

    classes: int
    parity: Parity


def convert_trusted(
    model: Path, out: Path, side: int, metadata: Mapping[str, str], *, limit: float = LIMIT
) -> Told:
    """Write the pickled module in ``model`` to ``out`` as ONNX, for images of ``side`` pixels.

    Args:
        model: the pickled file, which is executed.
        out: the ONNX file, on the disk that it is to stay on.
        side: of the images.
        metadata: of the ONNX file.
        limit: seconds after which the process is killed.

    Raises:
        ModelError: the process failed, took too long, or told nothing that makes sense.
    """
    return _run(["convert", model, out, side, json.dumps(metadata)], model, limit)


def pack_trusted(model: Path, hardened: Path, out: Path, *, limit: float = LIMIT) -> Told:
    """Write the pickled module in ``model`` to ``out`` with the weights of the ONNX file ``hardened``.

    Args:
        model: the pickled file, which is executed.
        hardened: what became of the ONNX file that ``convert_trusted`` wrote.
        out: the new pickled file.
        limit: seconds after which the process is killed.

    Raises:
        ModelError: the process failed, took too long, or told nothing that makes sense.
    """
    return _run(["pack", model, hardened, out], model, limit)


def _run(task: Sequence[object], model: Path, limit: float) -> Told:
    with tempfile.TemporaryDirectory(prefix="mothkit-") as folder:
        result, words = Path(folder) / "result.json", Path(folder) / "words"
        code = _finish([sys.executable, "-m", __name__, str(result), *map(str, task)], words, model, limit)
        try:
            return _read(result)
        except (OSError, ValueError, TypeError, KeyError) as error:
            said = words.read_bytes()[-_SHOWN:].decode(errors="replace").strip().rpartition("\n")[2]
            raise ModelError(
                f"{model}: the process that loaded it left no result; exit code {code}: {said}"
            ) from error


def _finish(command: Sequence[str], words: Path, model: Path, limit: float) -> int:
    """Run a command to its end, what it says in the file ``words``; return its exit code."""
    with words.open("wb") as file:
        process = subprocess.Popen(  # noqa: S603 - ourselves
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
        )
        try:
            return process.wait(limit)
        except subprocess.TimeoutExpired as error:
            raise ModelError(f"{model}: loading and exporting it took more than {limit:.0f} s") from error
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with what it may have started
            process.wait()


def _read(result: Path) -> Told:
    """Return what a process told, as data; raises ValueError, TypeError or KeyError where that makes no sense."""
    with result.open("rb") as file:
        told = json.loads(file.read(_MAX_BYTES))
    if "error" in told:
        raise ModelError(str(told["error"])[:_SHOWN])
    return Told(int(told["classes"]), Parity(tuple(ProbeResult(**probe) for probe in told["probes"])))


def main(arguments: Sequence[str]) -> None:
    """Do one task in this process, and leave its result in the file that the first argument names."""
    result, task, *rest = arguments
    threading.Thread(target=_die_with_parent, args=(os.getppid(),), daemon=True).start()
    try:
        parity, module, side = _convert(*rest) if task == "convert" else _pack(*rest)
        with torch.no_grad():
            classes = module(torch.zeros(1, 3, side, side)).shape[-1]
        told = {"classes": classes, "probes": parity.to_dict()["probes"]}
    except MothkitError as error:
        told = {"error": str(error)}
    Path(result).write_text(json.dumps(told), encoding="utf-8")


def _die_with_parent(parent: int) -> None:
    """End this process once ``parent``, which waits for it, is gone; a batch kills workers that take too long."""
    while os.getppid() == parent:
        time.sleep(_GLANCE)
    os._exit(1)


def _convert(model: str, out: str, side: str, metadata: str) -> tuple[Parity, nn.Module, int]:
    module = _load(Path(model))
    return export_module(module, Path(out), int(side), json.loads(metadata)), module, int(side)


def _pack(model: str, hardened: str, out: str) -> tuple[Parity, nn.Module, int]:
    module, source = _load(Path(model)), open_source(Path(hardened))
    weights = weights_of(source, module, Path(model))
    module.load_state_dict({**module.state_dict(), **weights})
    parity = check_parity(source, module, Path(out))
    torch.save(module, out)
    shape = source.inputs[0].shape
    assert shape is not None  # noqa: S101 - parity has taken its size from it
    return parity, module, int(shape[-1] or 0)


def _load(path: Path) -> nn.Module:
    found = torch.load(path, map_location="cpu", weights_only=False)
    module = getattr(found, "module", found) if type(found).__name__ == "DataParallel" else found
    if not isinstance(module, nn.Module):
        raise ModelError(f"{path}: holds a {type(found).__name__}, not a module")
    return module.float().eval()


if __name__ == "__main__":
    main(sys.argv[1:])
