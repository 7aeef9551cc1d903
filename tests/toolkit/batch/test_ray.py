"""A real Ray of two nodes on this machine: the same worker, and the same results; and one of them goes away."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mothkit.batch.jobs import LOG
from mothkit.batch.ledger import Ledger, Status
from mothkit.batch.local import LocalEngine
from mothkit.batch.ray import RayEngine
from mothkit.batch.run import exit_code, harden_batch
from mothkit.batch.tasks import find_tasks
from tests.planted import final, write_batch
from tests.toolkit.batch.test_run import LIMITS, SETTINGS

pytest.importorskip("ray", reason="ray is an extra: pip install 'mothkit[ray]'")
pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore")]  # ray's own, at its shutdown
PATIENCE = 240  # seconds until a test gives up; it takes a few


@contextmanager
def cluster_of(head: int) -> Iterator[Any]:
    """Yield a cluster whose head has ``head`` CPUs and whose other node has one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        from ray.cluster_utils import Cluster

        started = Cluster(initialize_head=True, head_node_args={"num_cpus": head, "include_dashboard": False})
        try:
            started.wait_for_nodes()
            yield started
        finally:
            started.shutdown()


def until(happened: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.1)


def test_two_nodes_give_the_ledger_that_one_machine_gives(tmp_path: Path) -> None:
    tasks = find_tasks(write_batch(tmp_path / "in", 3, ["images", "nan"]))
    with cluster_of(1) as cluster:
        cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        engine = RayEngine(cluster.address, "cpu")
        rows = harden_batch(tasks, tmp_path / "ray", SETTINGS, engine, LIMITS)
    assert engine.slots == 2
    assert exit_code(rows) == 2
    assert [row.status for row in rows] == [Status.DONE] * 3 + [Status.FAILED] * 2
    harden_batch(tasks, tmp_path / "local", SETTINGS, LocalEngine(["cpu"], 1), LIMITS)
    assert final(tmp_path / "local") == final(tmp_path / "ray")


def test_a_node_that_is_lost_costs_no_model(tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    write_batch(folder, 1, [])
    os.mkfifo(folder / "held.npz")  # a worker waits for these images until its node is gone
    code = "from mothkit_cli.main import main; main()"
    asked = ("batch", "harden", folder, "--data", folder / "held.npz", "-o", out, "--engine", "ray")
    more = ("--preprocess", "unit", "--device", "cpu", "--steps", 2, "--max-accuracy-drop", 50, "--address")
    with cluster_of(0) as cluster:  # the head runs no workers
        first = cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        words = [sys.executable, "-c", code, *map(str, (*asked, *more)), cluster.address]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as batch:
            try:
                until(lambda: (out / "good00" / LOG).exists() or batch.poll() is not None)
                cluster.add_node(num_cpus=1)
                (folder / "clean.npz").replace(folder / "held.npz")
                cluster.remove_node(first, allow_graceful=False)
                _, told = batch.communicate(timeout=PATIENCE)
            finally:
                batch.kill()
    assert batch.returncode == 0, told
    assert [(row.status, row.attempts) for row in Ledger(out).rows()] == [(Status.DONE, 1)]
    assert " ".join(told.split()).count("it is run again elsewhere") == 1
    tasks = find_tasks(folder, data=str(folder / "held.npz"))
    harden_batch(tasks, tmp_path / "local", SETTINGS, LocalEngine(["cpu"], 1), LIMITS)
    names = [each / "good00" / "hardened.onnx" for each in (out, tmp_path / "local")]
    assert names[0].read_bytes() == names[1].read_bytes()
