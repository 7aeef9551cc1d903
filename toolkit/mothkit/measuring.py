"""Measurements of a file that change nothing: evaluation, class distance, parity; each returns its record."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mothkit.agreement import Tolerance, check_import, compare, make_probes, torch_predict
from mothkit.classifier import open_source
from mothkit.describing import describe_file, describe_images, describe_run
from mothkit.distance import Direction, Distances, all_directions, class_distances
from mothkit.evaluation import evaluate
from mothkit.events import EventSink, silent
from mothkit.inversion.config import InversionConfig
from mothkit.opening import Settings, check_accuracy, check_classes, measure_preprocessing, open_model
from mothkit.records import SCHEMA, PhaseClock


def preprocessing_file(
    path: Path, data: str, settings: Settings, *, emit: EventSink = silent
) -> dict[str, Any]:
    """Return the record of every candidate for the preprocessing, and which is taken, if one is.

    Raises:
        MothkitError: input that cannot be taken; its subclasses say what.
    """
    clock = PhaseClock(emit)
    source = open_source(path)
    found = measure_preprocessing(source, settings, data, emit=clock)
    return {
        "schema": SCHEMA,
        "command": "inspect",
        "seed": settings.seed,
        "model_in": describe_file(path, source),
        "preprocessing_search": found.to_dict(),
        "seconds": clock.stop(),
    }


def evaluate_file(
    path: Path, data: str, settings: Settings, *, triggers: Sequence[Path] = (), emit: EventSink = silent
) -> dict[str, Any]:
    """Return the record of an evaluation in onnxruntime: accuracy, and what each trigger does.

    Raises:
        MothkitError: input that cannot be taken; its subclasses say what.
    """
    clock = PhaseClock(emit)
    model = open_model(path, settings, data=data, emit=clock)
    images = model.images(data, per_class=True)
    session = model.session(model.head.value)
    classes = session.logits(images.pixels([0])).shape[1]
    check_classes(images, classes, path, labelled=settings.labels is not None)
    known = model.triggers(triggers, images.shape, classes)
    result = evaluate(session.logits, images, known, emit=clock)
    check_accuracy(result.accuracy, classes, images)
    return describe_run("evaluate", model) | {
        "providers": list(session.providers),
        "data": {"evaluation": describe_images(images)},
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
    model = open_model(path, settings, data=data, emit=clock)
    images = model.images(data, per_class=True)
    classifier = model.classifier(images.shape, allow_unbound=True)
    check_classes(images, classifier.classes, path, labelled=settings.labels is not None)
    session = model.session(classifier.head.value)
    check_import(classifier, session, make_probes(images.shape, images, settings.seed))
    check_accuracy(evaluate(session.logits, images).accuracy, classifier.classes, images)
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
    return distances, describe_run("distance", model) | {
        "data": {"clean": describe_images(images)},
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
    emit: EventSink = silent,
) -> dict[str, Any]:
    """Return the record of a comparison: two files in onnxruntime, or one with its import where ``other`` is None.

    Args:
        path: the reference, in onnxruntime.
        other: the file to compare with it; None compares the torch import of ``path``.
        settings: how to open both.
        data: clean images to compare on too.
        shape: (height, width) of the probes where neither model nor data say it.
        emit: told of progress.

    Raises:
        MothkitError: input that cannot be taken; its subclasses say what.
    """
    clock = PhaseClock(emit)
    model = open_model(path, settings, data=data, emit=clock)
    images = None if data is None else model.images(data, per_class=True)
    size = model.image_shape(images, shape)
    probes = make_probes(size, images, settings.seed)
    reference = model.session(model.head.value)
    if other is None:
        predict = torch_predict(model.classifier(size, allow_unbound=True), model.device)
    else:
        second = open_model(other, settings, data=data, emit=clock)
        predict = second.session(second.head.value).logits
    return describe_run("parity", model) | {
        "compared_with": "torch" if other is None else describe_file(other, second.source),
        "parity": compare(reference.logits, predict, probes, Tolerance()).to_dict(),
        "seconds": clock.stop(),
    }
