"""The whole way of a file: in, hardened, written, proved. The only place that knows it."""

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mothkit.classifier import Classifier, as_model_errors, open_source
from mothkit.distance import Direction, Distances, all_directions, class_distances
from mothkit.environment import describe_environment
from mothkit.errors import ConfigError, ImageError, OutputError, ParityError
from mothkit.evaluation import Evaluation, Rate, classify, evaluate
from mothkit.events import EventSink, Note, PhaseStarted, silent
from mothkit.hardening.base import Budget, Hardened
from mothkit.hardening.checkpoint import Checkpoint
from mothkit.hardening.moth import Moth
from mothkit.hardening.profiles import PROFILES
from mothkit.images import ImageSet
from mothkit.inversion.config import InversionConfig
from mothkit.opening import OpenModel, Settings, check_accuracy, check_classes, open_model
from mothkit.parity import Parity, Tolerance, check_import, compare, make_probes, torch_predict
from mothkit.records import SCHEMA, PhaseClock, record_path, write_record
from mothkit.runtime import Session
from mothkit.triggers.file import KnownTrigger
from mothkit_converters import diff, find_head, write_back


@dataclass(frozen=True, slots=True, kw_only=True)
class HardenSettings(Settings):
    """What a hardening run is asked to do, beside opening its model.

    Attributes:
        profile: ``default`` or ``paper``.
        budget: steps, time and accuracy that it may cost.
        triggers: trigger files, for evaluation only.
        eval_data: images to evaluate on; None evaluates on the clean ones, and says so.
        measure_distance: whether class distance is measured before and after.
        resume: whether to go on from the checkpoint of an interrupted run.
        allow_unbound: whether weights may be left untrainable.
    """

    profile: str = "default"
    budget: Budget = field(default_factory=Budget)
    triggers: tuple[Path, ...] = ()
    eval_data: str | None = None
    measure_distance: bool = False
    resume: bool = False
    allow_unbound: bool = False

    def __post_init__(self) -> None:
        Settings.__post_init__(self)
        if self.profile not in PROFILES:
            raise ConfigError(f"profile is {self.profile!r}, not one of {', '.join(PROFILES)}")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a hardening run came to; ``written`` says whether the file was."""

    record: dict[str, Any]
    written: bool


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    """A hardening run with everything opened and checked."""

    path: Path
    out: Path
    settings: HardenSettings
    model: OpenModel
    images: ImageSet
    judged_on: ImageSet
    classifier: Classifier
    triggers: tuple[KnownTrigger, ...]
    session: Session
    probes: Mapping[str, Tensor]


def checkpoint_path(out: Path) -> Path:
    """Return where an interrupted run towards ``out`` keeps its state."""
    return out.with_name(f"{out.name}.checkpoint")


def harden_file(
    path: Path, data: str, out: Path, settings: HardenSettings, *, emit: EventSink = silent
) -> Outcome:
    """Harden the model at ``path`` with the clean images at ``data`` and write it to ``out``.

    Nothing is written unless weights were found that keep the accuracy asked for, and the written file was
    proved in onnxruntime. A record lies beside ``out`` then.

    Raises:
        MothkitError: input that cannot be taken; its subclasses say what.
    """
    clock = PhaseClock(emit)
    job = _open_job(path, data, out, settings, clock)
    parity_before = check_import(job.classifier, job.session, job.probes)
    clean = Rate(_hits(job.session, job.images), len(job.images))
    check_accuracy(clean, job.classifier.classes, job.images)
    before = evaluate(job.session.logits, job.judged_on, job.triggers, emit=clock)
    distance = _distance(job.classifier, job, clock)
    checkpoint = _checkpoint(job)
    hardened = _harden(job, checkpoint, clock)
    record = _record(job, parity_before, before, hardened)
    if hardened.classifier is None:
        checkpoint.remove()
        return Outcome(record | {"written": False, "seconds": clock.stop()}, written=False)
    if distance is not None:
        after = _distance(hardened.classifier.to(job.model.device), job, clock)
        assert after is not None  # noqa: S101 - both are measured or none
        record["class_distance"] = {
            "before": distance.to_dict(),
            "after": after.to_dict(),
            "mean_growth": after.growth_over(distance),
        }
    record |= _prove_and_write(job, hardened.classifier, clock)
    record |= {"written": True, "seconds": clock.stop()}
    write_record(record, record_path(out))
    checkpoint.remove()
    return Outcome(record, written=True)


def _open_job(path: Path, data: str, out: Path, settings: HardenSettings, emit: EventSink) -> _Job:
    emit(PhaseStarted("open"))
    _check_out(path, out)
    model = open_model(path, settings)
    images = model.images(data, per_class=True)
    judged_on = images if settings.eval_data is None else model.images(settings.eval_data)
    if settings.eval_data is None:
        emit(Note("no --eval-data: accuracy and ASR are taken on the clean images that hardening sees"))
    elif shared := images.overlap(judged_on):
        raise ImageError(
            f"{judged_on.origin}: shares {shared} images with {images.origin}; numbers on images that hardening "
            "has seen prove nothing, so evaluate on others"
        )
    classifier = model.classifier(images.shape, allow_unbound=settings.allow_unbound)
    for each in (images, judged_on):
        check_classes(each, classifier.classes, path)
    triggers = model.triggers(settings.triggers, images.shape, classifier.classes)
    return _Job(
        path=path,
        out=out,
        settings=settings,
        model=model,
        images=images,
        judged_on=judged_on,
        classifier=classifier,
        triggers=tuple(triggers),
        session=model.session(classifier.head.value),
        probes=make_probes(images.shape, images, settings.seed),
    )


def _check_out(path: Path, out: Path) -> None:
    """Refuse an impossible target before hours of work, not after them."""
    if out.exists() and path.exists() and out.samefile(path):
        raise OutputError(f"{out}: is the model itself; the original is never overwritten, name another file")
    if out.is_dir():
        raise OutputError(f"{out}: is a folder; name the .onnx file to write")
    if not out.parent.is_dir():
        raise OutputError(f"{out}: the folder {out.parent} does not exist; make it first")
    try:
        with tempfile.TemporaryFile(dir=out.parent):
            pass
    except OSError as error:
        raise OutputError(f"{out}: the folder cannot be written to: {error.strerror}") from error


def _hits(session: Session, images: ImageSet) -> int:
    return int((classify(session.logits, images, None) == images.labels).sum())


def _distance(classifier: Classifier, job: _Job, emit: EventSink) -> Distances | None:
    if not job.settings.measure_distance:
        return None
    generator = torch.Generator().manual_seed(job.settings.seed)  # the same images and starts both times
    return class_distances(
        classifier,
        job.images,
        all_directions(classifier.classes),
        config=InversionConfig(steps=300),
        generator=generator,
        device=job.model.device,
        emit=emit,
    )


def _checkpoint(job: _Job) -> Checkpoint:
    told = (
        job.model.source.sha256,
        job.images.digest,
        repr(PROFILES[job.settings.profile]),
        repr(job.settings.budget.steps),
        job.settings.seed,
        repr(job.model.spec),
        job.model.device.type,
    )
    fingerprint = sha256("\n".join(map(str, told)).encode()).hexdigest()
    return Checkpoint(checkpoint_path(job.out), fingerprint, resume=job.settings.resume)


def _harden(job: _Job, checkpoint: Checkpoint, emit: EventSink) -> Hardened:
    """Run the method. It is given clean images; triggers and evaluation images stay in the job."""
    try:
        return Moth(PROFILES[job.settings.profile]).harden(
            job.classifier,
            job.images,
            generator=torch.Generator().manual_seed(job.settings.seed),
            device=job.model.device,
            emit=emit,
            budget=job.settings.budget,
            checkpoint=checkpoint,
        )
    except KeyboardInterrupt as stop:
        kept = checkpoint.path.exists()
        stop.add_note(
            f"go on with --resume (state in {checkpoint.path})" if kept else "nothing was saved yet"
        )
        raise


def _prove_and_write(job: _Job, hardened: Classifier, emit: EventSink) -> dict[str, Any]:
    """Write to a folder beside the target, prove that file, then put it in place; return what was proved."""
    emit(PhaseStarted("write and prove"))
    with _staging(job.out) as folder, as_model_errors():
        staged = folder / job.out.name
        write_back(hardened.network, staged)
        written = OpenModel(open_source(staged), job.model.spec, job.model.device, job.settings)
        session = written.session(hardened.head.value)
        parity = compare(
            torch_predict(hardened.cpu(), torch.device("cpu")), session.logits, job.probes, Tolerance()
        )
        if not parity.agrees:
            raise ParityError(
                f"{job.out}: the written file differs from the hardened network by up to "
                f"{parity.max_absolute:.3g}; it was not put in place"
            )
        changes = diff(job.path, staged)
        if not changes.only_weights:
            raise OutputError(
                f"{job.out}: more than weights would change ({changes.differences[0]}); not written"
            )
        after = evaluate(session.logits, job.judged_on, job.triggers, emit=emit)
        write_back(hardened.network, job.out)
    return {
        "model_out": {"path": job.out.name, "sha256": written.source.sha256},
        "parity_after": parity.to_dict(),
        "after": after.to_dict(),
        "changed": [asdict(change) for change in changes.changes],
    }


@contextmanager
def _staging(out: Path) -> Iterator[Path]:
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise OutputError(f"{out}: the folder cannot be written to: {error.strerror}") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _record(job: _Job, parity: Parity, before: Evaluation, hardened: Hardened) -> dict[str, Any]:
    chosen = hardened.chosen
    return _preamble("harden", job.model) | {
        "method": {
            "name": "moth",
            "profile": job.settings.profile,
            "steps": hardened.steps,
            "cut_by_time": hardened.cut,
            "max_accuracy_drop": job.settings.budget.max_accuracy_drop,
            "estimated_accuracy_drop": None if chosen is None else chosen.accuracy_drop,
            "chosen_step": None if chosen is None else chosen.step,
            "candidates": [{"step": c.step, "accuracy_drop": c.accuracy_drop} for c in hardened.candidates],
            **hardened.details,
        },
        "seen": {
            "hardening": list(hardened.seen),
            "choice_of_weights": list(hardened.seen),
            "evaluation_only": [job.judged_on.digest, *(known.name for known in job.triggers)],
        },
        "data": {
            "clean": _describe(job.images),
            "evaluation": _describe(job.judged_on),
            "evaluated_on_clean_images": job.settings.eval_data is None,
        },
        "parity_before": parity.to_dict(),
        "before": before.to_dict(),
    }


def _preamble(command: str, model: OpenModel) -> dict[str, Any]:
    environment = describe_environment()
    return {
        "schema": SCHEMA,
        "command": command,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"python": environment.python, **environment.versions},
        "plan": {
            "device": str(model.device),
            "threads": torch.get_num_threads(),
            "memory_format": "channels_last" if model.device.type == "cpu" else "contiguous",
        },
        "seed": model.settings.seed,
        "model_in": {"path": model.source.path.name, "sha256": model.source.sha256},
        "input_spec": model.spec.to_dict(),
        "head": asdict(find_head(model.source)),
    }


def _describe(images: ImageSet) -> dict[str, Any]:
    return {
        "origin": images.origin,
        "images": len(images),
        "shape": list(images.shape),
        "digest": images.digest,
    }


def evaluate_file(
    path: Path, data: str, settings: Settings, *, triggers: Sequence[Path] = (), emit: EventSink = silent
) -> dict[str, Any]:
    """Return the record of an evaluation in onnxruntime: accuracy, and what each trigger does.

    Raises:
        MothkitError: input that cannot be taken; its subclasses say what.
    """
    clock = PhaseClock(emit)
    model = open_model(path, settings)
    images = model.images(data, per_class=True)
    with as_model_errors():
        session = model.session(find_head(model.source).value)
    classes = session.logits(images.pixels([0])).shape[1]
    check_classes(images, classes, path)
    known = model.triggers(triggers, images.shape, classes)
    result = evaluate(session.logits, images, known, emit=clock)
    check_accuracy(result.accuracy, classes, images)
    return _preamble("evaluate", model) | {
        "providers": list(session.providers),
        "data": {"evaluation": _describe(images)},
        "result": result.to_dict(),
        "seconds": clock.stop(),
    }


def distance_file(
    path: Path,
    data: str,
    settings: Settings,
    *,
    directions: Sequence[Direction] | None = None,
    steps: int = 1000,
    images_per_class: int = 100,
    emit: EventSink = silent,
) -> tuple[Distances, dict[str, Any]]:
    """Return class distances of the model at ``path``, and their record; all directions by default.

    Raises:
        MothkitError: input that cannot be taken; its subclasses say what.
    """
    clock = PhaseClock(emit)
    model = open_model(path, settings)
    images = model.images(data, per_class=True)
    classifier = model.classifier(images.shape, allow_unbound=True)
    check_classes(images, classifier.classes, path)
    session = model.session(classifier.head.value)
    check_import(classifier, session, make_probes(images.shape, images, settings.seed))
    check_accuracy(Rate(_hits(session, images), len(images)), classifier.classes, images)
    distances = class_distances(
        classifier,
        images,
        directions or all_directions(classifier.classes),
        config=InversionConfig(steps=steps),
        images_per_class=images_per_class,
        generator=torch.Generator().manual_seed(settings.seed),
        device=model.device,
        emit=clock,
    )
    return distances, _preamble("distance", model) | {
        "data": {"clean": _describe(images)},
        "steps": steps,
        "class_distance": distances.to_dict(),
        "seconds": clock.stop(),
    }


def parity_files(
    path: Path,
    other: Path | None,
    settings: Settings,
    *,
    data: str | None = None,
    shape: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """Return the record of a comparison: two files in onnxruntime, or one with its import where ``other`` is None.

    Args:
        path: the reference, in onnxruntime.
        other: the file to compare with it; None compares the torch import of ``path``.
        settings: how to open both.
        data: clean images to compare on too.
        shape: (height, width) of the probes where neither model nor data say it.

    Raises:
        MothkitError: input that cannot be taken; its subclasses say what.
    """
    model = open_model(path, settings)
    images = None if data is None else model.images(data, per_class=True)
    size = model.image_shape(images, shape)
    probes = make_probes(size, images, settings.seed)
    with as_model_errors():
        reference = model.session(find_head(model.source).value)
    if other is None:
        predict = torch_predict(model.classifier(size, allow_unbound=True), model.device)
    else:
        second = open_model(other, settings)
        with as_model_errors():
            predict = second.session(find_head(second.source).value).logits
    return _preamble("parity", model) | {
        "compared_with": "torch" if other is None else {"path": other.name, "sha256": second.source.sha256},
        "parity": compare(reference.logits, predict, probes, Tolerance()).to_dict(),
    }
