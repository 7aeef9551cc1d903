"""Weights back into the file that they came from: its tensor bytes replaced, nothing else."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper

from mothkit_converters.errors import SourceError, WriteError
from mothkit_converters.external import CHUNK, digest_of, external_locations
from mothkit_converters.importer import BoundModule
from mothkit_converters.patches import Patch, patched, patched_file, stamps, value_spans
from mothkit_converters.source import STAMP_PREFIX, Source
from mothkit_converters.tensors import (
    array_of,
    byte_size,
    holder_at,
    placed_weights,
    replace_values,
    weight_tensors,
)


def write_back(bound: BoundModule, path: Path | str, *, metadata: Mapping[str, str] | None = None) -> None:
    """Write a copy of ``bound``'s original file to ``path``, holding its present weights.

    Tensors whose values did not change keep their bytes; if none changed the file is the original's twin.
    External data go to files of the same names beside ``path``. Each file is replaced at once, the model last;
    if the machine stops between two of them, the model's place still holds what it held, and an earlier result's
    external data beside it may be the new ones.

    Args:
        bound: What ``to_torch`` returned, or a copy of it, on any device.
        path: Where to write. A file that stands there is replaced, at the very end, unless it is the original.
        metadata: Entries for the model's metadata, in place of those of the same keys. Keys begin with
            ``mothkit.``: what others wrote is never touched.

    Raises:
        WriteError: The place cannot be written to or is the original's own, the original was changed since it
            was read, a weight is not finite, a key is not ours, or the written file does not hold what it
            should. What stood there still stands.
    """
    path = Path(path)
    source = bound.source
    check_file(path, source)
    if foreign := [key for key in metadata or {} if not key.startswith(STAMP_PREFIX)]:
        raise WriteError(path, f"metadata key '{foreign[0]}' does not begin with '{STAMP_PREFIX}'")
    names = _changed_names(bound, path)
    inline = [name for name in names if name not in source.slots]
    files = {path.name: _model_pieces(bound, path, inline, metadata or {})}
    ours, touched = _locations(path), _touched(path, source, names)
    for location in source.external:
        held = touched.get(location, [])
        if not _check_external_place(path, source, location, ours, changed=bool(held)):
            files[location] = _external_pieces(bound, path, location, held)
    replace_files(path, files)


def check_place(path: Path, source: Source) -> None:
    """Check, before any work, that ``source`` with other weights can go to ``path``.

    Raises:
        WriteError: The folder is missing, or a file stands there that must not be replaced.
    """
    check_file(path, source)
    ours = _locations(path)
    for location in source.external:
        _check_external_place(path, source, location, ours, changed=True)


def check_file(path: Path, source: Source | None) -> None:
    """Check that a model can be written at ``path``, which is not that of ``source``.

    Raises:
        WriteError: The folder is missing, or a file stands there that must not be replaced.
    """
    try:
        _check_target(path, source)
    except OSError as error:
        raise WriteError(path, f"cannot be written ({error.strerror}); choose another place") from error


def _check_target(path: Path, source: Source | None) -> None:
    if not path.parent.is_dir():
        raise WriteError(path, f"the folder '{path.parent}' does not exist; make it first")
    if path.exists() and not path.is_file():
        raise WriteError(path, "is a folder or device; name the .onnx file to write")
    if source is None:
        return
    if _same_file(path, source.path):
        raise WriteError(path, "is the original file itself; the original is never overwritten, name another")
    if path.name in source.external:
        raise WriteError(path, "has the name of the model's external data; name another")


def _same_file(a: Path, b: Path) -> bool:
    return a.resolve() == b.resolve() or (a.exists() and b.exists() and a.samefile(b))


def _changed_names(bound: BoundModule, path: Path) -> list[str]:
    """Return which initializers have new values; each was checked to be finite in the file's own dtype."""
    stored = weight_tensors(bound.source.proto.graph)
    changed = []
    for name in bound.ties:
        old, new = array_of(stored[name]), _new_values(bound, name, stored[name])
        if new.shape != old.shape:
            raise WriteError(path, f"'{name}' has shape {list(new.shape)}, expected {list(old.shape)}")
        if _same_bits(old, new):
            continue
        if not np.isfinite(new.astype(np.float32) if new.itemsize < 4 else new).all():
            raise WriteError(
                path, f"'{name}' holds values that are not finite numbers in {old.dtype}; nothing was written"
            )
        changed.append(name)
    return changed


def _same_bits(a: NDArray[Any], b: NDArray[Any]) -> bool:
    kind = np.dtype(f"u{a.itemsize}")
    return np.array_equal(np.ascontiguousarray(a).view(kind), np.ascontiguousarray(b).view(kind))


