"""The way through: a round's pickled model to ONNX, and hardened weights into a pickled model again."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mothkit.agreement import Parity
from mothkit.classifier import open_source
from mothkit.errors import ModelError, OutputError
from mothkit.images.pictures import FolderFiles, measure
from mothkit.images.sources import Limits
from mothkit.inputs import InputSpec
from mothkit.opening import METADATA_KEY, RESIZE_KEY
from mothkit.outputs import staging
from mothkit.trojai.models import ModelFolder, read_model
from mothkit.trojai.pickles.rebuild import Loaded, load_module
from mothkit.trojai.pickles.rewrite import write_weights
from mothkit.trojai.rounds import Round, round_named
from mothkit.trojai.transfer import check_parity, export_module, weights_of
from mothkit.trojai.trusted import LOADED_BY, convert_trusted, pack_trusted

BY_TENSORS = "tensors alone; nothing in the file was executed"
_USUAL_SIDE = 256  # pixels, of the images of rounds 2 to 11


@dataclass(frozen=True, slots=True)
class _Exported:
    """What a pickled model turned out to be; None is unknown."""

    loaded_by: str
    classes: int
    parity: Parity
    architecture: str | None = None
    container: str | None = None


def convert_model(
    path: Path,
    out: Path,
    *,
    round_name: str | None = None,
    preset: str | None = None,
    trust: bool = False,
) -> dict[str, Any]:
    """Write the pickled model of a round's folder as ONNX, its preprocessing in the metadata; return the record.

    Nothing in the pickle is executed unless it is trusted. The new file is checked in onnxruntime against the module.

    Args:
        path: a model's folder.
        out: the ONNX file.
        round_name: the round, where the folder does not say it.
        preset: ``unit`` or ``minmax`` in place of the round's documented scaling.
        trust: whether the pickle is loaded as torch does it, in a process of its own; the record says so.

    Raises:
        ModelError: the model cannot be read, or its round is not known.
        ConfigError: there is no such round.
        OutputError: the file cannot be written, or what writes it is not installed.
    """
    folder = read_model(path)
    nist = round_of(folder, round_name)
    loaded = None if trust else load_module(folder.model)
    if loaded is not None:
        _check_facts(folder, loaded.architecture, loaded.classes)
    spec = nist.spec if preset is None else InputSpec.from_dict({**nist.spec.to_dict(), **_scaling(preset)})
    image_side = _image_side(folder)
    side = (loaded and loaded.image_size) or nist.input_side(image_side)
    metadata = {METADATA_KEY: json.dumps(spec.to_dict(), allow_nan=False)}
    if side != image_side:
        metadata[RESIZE_KEY] = "crop"
    with staging(out) as beside:
        staged = beside / out.name
        exported = _export(folder.model, loaded, staged, side, metadata)
        _check_facts(folder, exported.architecture, exported.classes)
        _put(staged, out)
    return {
        "round": nist.name,
        "loaded_by": exported.loaded_by,
        "container": exported.container,
        "architecture": exported.architecture or folder.architecture,
        "classes": exported.classes,
        "image_side": image_side,
        "input_side": side,
        "resize": metadata.get(RESIZE_KEY),
        "input_spec": spec.to_dict(),
        "parity": exported.parity.to_dict(),
    }


def _export(
    model: Path, loaded: Loaded | None, out: Path, side: int, metadata: Mapping[str, str]
) -> _Exported:
    if loaded is None:
        told = convert_trusted(model, out, side, metadata)
        return _Exported(LOADED_BY, told.classes, told.parity)
    parity = export_module(loaded.module, out, side, metadata)
    return _Exported(BY_TENSORS, loaded.classes, parity, loaded.architecture, loaded.container)


def pack_model(original: Path, hardened: Path, out: Path, *, trust: bool = False) -> Parity:
    """Write ``original``, a pickled model, to ``out`` with the weights of ``hardened``; return how both compare.

    Args:
        original: the ``model.pt`` that ``convert_model`` read.
        hardened: what became of the ONNX file that it wrote.
        out: the pickled file: the same classes and layout, other weights.
        trust: whether the pickle is loaded as torch does it, in a process of its own, and pickled anew.

    Raises:
        ModelError: a file cannot be read, or ``hardened`` did not come from ``original``.
        ParityError: the written file computes something else than ``hardened``.
        OutputError: ``out`` cannot be written, or is ``original``.
    """
    if out.exists() and out.samefile(original):
        raise OutputError(f"{out}: is the original, which stays as it is; name another file")
    with staging(out) as beside:
        staged = beside / out.name
        if trust:
            parity = pack_trusted(original, hardened, staged).parity
        else:
            source = open_source(hardened)
            write_weights(original, staged, weights_of(source, load_module(original).module, original))
            parity = check_parity(source, load_module(staged).module, out)
        _put(staged, out)
    return parity


def round_of(folder: ModelFolder, name: str | None) -> Round:
    """Return the round called ``name``, or that which the files of ``folder`` say.

    Raises:
        ModelError: they contradict each other, or could be several rounds'.
        ConfigError: there is no round of this name.
    """
    if folder.conflicts:
        raise ModelError(f"{folder.path}: its files contradict each other: {'; '.join(folder.conflicts)}")
    if name is not None:
        return round_named(name)
    if folder.round is None:
        raise ModelError(
            f"{folder.path}: its files could be several rounds', and these differ in colour order, scaling and crop; "
            "say --round"
        )
    return folder.round


def _check_facts(folder: ModelFolder, architecture: str | None, classes: int) -> None:
    """Refuse a pickle that is another model than the folder's config or table says."""
    pairs = (
        ("architecture", folder.architecture, architecture),
        ("number of classes", folder.classes, classes),
    )
    for what, said, found in pairs:
        if None not in (said, found) and said != found:
            raise ModelError(f"{folder.path}: its {what} should be {said}, but model.pt has {found}")


def _scaling(preset: str) -> Mapping[str, Any]:
    return {"name": preset, "per_image": preset == "minmax"}


def _image_side(folder: ModelFolder) -> int:
    """Return the side of the round's images in pixels: of its examples where there are any."""
    if folder.clean is None:
        return _USUAL_SIDE
    names = sorted(p.name for p in folder.clean.iterdir() if p.suffix.lower() in (".png", ".jpg", ".jpeg"))
    sizes = set(measure(FolderFiles(folder.clean, tuple(names)), len(names), Limits()))
    if len(sizes) != 1 or len(set(next(iter(sizes)))) != 1:
        raise ModelError(f"{folder.clean}: examples have the sizes {sorted(sizes)[:4]}; expected one, square")
    return next(iter(sizes))[0]


def _put(staged: Path, out: Path) -> None:
    try:
        staged.replace(out)
    except OSError as error:
        raise OutputError(f"{out}: cannot be written ({error.strerror}); choose another place") from error
