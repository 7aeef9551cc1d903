"""The engine for many machines: the same worker, as tasks of a Ray cluster. Ray is an extra, loaded here alone."""

import logging
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self

from mothkit.batch.jobs import Job, Report
from mothkit.batch.worker import attempt
from mothkit.errors import ConfigError


class RayEngine:
    """Runs workers where a Ray cluster has room: one CPU a worker, and one GPU where it has some and may use them.

    Retries are the driver's, as with every engine; what ran on a node that is lost is run again elsewhere.

    Args:
        address: the cluster's; None starts one on this machine, and stops it again.
        device: ``auto`` takes GPUs where there are some.
        jobs: how many workers at once; None for as many as there are GPUs or CPUs.

    Raises:
        ConfigError: ray is not installed, or no cluster answers.
    """

    def __init__(self, address: str | None, device: str, jobs: int | None = None) -> None:
        self._ray, self._address, self._device = _ray(), address, device
        self._refs: list[Any] = []
        known = self._ray.exceptions
        self.losses: tuple[type[BaseException], ...] = (
            *(known.NodeDiedError, known.WorkerCrashedError, known.LocalRayletDiedError),
            *(known.ObjectLostError, known.OwnerDiedError),
        )
        self.slots = jobs or 0
        self._gpus = 0

    def __enter__(self) -> Self:
        """Connect, and count what there is."""
        try:
            self._ray.init(address=self._address, log_to_driver=False, logging_level=logging.WARNING)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ConfigError(f"--address {self._address}: no Ray cluster could be had: {error}") from error
        there = self._ray.cluster_resources()
        self._gpus = int(self._device != "cpu" and there.get("GPU", 0) >= 1)
        self.slots = self.slots or max(1, int(there.get("GPU" if self._gpus else "CPU", 1)))
        self._attempt = self._ray.remote(max_retries=0)(attempt)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop what runs, and let go of the cluster."""
        for ref in self._refs:
            self._ray.cancel(ref, force=True)
        self._ray.shutdown()

    def submit(self, job: Job) -> Future[Report]:
        """Return what ``job`` will have ended as."""
        device = self._device if self._gpus else "cpu"
        ref = self._attempt.options(num_cpus=job.threads, num_gpus=self._gpus).remote(job.on(device))
        self._refs.append(ref)
        found: Future[Report] = ref.future()
        return found


def _ray() -> Any:  # noqa: ANN401 - a module, and an extra
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            "--engine ray needs ray, which is not installed; pip install 'mothkit[ray]'"
        ) from error
    return ray
