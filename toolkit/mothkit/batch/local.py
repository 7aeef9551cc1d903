"""The engine that needs nothing: workers on this machine, a thread that watches each."""

import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Protocol, Self

import torch

from mothkit.batch.jobs import Job, Report
from mothkit.batch.worker import attempt
from mothkit.environment import cores
from mothkit.runtime import pick_device


class Engine(Protocol):
    """Where attempts are run. Leaving its context stops those that still run.

    Attributes:
        slots: how many it runs at once.
        losses: errors of its futures that tell of a machine which went away, and nothing of the model.
    """

    slots: int
    losses: tuple[type[BaseException], ...]

    def submit(self, job: Job) -> Future[Report]:
        """Return what ``job`` will have ended as; the future raises where the engine itself failed."""
        ...

    def __enter__(self) -> Self:
        """Start it."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it, and wait until all its workers are gone."""
        ...


class LocalEngine:
    """Runs ``slots`` workers at once, which take turns on ``devices``.

    Args:
        devices: as ``spread`` gives them.
        jobs: how many workers; None for one a GPU, or one a core.
    """

    losses: tuple[type[BaseException], ...] = ()

    def __init__(self, devices: Sequence[str], jobs: int | None = None) -> None:
        self.slots = jobs or (cores() if list(devices) == ["cpu"] else len(devices))
        self._free: queue.SimpleQueue[str] = queue.SimpleQueue()
        for slot in range(self.slots):
            self._free.put(devices[slot % len(devices)])
        self._stop = threading.Event()
        self._threads = ThreadPoolExecutor(self.slots, thread_name_prefix="worker")

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kill the workers that are left."""
        self._stop.set()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def submit(self, job: Job) -> Future[Report]:
        """Return what ``job`` will have ended as."""
        return self._threads.submit(self._run, job)

    def _run(self, job: Job) -> Report:
        device = self._free.get_nowait()  # there are as many as threads
        try:
            return attempt(job.on(device), self._stop)
        finally:
            self._free.put(device)


def spread(device: str) -> list[str]:
    """Return the devices that workers take turns on: all GPUs for ``auto`` and ``cuda``, where there are some.

    Raises:
        DeviceError: ``device`` is not there.
    """
    chosen = pick_device(device)
    if chosen.type == "cpu" or device not in ("auto", "cuda"):
        return [str(chosen)]
    return [f"cuda:{index}" for index in range(torch.cuda.device_count())]
