"""NIST's detection API: a pickled model to one number, the probability that it is poisoned.

The signal is the smallest universal trigger: how much smaller it is than the median over target classes, as a
logarithm; the probability is a logistic function of it. Source: Wang et al., "Neural Cleanse", IEEE S&P 2019, for what
a small trigger means; NIST's documentation of TrojAI rounds 0 to 11 for the API. Ours: no deviation is needed, so that
few classes do.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mothkit.errors import ConfigError, ImageError, ModelError, MothkitError, OutputError
from mothkit.events import EventSink, Note, PhaseStarted, silent
from mothkit.inversion.config import QUICK
from mothkit.matrix.draws import Sampling
from mothkit.matrix.run import MatrixSettings
from mothkit.measuring import distance_file
from mothkit.opening import METADATA_KEY, Settings
from mothkit.outputs import make_folder, staging
from mothkit.records import write_record, write_text
from mothkit.runtime import pick_device
from mothkit.trojai.gathering import LEAST
from mothkit.trojai.labelled import gather_labelled
from mothkit.trojai.metaparameters import read_json, read_values
from mothkit.trojai.models import find_models, read_model
from mothkit.trojai.pickles.rebuild import load_module
from mothkit.trojai.rounds import Round, round_named
from mothkit.trojai.transfer import export_module

UNSURE = 0.5  # what NIST takes where there is no result
LEARNED = "detection.json"
_SURE = 0.99  # a wrong certainty costs more than a right one gains
_LEAST_SIZES = 3  # of fewer triggers, no one is small among them
_UNCROPPED = 224  # pixels a side of the images of rounds 0 and 1
_RIDGE = 0.05  # pulls what is learnt from few models towards the usual curve


class DetectionParameters(BaseModel):
    """What the metaparameters' file of detection may say; its schema lies in ``deploy/trojai``."""

    model_config = ConfigDict(extra="forbid", strict=True)
    budget_seconds: float = Field(default=600.0, ge=1)  # of NIST's 15 minutes for all
    steps: int = Field(default=QUICK.steps, ge=1)
    images_per_class: int = Field(default=100, ge=1)
    seed: int = Field(default=0, ge=0, lt=2**32)