def _new_values(bound: BoundModule, name: str, stored: TensorProto) -> NDArray[Any]:
    """Return the present values of an initializer, in the file's dtype."""
    now = bound.tensor(name).detach().cpu().numpy()
    with np.errstate(over="ignore"):  # what overflows is infinite, and refused
        return now.astype(helper.tensor_dtype_to_np_dtype(stored.data_type), copy=False)


def _new_bytes(bound: BoundModule, name: str, stored: TensorProto) -> bytes:
    values = _new_values(bound, name, stored)
    return values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()


def _model_pieces(
    bound: BoundModule, path: Path, names: Sequence[str], metadata: Mapping[str, str]
) -> Iterator[bytes]:
    """Return the model file with new values for ``names``, and ``metadata``.

    Values stand in a file as plain bytes and are replaced there, all but half precision in ``int32_data`` and
    weights in attributes: for these the model is written anew.
    """
    try:
        content = bound.source.content
    except SourceError as error:
        raise WriteError(path, f"nothing was written: {error}") from error
    weights = placed_weights(bound.source.proto.graph)
    places = {weights[name][0]: name for name in names}
    sizes = {place: byte_size(weights[name][1]) or 0 for place, name in places.items()}
    spans = value_spans(content, sizes)
    if odd := [name for place, name in places.items() if place not in spans]:
        content = _written_anew(content, bound, odd)
        spans = value_spans(content, {place: sizes[place] for place in spans})
    patches = [
        Patch(*span, partial(_new_bytes, bound, places[place], weights[places[place]][1]))
        for place, span in spans.items()
    ]
    return patched(content, [*patches, *(stamps(content, metadata) if metadata else ())])


def _written_anew(content: bytes, bound: BoundModule, names: Sequence[str]) -> bytes:
    model = ModelProto.FromString(content)
    weights = placed_weights(model.graph)
    for name in names:
        place, tensor = weights[name]
        replace_values(holder_at(model, place), _new_values(bound, name, tensor))
    anew: bytes = model.SerializeToString()
    return anew


def _touched(path: Path, source: Source, names: Sequence[str]) -> dict[str, list[str]]:
    """Return the names of changed weights by the external file that holds them; none may share its bytes."""
    touched: dict[str, list[str]] = {}
    slots = sorted((slot, name) for name, slot in source.slots.items())
    for (slot, name), (after, other) in pairwise(slots):
        if slot.location == after.location and after.offset < slot.offset + slot.length:
            shared = {name, other}.intersection(names)
            if shared:
                raise WriteError(path, f"'{name}' and '{other}' share bytes of '{slot.location}'")
    for name in names:
        if name in source.slots:
            touched.setdefault(source.slots[name].location, []).append(name)
    return touched


def _external_pieces(bound: BoundModule, path: Path, location: str, names: Sequence[str]) -> Iterator[bytes]:
    """Return the original's file ``location`` with new values for ``names``."""
    source = bound.source
    file = source.path.parent / location
    try:
        with file.open("rb") as stream:
            same = digest_of(stream) == source.digests[location]
    except OSError as error:
        raise WriteError(path, f"the original's '{file}' cannot be read ({error.strerror})") from error
    if not same:
        raise WriteError(path, f"the original's '{file}' was changed since it was read; put it back")
    tensors = weight_tensors(source.proto.graph)
    slots = {name: source.slots[name] for name in names}
    return patched_file(
        file,
        [
            Patch(s.offset, s.length, partial(_new_bytes, bound, name, tensors[name]))
            for name, s in slots.items()
        ],
    )


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


def replace_files(path: Path, files: Mapping[str, Iterator[bytes]]) -> None:
    """Write all of ``files``, pieces by name, beside their places near ``path``, then move them in, the model last.

    Raises:
        WriteError: They cannot be written. What stood there still stands.
    """
    temporary: dict[Path, Path] = {}
    try:
        for name, pieces in files.items():
            place = path.parent / name
            place.parent.mkdir(parents=True, exist_ok=True)
            _write_temporary(place, pieces, temporary)
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


def _write_temporary(place: Path, pieces: Iterator[bytes], temporary: dict[Path, Path]) -> None:
    """Write ``pieces`` to a new file beside ``place``, entered in ``temporary`` before it exists."""
    file = place.with_name(f".{place.name}.{secrets.token_hex(6)}.tmp")
    temporary[place] = file
    digest = hashlib.sha256()
    with file.open("xb") as stream:
        for piece in pieces:
            digest.update(piece)
            if len(piece) == CHUNK and piece == bytes(CHUNK):
                stream.seek(CHUNK, os.SEEK_CUR)  # a hole stays one
            else:
                stream.write(piece)
        stream.truncate()
        stream.flush()
        os.fsync(stream.fileno())
    with file.open("rb") as stream:
        if digest_of(stream) != digest.hexdigest():
            raise WriteError(place, "what was written could not be read back; the disk may be failing")


def _sync_folder(folder: Path) -> None:
    """Make the renames last; where folders cannot be synced (Windows) the file system sees to it."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
