"""One attempt at one stage of one model, in a process of its own that may die, hang or eat memory at its own cost."""

import faulthandler
import multiprocessing
import os
import shutil
import signal
import threading
import time
import traceback
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil
import torch

from mothkit.batch.jobs import LOG, STAGES, Job, Limits, Report
from mothkit.batch.ledger import Status
from mothkit.errors import MothkitError, is_out_of_memory
from mothkit.outputs import check_folder

_GLANCE = 0.1  # seconds between two looks at a worker's memory and time
_LAST_RITES = 10.0  # seconds that a worker may take to leave after it has told its result
_OF_MEMORY = 0.8  # of the machine's, where no limit is given: its own death is better than its neighbours'
_PRELOADED = ["mothkit.batch.worker"]
_FORKING = threading.Lock()  # multiprocessing looks after all children of a process whenever one is started


def attempt(job: Job, stop: threading.Event | None = None) -> Report:
    """Return how ``job`` ended, in a process of its own.

    Args:
        job: what to do.
        stop: kills the process once it is set.

    Raises:
        CancelledError: it was stopped.
    """
    began = time.monotonic()
    context = _context()
    receiver, sender = context.Pipe(duplex=False)
    process: BaseProcess = context.Process(target=_work, args=(sender, job), daemon=True)  # type: ignore[attr-defined]
    with _FORKING:
        process.start()
    sender.close()
    try:
        family = job.task.preparing.trust  # what loads a trusted pickle is a process of the worker's
        report = _watch(process, receiver, job.limits, stop or threading.Event(), family=family)
    finally:
        receiver.close()
        _bury(process)
    return replace(report, seconds=time.monotonic() - began)


def _context() -> BaseContext:
    """Return how processes are made: forked from one that has torch loaded and nothing else, where that is possible."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    return context


def _watch(
    process: BaseProcess, receiver: Connection, limits: Limits, stop: threading.Event, *, family: bool
) -> Report:
    deadline = time.monotonic() + limits.seconds
    memory = limits.memory or int(_OF_MEMORY * psutil.virtual_memory().total)
    while True:
        ready = wait([receiver, process.sentinel], timeout=_GLANCE)
        if receiver in ready:
            with suppress(EOFError, OSError):  # it died as it spoke
                found: Report = receiver.recv()
                wait([process.sentinel], timeout=_LAST_RITES)
                return found
        if ready:
            return _died(process)
        if stop.is_set():
            raise CancelledError
        if time.monotonic() > deadline:
            return _given_up(f"hung or too slow: stopped after {limits.seconds:.0f} s")
        if _resident(process, family=family) > memory:
            return _given_up(f"out of memory: stopped as it held more than {memory >> 20} MiB")


def _given_up(reason: str) -> Report:
    return Report(status=Status.FAILED, reason=reason, again=True)


def _died(process: BaseProcess) -> Report:
    with _FORKING:
        process.join(_LAST_RITES)
        code = process.exitcode
    if code is None or code >= 0:
        return _given_up(f"the worker ended without a result (exit code {code}); see {LOG}")
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    perhaps = ", perhaps for want of memory" if name == "SIGKILL" else ""
    return _given_up(f"the worker was killed ({name}{perhaps}); see {LOG}")


def _resident(process: BaseProcess, *, family: bool) -> int:
    """Return the bytes that a process holds in memory, with those of its own processes where it has a ``family``."""
    try:
        found = psutil.Process(process.pid)
        members = [found, *(found.children(recursive=True) if family else ())]
        return sum(int(each.memory_info().rss) for each in members)
    except psutil.Error:
        return 0


def _bury(process: BaseProcess) -> None:
    with _FORKING:
        if process.exitcode is None:
            process.kill()
        process.join()
        process.close()


def _work(told: Connection, job: Job) -> None:
    """Run in the worker: do ``job`` and tell how it ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is the driver's to act on
    threading.Thread(target=_die_with_parent, daemon=True).start()
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")  # Linux kills workers first, not the driver
    torch.set_num_threads(job.threads)
    try:
        check_folder(job.folder, ())
        _clear(job.folder)
        _log_to(job.folder / LOG)
        report = STAGES[job.stage].run(job)
        _sync(job.folder)  # renamed files outlive power loss before the ledger says that they are there
    except Exception as error:
        report = _failed(error)
    told.send(report)


def _die_with_parent() -> None:
    """End this process once the one that watches it is gone, however that ended."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _clear(folder: Path) -> None:
    """Delete what an attempt that was killed left half done."""
    for left in sorted(folder.rglob(".*"), reverse=True):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def _log_to(path: Path) -> None:
    """Send what libraries write, and where a crash was, to the file ``path``."""
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    faulthandler.enable(2)


def _sync(folder: Path) -> None:
    if os.name != "posix":
        return
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _failed(error: Exception) -> Report:
    if isinstance(error, MothkitError):
        return Report(status=Status.FAILED, reason=str(error))
    traceback.print_exception(error)  # to the log
    if is_out_of_memory(error):
        return _given_up(f"out of memory: {next(iter(str(error).splitlines()), type(error).__name__)}")
    if isinstance(error, OSError):
        return Report(status=Status.FAILED, reason=f"{error.strerror or error}: {error.filename}")
    return Report(status=Status.FAILED, reason=f"internal error: {type(error).__name__}: {error}; see {LOG}")
