import json
import os
from pathlib import Path

import onnx
import psutil
import pytest
import torch

from mothkit.batch.jobs import STAGES, Job, Limits
from mothkit.batch.ledger import Status
from mothkit.batch.local import LocalEngine
from mothkit.batch.report import read_batch
from mothkit.batch.run import harden_batch
from mothkit.batch.tasks import Preparing, find_tasks
from mothkit.errors import ResumeError
from mothkit.hardening.base import Budget
from mothkit.pipeline import HardenSettings
from mothkit.trojai.pickles.rebuild import load_module
from mothkit.trojai.trusted import LOADED_BY
from tests.toolkit.trojai.folders import FILTER, write_round4
from tests.toolkit.trojai.hostile import Asks
from tests.toolkit.trojai.test_trusted import write_telling

LIMITS = Limits(seconds=300, memory=4 << 30)
SETTINGS = HardenSettings(device="cpu", budget=Budget(steps=2))


def test_a_round_s_model_is_prepared_and_hardened_and_packed_in_stages(tmp_path: Path) -> None:
    write_round4(tmp_path / "round/id-00000000", FILTER)
    out = tmp_path / "out"
    (task,) = find_tasks(tmp_path / "round", preparing=Preparing(round="round4", drawn=3))
    prepared, hardened, packed = harden_batch([task], out, SETTINGS, LocalEngine(["cpu"], 1), LIMITS)
    assert (prepared.stage, prepared.status) == ("prepare", Status.DONE)
    told = json.loads((out / str(prepared.record)).read_text())
    assert (told["round"], len(told["triggers"])) == ("round4", 1)
    assert told["notes"][0] == "5 clean images were drawn of its signs, as 10 are published"
    assert (hardened.stage, hardened.status, packed.status) == ("harden", Status.FAILED, Status.WAITING)
    assert "chance" in str(hardened.reason)  # it was never trained

    folder = out / task.name
    model = onnx.load(folder / "prepared/model.onnx")
    bias = next(each for each in model.graph.initializer if each.name == "classifier.1.bias")
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + 1, bias.name))
    onnx.save(model, folder / "hardened.onnx")
    job = Job(task=task, stage="pack", folder=folder, settings=SETTINGS, limits=LIMITS)
    assert STAGES["pack"].run(job).status is Status.DONE
    before, after = (load_module(path / "model.pt").module.state_dict() for path in (task.model, folder))
    assert torch.equal(after["classifier.1.bias"], before["classifier.1.bias"] + 1)


def test_a_pickle_is_trusted_only_where_that_is_asked_for_and_records_say_so(tmp_path: Path) -> None:
    mark = write_telling(tmp_path / "round/id-00000000")
    engine, out = LocalEngine(["cpu"], 1), tmp_path / "out"
    (task,) = find_tasks(tmp_path / "round")
    row, *_ = harden_batch([task], tmp_path / "untrusted", SETTINGS, engine, LIMITS)
    assert (row.status, row.attempts) == (Status.FAILED, 1)
    assert ".eval" in str(row.reason)
    assert not mark.exists()

    (task,) = find_tasks(tmp_path / "round", preparing=Preparing(trust=True))
    prepared, hardened, _ = harden_batch([task], out, SETTINGS, LocalEngine(["cpu"], 1), LIMITS)
    assert (prepared.status, hardened.status) == (Status.DONE, Status.FAILED)  # it was never trained
    assert json.loads((out / str(prepared.record)).read_text())["loaded_by"] == LOADED_BY
    assert read_batch(out)["models"][0]["trusted_pickle"] is True
    assert int(mark.read_text()) != os.getpid()
    (out / task.name / "prepared/model.onnx").rename(out / task.name / "hardened.onnx")
    job = Job(task=task, stage="pack", folder=out / task.name, settings=SETTINGS, limits=LIMITS)
    report = STAGES["pack"].run(job)
    assert report.status is Status.DONE
    assert json.loads((job.folder / str(report.record)).read_text())["loaded_by"] == LOADED_BY

    (again,) = find_tasks(tmp_path / "round")
    with pytest.raises(ResumeError, match="was begun with another"):
        harden_batch([again], out, SETTINGS, LocalEngine(["cpu"], 1), LIMITS, resume=True)


def test_a_trusted_pickle_that_hangs_goes_with_its_worker(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    write_round4(tmp_path / "round/id-00000000")
    code = f"open({str(mark)!r}, 'w').write(str(__import__('os').getpid())), __import__('time').sleep(600)"
    torch.save(Asks(eval, code), tmp_path / "round/id-00000000/model.pt")
    tasks = find_tasks(tmp_path / "round", preparing=Preparing(trust=True))
    limits = Limits(seconds=15)
    row, *_ = harden_batch(tasks, tmp_path / "out", SETTINGS, LocalEngine(["cpu"], 1), limits)
    assert "hung or too slow" in str(row.reason)
    pid = int(mark.read_text())
    assert not psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=60)[1]


def test_other_scalings_than_a_round_s_are_refused(tmp_path: Path) -> None:
    write_round4(tmp_path / "round/id-00000000")
    settings = HardenSettings(device="cpu", preprocess="imagenet")
    tasks = find_tasks(tmp_path / "round")
    rows = harden_batch(tasks, tmp_path / "out", settings, LocalEngine(["cpu"], 1), LIMITS)
    assert rows[0].status is Status.FAILED
    assert "models of a round take unit, minmax" in str(rows[0].reason)
