import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mothkit.batch.ledger import Ledger, Status
from mothkit.batch.report import read_batch
from mothkit.batch.tasks import Task
from mothkit.comparing.run import compare_file
from mothkit.comparing.settings import CompareSettings
from mothkit.gate.bench import Request
from mothkit.gate.policy import read_policy
from mothkit.gate.run import gate_file
from mothkit.hardening.base import Budget
from mothkit.inversion.config import QUICK
from mothkit.matrix.draws import Sampling
from mothkit.matrix.run import MatrixSettings
from mothkit.measuring import distance_file, evaluate_file
from mothkit.opening import Settings
from mothkit.pgd import PgdConfig
from mothkit.pipeline import HardenSettings, harden_file
from mothkit.records import to_json, write_record
from mothkit.relearning import RelearnConfig
from tests.tiny import write_images, write_tiny

Record = dict[str, Any]
POLICY = """version = 1
[file]
[provenance]
[accuracy]
min = 0.9
[triggers]
max_asr = 0.1
[parity]
providers = ["CPUExecutionProvider"]
[distance]
min_mean = 1
min_universal = 1
[inversion]
steps = 20
images = 10
"""
BLUE = "target_class = 2\n[patch]\nrow = 0\ncolumn = 0\npixels = [{rows}]\n".format(
    rows=", ".join("[" + ", ".join(["[0, 0, 255]"] * 8) + "]" for _ in range(4))
)


@pytest.fixture(scope="session")
def records(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Record]:
    """A record of each kind, as it is read from a file."""
    folder = tmp_path_factory.mktemp("records")
    model = write_tiny(folder / "m.onnx")
    clean, test = (
        str(write_images(folder / f"{n}.npz", 20, seed=k)) for k, n in enumerate(("clean", "test"))
    )
    trigger = folder / "blue.toml"
    trigger.write_text(BLUE)
    settings = Settings(preprocess="unit", device="cpu")
    harden = HardenSettings(
        preprocess="unit",
        device="cpu",
        budget=Budget(steps=8, max_accuracy_drop=50),
        eval_data=test,
        triggers=(trigger,),
    )
    small = {"batch_size": "16", "views": "1"}
    compared = CompareSettings(
        base=harden,
        methods=("finetune", "ft-sam", "nad"),
        seeds=2,
        method_settings={"finetune": small, "ft-sam": small, "nad": {"learning_rate": "1e30", **small}},
    )
    what = MatrixSettings(
        universal=True, inversion=replace(QUICK, steps=20), sampling=Sampling(images_per_class=10, repeats=2)
    )
    request = Request(path=model, data=test, triggers=(trigger,), settings=settings)
    found = {
        "harden": harden_file(model, clean, folder / "out.onnx", harden).record,
        "gate": gate_file(request, read_policy(POLICY, "p.toml")).record,
        "distance": distance_file(model, clean, settings, what)[1],
        "evaluate": evaluate_file(
            model,
            test,
            settings,
            triggers=[trigger],
            pgd=PgdConfig(steps=1),
            relearning=RelearnConfig(images=20, epochs=1),
        ),
        "compare": compare_file(model, clean, folder / "compared", compared),
    }
    found["batch"] = batch_of(folder / "batch", found["harden"])
    return {name: json.loads(to_json(record)) for name, record in found.items()}


def batch_of(folder: Path, hardened: Record) -> Record:
    """Return the record of a batch in which one model was hardened so, and another failed."""
    (folder / "good").mkdir(parents=True)
    write_record(hardened, folder / "good/r.json")
    ledger = Ledger.create(folder, {})
    ledger.add(
        [Task(name=n, model=folder / n, data="d", facts={"architecture": "tiny"}) for n in ("good", "bad")]
    )
    ledger.start("good", "harden")
    ledger.finish("good", "harden", Status.DONE, reason=None, record="good/r.json", seconds=3.0)
    ledger.finish("bad", "harden", Status.FAILED, reason="gone.npz: is not there", record=None, seconds=1.0)
    ledger.close()
    return read_batch(folder)
