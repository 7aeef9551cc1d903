"""NIST's mitigation API of 2024: a model and a clean image to a mitigated model; a model and images to logits.

Source: NIST's documentation of the round mitigation-image-classification-jun2024.
"""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field

from mothkit.errors import DeviceError, MothkitError, OutputError
from mothkit.events import EventSink, Note, PhaseStarted, silent
from mothkit.hardening.base import Budget
from mothkit.opening import METADATA_KEY
from mothkit.outputs import make_folder, staging
from mothkit.pipeline import HardenSettings, harden_file
from mothkit.records import to_json, write_record, write_text
from mothkit.runtime import pick_device
from mothkit.trojai.conversion import pack_model
from mothkit.trojai.gathering import LEAST
from mothkit.trojai.labelled import Labelled, gather_labelled, logits_of, unlabelled
from mothkit.trojai.metaparameters import read_values
from mothkit.trojai.pickles.rebuild import Loaded, load_module
from mothkit.trojai.rounds import ROUNDS
from mothkit.trojai.scores import score
from mothkit.trojai.stamping import read_files
from mothkit.trojai.transfer import export_module

RESULTS, SCORES = "results.json", "scores.json"


class Metaparameters(BaseModel):
    """What the metaparameters' file may say; its schema lies in ``deploy/trojai``."""

    model_config = ConfigDict(extra="forbid", strict=True)
    method: str = "moth"
    max_accuracy_drop: float = Field(default=2.0, ge=0, le=100)  # points; ours: a few hundred images judge it
    budget_seconds: float = Field(default=1200.0, ge=1)  # of NIST's 30 minutes for all
    steps: int | None = Field(default=None, ge=1)
    seed: int = Field(default=0, ge=0, lt=2**32)


@dataclass(frozen=True, slots=True, kw_only=True)
class MitigationTask:
    """The arguments of ``mitigate``.

    Attributes:
        model: the pickled model.
        dataset: a folder with clean images, one may do.
        out: the folder of results.
        name: of the mitigated model in it.
        scratch: a folder for what is needed on the way.
        round_data: the training data of the round, for images of other models; None where there are none.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        metaparameters: how to harden.
    """

    model: Path
    dataset: Path
    out: Path
    name: str
    scratch: Path
    round_data: Path | None = None
    device: str = "auto"
    metaparameters: Metaparameters = field(default_factory=Metaparameters)


def read_metaparameters(path: Path, schema: Path) -> Metaparameters:
    """Return the metaparameters at ``path``, held to the JSON Schema at ``schema`` first.

    Raises:
        ConfigError: one of them cannot be read, they break the schema, or ask for what mothkit does not know.
    """
    return read_values(path, schema, Metaparameters)


def mitigate(task: MitigationTask, *, emit: EventSink = silent) -> dict[str, Any]:
    """Write the mitigated model, and a record beside it; return the record.

    Where no weights keep the accuracy asked for, or there are too few images to tell, the original is copied: what is
    handed in is never worse than what came. Nothing in the pickle is executed.

    Raises:
        ModelError: the model cannot be read.
        ImageError: the images cannot be read.
        OutputError: the results cannot be written, or would replace the model.
        DeviceError: the device is not there.
    """
    out = task.out / task.name
    for folder in (task.out, task.scratch):
        make_folder(folder, [task.dataset])
    if out.exists() and out.samefile(task.model):
        raise OutputError(f"{out}: is the original, which stays as it is; name another file")
    device = pick_device(task.device)
    emit(PhaseStarted("gather images"))
    loaded = load_module(task.model)
    places = {"model": task.model.parent, "round": task.round_data}
    images = gather_labelled(loaded.module.to(device), loaded.classes, task.dataset, places, device)
    loaded.module.cpu()
    record: dict[str, Any] = {"images": images.origins, "metaparameters": task.metaparameters.model_dump()}
    if few := images.short(loaded.classes, LEAST):
        why: str | None = f"{len(few)} of {loaded.classes} classes have fewer than {LEAST} clean images"
    else:
        why = _harden(task, loaded, images, out, record, emit)
    if why is not None:
        emit(Note(f"the original is kept: {why}"))
        _copy(task.model, out)
    record |= {"mitigated": why is None, "why_not": why}
    write_record(record, out.with_name(f"{out.stem}.record.json"))
    return record


def _harden(
    task: MitigationTask, loaded: Loaded, images: Labelled, out: Path, record: dict[str, Any], emit: EventSink
) -> str | None:
    """Write the hardened model to ``out``; return why there is none, if there is none."""
    asked, x = task.metaparameters, images.pixels()
    spec = ROUNDS["mitigation2024"].spec
    settings = HardenSettings(
        method=asked.method,
        budget=Budget(
            steps=asked.steps, seconds=asked.budget_seconds, max_accuracy_drop=asked.max_accuracy_drop
        ),
        seed=asked.seed,
        device=task.device,
    )
    with staging(task.scratch / "mitigation") as folder:
        model, data, hardened = (folder / name for name in ("model.onnx", "clean.npz", "hardened.onnx"))
        try:
            export_module(loaded.module, model, x.shape[1], {METADATA_KEY: json.dumps(spec.to_dict())})
            np.savez(data, x=x, y=np.asarray(images.y))
            outcome = harden_file(model, str(data), hardened, settings, emit=emit)
            record["hardening"] = outcome.record
            if not outcome.written:
                return "no weights kept the accuracy asked for"
            pack_model(task.model, hardened, out)
        except OutputError:
            raise
        except MothkitError as error:
            return str(error)
    return None


def _copy(model: Path, out: Path) -> None:
    try:
        with staging(out) as folder:
            shutil.copyfile(model, folder / out.name)
            (folder / out.name).replace(out)
    except OSError as error:
        raise OutputError(f"{out}: cannot be written ({error.strerror})") from error


def write_logits(model: Path, dataset: Path, out: Path, *, device: str = "auto", batch: int = 32) -> Path:
    """Write the model's logits of each image in ``dataset``, by file name, to a file in ``out``; return its path.

    Where labels of the images are told, ``scores.json`` beside it has what NIST makes of the logits.

    Raises:
        ModelError: the model cannot be read.
        ImageError: there are no images, or they cannot be read.
        OutputError: the results cannot be written.
        DeviceError: the device is not there.
    """
    make_folder(out, [dataset])
    where = pick_device(device)
    names = unlabelled(dataset)
    module = load_module(model).module.to(where)
    logits: dict[str, list[float]] = {}
    for first in range(0, len(names), batch):
        part = names[first : first + batch]
        logits |= zip(part, logits_of(module, read_files(dataset, part), where, batch).tolist(), strict=True)
    scores = score(logits, dataset)
    try:
        write_text(out / RESULTS, json.dumps(logits))
        if scores is not None:
            write_text(out / SCORES, to_json(scores))
    except OSError as error:
        raise OutputError(f"{out / RESULTS}: cannot be written ({error.strerror})") from error
    return out / RESULTS


def available(device: str) -> str:
    """Return ``device``, or ``cpu`` where it is ``cuda`` and there is none: the API's default must not be an error."""
    try:
        pick_device(device)
    except DeviceError:
        if device != "cuda" or torch.cuda.is_available():
            raise
        return "cpu"
    return device