class Curve(BaseModel):
    """How a signal becomes a probability: logistic, one half where the smallest trigger is half the median's size."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    slope: float = 3.0
    offset: float = -3.0 * math.log(2)
    models: int = Field(default=0, ge=0)  # that it was learnt from

    def probability(self, signal: float) -> float:
        """Return the probability of a backdoor, 0.01 to 0.99."""
        return min(max(1 / (1 + math.exp(-self.slope * signal - self.offset)), 1 - _SURE), _SURE)


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionTask:
    """The arguments of ``detect``.

    Attributes:
        model: the pickled model.
        examples: a folder of clean images.
        scratch: a folder for what is needed on the way.
        round_data: the training data of the round, for images of other models; None where there are none.
        round_name: the round; None takes what the files say, else 4 or 11 by the images' names.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        parameters: how triggers are searched.
        curve: how the signal becomes a probability.
    """

    model: Path
    examples: Path
    scratch: Path
    round_data: Path | None = None
    round_name: str | None = None
    device: str = "auto"
    parameters: DetectionParameters = field(default_factory=DetectionParameters)
    curve: Curve = field(default_factory=Curve)


def detect(task: DetectionTask, result: Path, *, emit: EventSink = silent) -> dict[str, Any]:
    """Write the probability of a backdoor to ``result``, and a record beside it; return the record.

    Where there are too few images or triggers to tell, it is one half, and the record says why. Nothing in the pickle
    is executed.

    Raises:
        ModelError: the model cannot be read.
        ImageError: the images cannot be read.
        OutputError: the result cannot be written.
        DeviceError: the device is not there.
    """
    record = measure(task, emit=emit)
    signal = record["signal"]
    record |= {"probability": UNSURE if signal is None else task.curve.probability(signal)}
    record |= {"curve": task.curve.model_dump()}
    try:
        result.parent.mkdir(parents=True, exist_ok=True)
        write_text(result, f"{record['probability']}\n")
    except OSError as error:
        raise OutputError(f"{result}: cannot be written ({error.strerror or error})") from error
    write_record(record, result.with_name(f"{result.name}.record.json"))
    return record


def measure(task: DetectionTask, *, emit: EventSink = silent) -> dict[str, Any]:
    """Return a record with the ``signal``, None where it could not be had, and then ``why_not``."""
    record: dict[str, Any] = {"parameters": task.parameters.model_dump(), "signal": None, "why_not": None}
    make_folder(task.scratch, [task.examples])
    emit(PhaseStarted("gather images"))
    loaded, device = load_module(task.model), pick_device(task.device)
    places = {"model": task.model.parent, "round": task.round_data}
    images = gather_labelled(loaded.module.to(device), loaded.classes, task.examples, places, device)
    loaded.module.cpu()
    x, y = images.pixels(), np.asarray(images.y)
    nist = _round(task, x.shape[1])
    side = loaded.image_size or nist.input_side(x.shape[1])
    start = (x.shape[1] - side) // 2
    record |= {"images": images.origins, "round": nist.name}
    if few := images.short(loaded.classes, LEAST):
        return record | {
            "why_not": f"{len(few)} of {loaded.classes} classes have fewer than {LEAST} clean images"
        }
    with staging(task.scratch / "detection") as folder:
        model, data = folder / "model.onnx", folder / "clean.npz"
        try:
            export_module(loaded.module, model, side, {METADATA_KEY: json.dumps(nist.spec.to_dict())})
            np.savez(data, x=x[:, start : start + side, start : start + side], y=y)
            _, told = distance_file(model, str(data), _settings(task), _what(task.parameters), emit=emit)
        except OutputError:
            raise
        except MothkitError as error:
            return record | {"why_not": str(error)}
    row = told["class_distance"].get("universal", {"entries": ()})
    found = [each for each in row["entries"] if each["found"]]
    record |= {"sizes": {each["target_class"]: each["class_distance"] for each in found}}
    if len(found) < _LEAST_SIZES:
        return record | {"why_not": f"{len(found)} triggers were found; {_LEAST_SIZES} are needed to compare"}
    return record | {"signal": signal_of(list(record["sizes"].values()))}


def signal_of(sizes: Sequence[float]) -> float:
    """Return how much smaller the smallest of ``sizes`` is than their median, as a logarithm: 0 or more."""
    return math.log(max(median(sizes), 1e-9) / max(min(sizes), 1e-9))


def _settings(task: DetectionTask) -> Settings:
    return Settings(device=task.device, seed=task.parameters.seed)


def _what(asked: DetectionParameters) -> MatrixSettings:
    return MatrixSettings(
        directions=(),
        universal=True,
        inversion=replace(QUICK, steps=asked.steps),
        sampling=Sampling(images_per_class=asked.images_per_class),
        seconds=asked.budget_seconds,
    )


def _round(task: DetectionTask, side: int) -> Round:
    """Return the round of a model, whose folder may hide it: rounds before 11 tell classes in the names of images."""
    if task.round_name is not None:
        return round_named(task.round_name)
    folder = task.model.parent
    try:
        facts = read_model(folder)
    except ModelError:
        facts = None
    if facts is not None and facts.round is not None:
        return facts.round
    named = any(path.name.startswith("class_") for path in task.examples.iterdir())
    return round_named("round11" if not named else "round1" if side == _UNCROPPED else "round4")


# -- configuring ----------------------------------------------------------------------------------------------


def configure(
    models: Path, learned: Path, task: DetectionTask, *, emit: EventSink = silent
) -> dict[str, Any]:
    """Learn from the models in the folder ``models`` how a signal becomes a probability, and write it to ``learned``.

    Args:
        models: a round whose files say which models are poisoned.
        learned: a folder, made if it is not there.
        task: how each is measured; its model and examples are replaced.
        emit: told of progress.

    Raises:
        ModelError: there are no models.
        ConfigError: fewer than two could be measured, or all are alike.
        OutputError: it cannot be written.
    """
    signals, truths, left_out = [], [], {}
    for path in find_models(models):
        folder = read_model(path)
        if folder.poisoned is None or folder.clean is None:
            left_out[path.name] = "nothing says whether it is poisoned, or it has no clean images"
            continue
        emit(Note(f"measuring {path.name}"))
        try:
            told = measure(replace(task, model=folder.model, examples=folder.clean), emit=emit)
        except (ModelError, ImageError) as error:
            told = {"signal": None, "why_not": str(error)}
        if told["signal"] is None:
            left_out[path.name] = str(told["why_not"])
        else:
            signals.append(told["signal"])
            truths.append(folder.poisoned)
    if len(set(truths)) < 2:
        raise ConfigError(
            f"{models}: {sum(truths)} of {len(truths)} measured models are poisoned; both kinds are needed"
        )
    curve = learn(signals, truths)
    record = {**curve.model_dump(), "left_out": left_out, "signals": signals, "poisoned": truths}
    try:
        learned.mkdir(parents=True, exist_ok=True)
        write_text(learned / LEARNED, json.dumps(curve.model_dump()) + "\n")
    except OSError as error:
        raise OutputError(f"{learned}: cannot be written to ({error.strerror or error})") from error
    return record


def learn(signals: Sequence[float], truths: Sequence[bool]) -> Curve:
    """Return the logistic curve of the least cross-entropy, held near the usual one by a small penalty."""
    usual = np.array([Curve().slope, Curve().offset])
    x = np.stack([np.asarray(signals, dtype=float), np.ones(len(signals))], 1)
    y, weights = np.asarray(truths, dtype=float), usual.copy()
    for _ in range(100):  # Newton's steps; the penalty keeps the matrix regular
        p = 1 / (1 + np.exp(-np.clip(x @ weights, -30, 30)))
        slope = x.T @ (p - y) + _RIDGE * (weights - usual)
        curvature = (x * (p * (1 - p))[:, None]).T @ x + _RIDGE * np.eye(2)
        step = np.linalg.solve(curvature, slope)
        weights = weights - step / max(1.0, float(np.abs(step).max()))
        if np.abs(step).max() < 1e-9:
            break
    return Curve(slope=float(weights[0]), offset=float(weights[1]), models=len(truths))


def read_curve(learned: Path | None) -> Curve:
    """Return what was learnt and lies in the folder ``learned``; the usual curve where nothing does.

    Raises:
        ConfigError: what lies there is no such thing.
    """
    if learned is None or not (learned / LEARNED).exists():
        return Curve()
    path = learned / LEARNED
    try:
        return Curve.model_validate(read_json(path))
    except ValidationError as error:
        raise ConfigError(f"{path}: {error.errors()[0]['msg']}") from error


def read_detection(path: Path | None, schema: Path | None) -> DetectionParameters:
    """Return the metaparameters at ``path``, held to the JSON Schema at ``schema``; the usual ones without a file.

    Raises:
        ConfigError: one of them cannot be read, they break the schema, or ask for what mothkit does not know.
    """
    return DetectionParameters() if path is None else read_values(path, schema, DetectionParameters)
