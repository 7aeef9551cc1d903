"""Weights back into the file that they came from: its tensor bytes replaced, nothing else."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto

from mothkit_converters.errors import WriteError
from mothkit_converters.importer import BoundModule
from mothkit_converters.source import Source, external_locations, external_slot
from mothkit_converters.tensors import array_of, replace_values, weight_tensors


def write_back(bound: BoundModule, path: Path | str) -> None:
    """Write a copy of ``bound``'s original file to ``path``, holding its present weights.

    Tensors whose values did not change keep their bytes; if none changed the file is the original's twin.
    External data go to files of the same names beside ``path``.

    Args:
        bound: What ``to_torch`` returned, or a copy of it, on any device.
        path: Where to write. A file that stands there is replaced, at the very end, unless it is the original.

    Raises:
        WriteError: The place cannot be written to or is the original's own, a weight is not finite, or the
            written file does not hold what it should. What stood there still stands.
    """
    path = Path(path)
    source = bound.source
    _check_place(path, source)
    changed = _changed_values(bound, path)
    if not changed:
        files = {path.name: source.content, **source.external}
    else:
        model, external = _rewritten(source, changed)
        _check_model(path, model)
        files = {path.name: model.SerializeToString(), **external}
    _check_external_places(path, source, files)
    _replace(path, files)


def check_place(path: Path, source: Source) -> None:
    """Check, before any work, that ``source`` with other weights can go to ``path``.

    Raises:
        WriteError: The folder is missing, or a file stands there that must not be replaced.
    """
    _check_place(path, source)
    ours = _locations(path)
    for location in source.external:
        _check_external_place(path, source, location, ours, changed=True)


def _check_place(path: Path, source: Source) -> None:
    try:
        _check_target(path, source)
    except OSError as error:
        raise WriteError(path, f"cannot be written ({error.strerror}); choose another place") from error


def _check_target(path: Path, source: Source) -> None:
    if not path.parent.is_dir():
        raise WriteError(path, f"the folder '{path.parent}' does not exist; make it first")
    if path.exists() and not path.is_file():
        raise WriteError(path, "is a folder or device; name the .onnx file to write")
    if _same_file(path, source.path):
        raise WriteError(path, "is the original file itself; the original is never overwritten, name another")
    if path.name in source.external:
        raise WriteError(path, "has the name of the model's external data; name another")


def _same_file(a: Path, b: Path) -> bool:
    return a.resolve() == b.resolve() or (a.exists() and b.exists() and a.samefile(b))


def _changed_values(bound: BoundModule, path: Path) -> dict[str, NDArray[Any]]:
    """Return the new values, in the file's own dtypes, of the initializers that changed."""
    stored = weight_tensors(bound.source.proto.graph)
    changed: dict[str, NDArray[Any]] = {}
    for name in bound.ties:
        old = array_of(stored[name])
        now = bound.tensor(name).detach().cpu().double().numpy()
        with np.errstate(over="ignore"):  # what overflows is infinite, and refused below
            new = now.astype(old.dtype)
        if new.shape != old.shape:
            raise WriteError(path, f"'{name}' has shape {list(new.shape)}, expected {list(old.shape)}")
        if new.tobytes() == old.tobytes():
            continue
        if not np.isfinite(new.astype(np.float64)).all():
            raise WriteError(
                path, f"'{name}' holds values that are not finite numbers in {old.dtype}; nothing was written"
            )
        changed[name] = new
    return changed


def _rewritten(source: Source, changed: Mapping[str, NDArray[Any]]) -> tuple[ModelProto, dict[str, bytes]]:
    """Return the model as it is stored, and its external files, with ``changed`` put in."""
    model = ModelProto.FromString(source.content)
    external = {name: bytearray(data) for name, data in source.external.items()}
    tensors = weight_tensors(model.graph)
    for name, values in changed.items():
        slot = external_slot(tensors[name])
        if slot is None:
            replace_values(tensors[name], values)
            continue
        location, offset, length = slot
        external[location][offset : offset + length] = values.tobytes()
    return model, {name: bytes(data) for name, data in external.items()}


def _check_model(path: Path, model: ModelProto) -> None:
    if any(tensor.data_location == TensorProto.EXTERNAL for tensor in weight_tensors(model.graph).values()):
        return  # the checker wants the files in place; the written model is read back in any case
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise WriteError(path, f"the new model breaks ONNX's rules ({error}); nothing was written") from error


def _check_external_places(path: Path, source: Source, files: dict[str, bytes]) -> None:
    """Leave out external files that stand there as they are; refuse to overwrite those of other models."""
    ours = _locations(path)
    for location in source.external:
        changed = files[location] != source.external[location]
        if _check_external_place(path, source, location, ours, changed=changed):
            del files[location]


def _check_external_place(
    path: Path, source: Source, location: str, ours: set[str], *, changed: bool
) -> bool:
    """Return whether the original's file ``location`` can stay where it is, for a model at ``path``."""
    place = path.parent / location
    if not place.exists():
        return False
    if _same_file(place, source.path.parent / location):
        if changed:
            raise WriteError(
                path, f"its external data would overwrite the original's '{place}'; write to another folder"
            )
        return True
    if location not in ours:
        raise WriteError(
            path, f"'{place}' stands there and belongs to something else; write to another folder"
        )
    return False


def _locations(path: Path) -> set[str]:
    """Return the external files of the model that stands at ``path``."""
    try:
        return external_locations(ModelProto.FromString(path.read_bytes()))
    except (OSError, DecodeError):
        return set()


def _replace(path: Path, files: Mapping[str, bytes]) -> None:
    """Write all of ``files`` beside their places, then move them in, the model last."""
    temporary: dict[Path, Path] = {}
    try:
        for name, content in files.items():
            place = path.parent / name
            place.parent.mkdir(parents=True, exist_ok=True)
            _write_temporary(place, content, temporary)
        for place in reversed(temporary):
            temporary[place].replace(place)
        _sync_folder(path.parent)
    except OSError as error:
        reason = error.strerror or str(error)
        raise WriteError(
            path, f"cannot be written ({reason}); free the room or choose another place"
        ) from error
    finally:
        for left in temporary.values():
            left.unlink(missing_ok=True)


def _write_temporary(place: Path, content: bytes, temporary: dict[Path, Path]) -> None:
    """Write ``content`` to a new file beside ``place``, entered in ``temporary`` before it exists."""
    file = place.with_name(f".{place.name}.{secrets.token_hex(6)}.tmp")
    temporary[place] = file
    with file.open("xb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    if file.read_bytes() != content:
        raise WriteError(place, "what was written could not be read back; the disk may be failing")


def _sync_folder(folder: Path) -> None:
    """Make the renames last; where folders cannot be synced (Windows) the file system sees to it."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
