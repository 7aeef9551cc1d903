"""From a recipe to a folder: model, trigger, recipe, images, and a record of what was made."""

import copy
import functools
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mothkit.augment import augment
from mothkit.classifier import Classifier, as_model_errors
from mothkit.describing import describe_file, describe_images, describe_run
from mothkit.errors import OutputError
from mothkit.evaluation import Predict, Rate, classify, evaluate
from mothkit.events import EventSink, Note, PhaseStarted, silent
from mothkit.exporting import write_model
from mothkit.images import ImageSet
from mothkit.inputs import InputSpec, fit, load_input_spec, pixel_shape
from mothkit.opening import METADATA_KEY, OpenModel, Settings, check_classes, open_model
from mothkit.outputs import staging
from mothkit.poisoning.attacks import Attack, poison, write_trigger
from mothkit.poisoning.data import Data, draw_part, load_data, write_npz
from mothkit.poisoning.networks import build_network, check_network
from mothkit.poisoning.recipe import Recipe, UserData
from mothkit.poisoning.scenes import Mask
from mothkit.poisoning.training import fit as train
from mothkit.records import PhaseClock, record_path, write_record, write_text
from mothkit.runtime import pick_device, repeatable
from mothkit.triggers.file import KnownTrigger, load_trigger
from mothkit_converters import check_export, export

MODEL, RECIPE = "model.onnx", "recipe.json"
TOOK = 0.5  # excess ASR from which a backdoor has taken


