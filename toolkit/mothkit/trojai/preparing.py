"""From a model's folder to what ``mothkit.pipeline.harden_file`` takes: an ONNX file, clean images, trigger files."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mothkit.events import EventSink, Note, PhaseStarted, silent
from mothkit.outputs import check_folder
from mothkit.records import write_record
from mothkit.trojai.conversion import convert_model
from mothkit.trojai.gathering import View, gather
from mothkit.trojai.models import read_model


@dataclass(frozen=True, slots=True)
class Prepared:
    """A model of a round, ready to be hardened.

    Attributes:
        model: the ONNX file; its metadata hold preprocessing and crop.
        data: clean images for ``harden_file``: the folder that the round publishes, or a file with drawn ones.
        triggers: trigger files, for evaluation only; empty for a clean model.
        notes: what could not be had as published, in words.
        record: what ``convert_model`` told, and where images and triggers come from.
    """

    model: Path
    data: str
    triggers: tuple[Path, ...]
    notes: tuple[str, ...]
    record: Mapping[str, Any]


def prepare_model(
    path: Path,
    out: Path,
    *,
    round_name: str | None = None,
    preset: str | None = None,
    trust: bool = False,
    drawn: int | None = None,
    seed: int = 0,
    emit: EventSink = silent,
) -> Prepared:
    """Write into the folder ``out`` what hardening the model in the folder ``path`` takes, and return it.

    ``harden_file(prepared.model, prepared.data, ..., HardenSettings(triggers=prepared.triggers, ...))`` comes next, and
    ``pack_model(path / "model.pt", hardened, ...)`` after it. Nothing in the pickle is executed, unless it is trusted.

    Args:
        path: a model's folder.
        out: a folder, made if it is not there; files of this function's in it are replaced.
        round_name: the round, where the folder does not say it.
        preset: ``unit`` or ``minmax`` in place of the round's documented scaling.
        trust: whether the pickle is loaded as torch does it, in a process of its own.
        drawn: clean images of each class that there are to be, drawn of the model's signs where fewer are published;
            None draws only where the published ones are too few to do without.
        seed: of all that is drawn.
        emit: told of progress, and of each note.

    Raises:
        ModelError: the model cannot be read, or its round is not known.
        ImageError: the examples cannot be read, or there are neither enough nor signs to draw more.
        ConfigError: there is no such round.
        OutputError: ``out`` cannot be written to.
    """
    check_folder(out, [path])
    emit(PhaseStarted("convert"))
    model = out / "model.onnx"
    record = convert_model(path, model, round_name=round_name, preset=preset, trust=trust)
    emit(PhaseStarted("find or draw images"))
    view = View(**{name: record[name] for name in ("classes", "image_side", "input_side")})
    gathered = gather(read_model(path), view, out, drawn=drawn, seed=seed)
    for note in gathered.notes:
        emit(Note(f"{path.name}: {note}"))
    record |= {"data": gathered.data, "triggers": gathered.triggers, "notes": gathered.notes}
    write_record(record, out / "prepared.json")
    return Prepared(model, gathered.data, gathered.triggers, gathered.notes, record)