class _FromPixels(nn.Module):
    """A network behind its preprocessing: pixels [N, 3, H, W], 0..1, to logits [N, classes]."""

    def __init__(self, network: nn.Module, spec: InputSpec) -> None:
        super().__init__()
        self.network, self.spec = network, spec

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [N, classes]."""
        logits: Tensor = self.network(self.spec.to_model(x))
        return logits


@dataclass(frozen=True, slots=True, eq=False)
class _Victim:
    """What is to be poisoned: a network of ours, or one from a file, with its preprocessing."""

    network: _FromPixels | Classifier
    spec: InputSpec
    shape: tuple[int, int, int]

    def write(self, path: Path) -> None:
        """Write the network in eval mode to ``path``; its metadata say how pixels become its input."""
        metadata = {
            METADATA_KEY: json.dumps(self.spec.to_dict(), allow_nan=False),
            "mothkit.version": version("mothkit"),
        }
        self.network.eval()
        if isinstance(self.network, Classifier):
            write_model(self.network, path, kind="surgery", metadata=metadata)
            return
        example = self.spec.to_model(torch.rand(2, *self.shape, generator=torch.Generator().manual_seed(0)))
        with as_model_errors():
            export(
                copy.deepcopy(self.network.network).to(memory_format=torch.contiguous_format),
                path,
                example_inputs=[example],
                input_names=["image"],
                output_names=["logits"],
                metadata=metadata,
            )


def make_poisoned(
    out: Path, recipe: Recipe, *, device: str = "auto", emit: EventSink = silent
) -> dict[str, Any]:
    """Make the model of ``recipe`` in the new folder ``out``, and return the record of it.

    The folder then holds ``model.onnx`` and its record, ``trigger.toml`` and its pictures, ``recipe.json``,
    ``test.npz``, and ``clean.npz`` where the images are drawn. It appears when all of it is there.

    Raises:
        OutputError: something stands at ``out``, or it cannot be written.
        ConfigError: the recipe asks for what does not go together.
        MothkitError: model or images cannot be taken, or training failed; its subclasses say what.
    """
    clock, where = PhaseClock(emit), pick_device(device)
    _check_free(out)
    with staging(out) as beside:
        folder = beside / "made"
        folder.mkdir()
        record = _make(folder, recipe, where, clock) | {"seconds": clock.stop()}
        write_record(record, record_path(folder / MODEL))
        _put(folder, out)
    if not record["took"] and recipe.attack.poison_rate > 0:
        emit(Note("the backdoor did not take: give it more images, epochs or a higher poison rate"))
    return record


def make_images(out: Path, recipe: Recipe, *, emit: EventSink = silent) -> None:
    """Draw the ``clean.npz`` and ``test.npz`` of ``recipe`` again, in the new folder ``out``.

    Raises:
        OutputError: something stands at ``out``, or it cannot be written; or the images are the user's.
    """
    _check_free(out)
    if isinstance(recipe.data, UserData):
        raise OutputError(f"{out}: the images of this recipe are not drawn, but those at {recipe.data.path}")
    with staging(out) as beside:
        folder = beside / "made"
        folder.mkdir()
        for part in ("clean", "test"):
            images, _ = draw_part(recipe.data, part, recipe.seed, emit=emit)
            write_npz(images, folder / f"{part}.npz")
        _put(folder, out)


def _check_free(out: Path) -> None:
    if out.is_dir() and not any(out.iterdir()):
        return
    if out.exists() or out.is_symlink():
        raise OutputError(f"{out}: is there already, and would be overwritten; name a new folder")


def _put(folder: Path, out: Path) -> None:
    """Move the finished ``folder`` to ``out``."""
    try:
        if out.is_dir():
            out.rmdir()  # which is empty, or stays
        folder.rename(out)
    except OSError as error:
        raise OutputError(f"{out}: cannot be written ({error.strerror}); name another folder") from error


def _make(folder: Path, recipe: Recipe, device: torch.device, emit: EventSink) -> dict[str, Any]:
    """Make everything in ``folder``; return the record."""
    data, victim = _open(recipe, device, emit)
    emit(PhaseStarted("try the export"))
    victim.write(folder / MODEL)
    attack = recipe.attack.fitted(len(data.train.class_names), min(victim.shape[1:]))
    trigger = write_trigger(folder, attack, victim.shape, _source_signs(data, attack), seed=recipe.seed)
    known = load_trigger(trigger, victim.shape, len(data.train.class_names))
    emit(PhaseStarted("poison"))
    poisoned = poison(data.train, attack, known, data.signs, seed=recipe.seed)
    shift = round(recipe.training.shift * min(victim.shape[1:]))
    vary = functools.partial(augment, shift=shift, flip=recipe.training.flip, padding="edge")
    network = victim.network.to(device)
    with repeatable():
        accuracy = train(
            network,
            poisoned.x,
            poisoned.y,
            recipe.training,
            vary,
            seed=recipe.seed,
            device=device,
            emit=emit,
        )
    emit(PhaseStarted("export"))
    replace(victim, network=network.cpu()).write(folder / MODEL)
    made = open_model(folder / MODEL, Settings(device=str(device), seed=recipe.seed))
    recipe = _settled(recipe, attack, data)
    _write_rest(folder, recipe, data)
    return describe_made(made, known, data, emit) | {
        "recipe": asdict(recipe),
        "poisoning": {
            "training_images": len(poisoned.y),
            "stamped": poisoned.stamped,
            "spurious": poisoned.spurious,
            "training_accuracy": accuracy,
        },
    }


def _open(recipe: Recipe, device: torch.device, emit: EventSink) -> tuple[Data, _Victim]:
    """Return the images, and the network that is to be trained, on the CPU."""
    if recipe.model is None:
        check_network(recipe.network)
        with as_model_errors():
            check_export(Path(MODEL))
        data = load_data(recipe, None, gray=False, emit=emit)
        shape = data.train.shape
        spec = fit(load_input_spec(recipe.preprocess or "unit"), ("batch", *shape))
        network = build_network(recipe.network, len(data.train.class_names), seed=recipe.seed)
        network = network.to(memory_format=torch.channels_last)
        return data, _Victim(_FromPixels(network, spec), spec, shape)
    settings = Settings(preprocess=recipe.preprocess, device=str(device), seed=recipe.seed)
    user = recipe.data if isinstance(recipe.data, UserData) else None
    model = open_model(Path(recipe.model), settings, data=user.path if user else None, emit=emit)
    channels, height, width = pixel_shape(model.spec, model.input_shape)
    size = None if height is None or width is None else (height, width)
    data = load_data(recipe, size, gray=channels == 1, emit=emit)
    classifier = model.classifier(data.train.shape).cpu()
    labelled = user is not None and user.labels is not None
    check_classes(data.train, classifier.classes, Path(recipe.model), labelled=labelled)
    return data, _Victim(classifier, model.spec, data.train.shape)


def _source_signs(data: Data, attack: Attack) -> Mask | None:
    """Return the masks of those training images on which the trigger is to work."""
    if data.signs is None or attack.source_class is None:
        return data.signs
    of_source: Mask = data.signs[(data.train.labels == attack.source_class).numpy()]
    return of_source


def _settled(recipe: Recipe, attack: Attack, data: Data) -> Recipe:
    """Return ``recipe`` with what was left open in it."""
    if not isinstance(recipe.data, UserData) or recipe.data.digest is not None:
        return replace(recipe, attack=attack)
    return replace(recipe, attack=attack, data=replace(recipe.data, digest=data.digest))


def _write_rest(folder: Path, recipe: Recipe, data: Data) -> None:
    write_text(folder / RECIPE, recipe.to_json())
    for name, images in (("test", data.test), ("clean", data.clean)):
        if images is not None:
            write_npz(images, folder / f"{name}.npz")


def describe_made(made: OpenModel, known: KnownTrigger, data: Data, emit: EventSink) -> dict[str, Any]:
    """Return what onnxruntime says of a poisoned model: the record but for the recipe."""
    session = made.session(made.head.value)
    result = evaluate(session.logits, data.test, [known], emit=emit)
    score = result.triggers[0]
    sets: Mapping[str, ImageSet | None] = {"training": data.train, "test": data.test, "clean": data.clean}
    record = describe_run("poison", made)
    del record["model_in"]
    return record | {
        "model_out": describe_file(Path(MODEL), made.source),
        "providers": list(session.providers),
        "data": {name: describe_images(images) for name, images in sets.items() if images is not None},
        "result": result.to_dict() | {"others": _others(session.logits, data.test, known)},
        "took": score.excess_asr >= TOOK,
    }


def _others(predict: Predict, images: ImageSet, known: KnownTrigger) -> dict[str, object] | None:
    """Return how many stamped images of neither source nor target go to the target; None if all are the source."""
    others = (images.labels != known.target_class) & ~known.victims(images.labels)
    if not bool(others.any()):
        return None
    found = classify(predict, images.subset(others), known)
    return Rate(int((found == known.target_class).sum()), len(found)).to_dict()
