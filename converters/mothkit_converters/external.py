"""Tensors whose data lie outside the model file: where, and how they get into memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import BinaryIO, NamedTuple

from onnx import ModelProto, TensorProto

from mothkit_converters.errors import ExternalDataError, TooLargeError
from mothkit_converters.tensors import all_tensors, byte_size, weight_tensors

MAX_EXTERNAL_BYTES = 64 * 2**30  # of all external files together; only tensors are held in memory
CHUNK = 2**24  # bytes that are read at a time
_OVERLAP = 2  # times a file's size that its tensors together may have


class Slot(NamedTuple):
    """Where a tensor's data lie.

    Attributes:
        location: The file, relative to the model's folder.
        offset: Byte at which they begin.
        length: How many bytes they are.
    """

    location: str
    offset: int
    length: int


def _entries(tensor: TensorProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data}


def external_slot(tensor: TensorProto) -> Slot | None:
    """Return where ``tensor``'s external data lie, None where it has none.

    Raises:
        ValueError: An entry is no number, negative, or not what shape and dtype need.
    """
    if tensor.data_location != TensorProto.EXTERNAL:
        return None
    entries, needed = _entries(tensor), byte_size(tensor)
    if needed is None:
        raise ValueError("strings cannot be external data")
    offset, length = int(entries.get("offset", 0)), int(entries.get("length", needed))
    if offset < 0 or length != needed:
        raise ValueError(f"offset {offset}, length {length}; shape {list(tensor.dims)} needs {needed} bytes")
    return Slot(entries.get("location", ""), offset, length)


def external_locations(model: ModelProto) -> set[str]:
    """Return the names of the files that ``model``'s tensors point to."""
    outside = (tensor for tensor in all_tensors(model) if tensor.data_location == TensorProto.EXTERNAL)
    return {_entries(tensor).get("location", "") for tensor in outside}


def weight_slots(path: Path, model: ModelProto) -> dict[str, Slot]:
    """Return where the external data of ``model``'s weights lie, by their names.

    Raises:
        ExternalDataError: An entry is no number, negative, or not what the tensor needs.
    """
    slots = {name: _slot(path, tensor) for name, tensor in weight_tensors(model.graph).items()}
    return {name: slot for name, slot in slots.items() if slot is not None}


def load_external(path: Path, model: ModelProto) -> tuple[dict[str, int], dict[str, str]]:
    """Move external data into ``model``, which was read from ``path``.

    Returns:
        Size in bytes, and SHA-256 in hex, of each external file.

    Raises:
        TooLargeError: The files are larger than ``MAX_EXTERNAL_BYTES``.
        ExternalDataError: One is missing, cut off, or outside the model's folder.
    """
    tensors = _by_location(path, model)
    sizes: dict[str, int] = {}
    for location, found in tensors.items():
        file = _locate(path, location, found[0][0].name)
        sizes[location] = file.stat().st_size
        _check_slots(path, location, sizes[location], found)
    if (total := sum(sizes.values())) > MAX_EXTERNAL_BYTES:
        raise TooLargeError(
            path, f"its external data have {total} bytes; at most {MAX_EXTERNAL_BYTES} are read"
        )
    digests = {}
    for location, found in tensors.items():
        try:
            with (path.parent / location).open("rb") as stream:
                digests[location] = digest_of(stream)
                _fill(path, stream, found)
        except OSError as error:
            raise ExternalDataError(path, f"'{location}' cannot be read ({error.strerror})") from error
    return sizes, digests


def _by_location(path: Path, model: ModelProto) -> dict[str, list[tuple[TensorProto, Slot]]]:
    found: dict[str, list[tuple[TensorProto, Slot]]] = {}
    for tensor in all_tensors(model):
        if (slot := _slot(path, tensor)) is not None:
            found.setdefault(slot.location, []).append((tensor, slot))
    return found


def _slot(path: Path, tensor: TensorProto) -> Slot | None:
    try:
        return external_slot(tensor)
    except ValueError as error:
        raise ExternalDataError(path, f"external data of '{tensor.name}': {error}") from error


def _locate(path: Path, location: str, name: str) -> Path:
    posix, windows = PurePosixPath(location), PureWindowsPath(location)
    outside = posix.is_absolute() or windows.anchor or ".." in posix.parts or ".." in windows.parts
    folder = path.parent.resolve()
    try:
        held = bool(location) and "\0" not in location and not outside
        if not held or not (file := folder / location).resolve().is_relative_to(folder):
            raise ExternalDataError(
                path,
                f"'{name}' points to '{location}', outside the model's folder; only files inside are read",
            )
        found = file.is_file()
    except OSError:  # a name that is too long
        found = False
    if not found:
        raise ExternalDataError(
            path, f"'{name}' is stored in '{location}', which is missing; put it beside the model"
        )
    return file


def _check_slots(path: Path, location: str, size: int, found: list[tuple[TensorProto, Slot]]) -> None:
    """Check that the slots lie inside the file, and do not come to many times its size."""
    for tensor, slot in found:
        if slot.offset + slot.length > size:
            raise ExternalDataError(
                path,
                f"'{tensor.name}' needs bytes {slot.offset} to {slot.offset + slot.length} of '{location}', "
                f"which has only {size}; fetch that file again",
            )
    needed = sum(slot.length for _, slot in found)
    if needed > _OVERLAP * size:
        raise ExternalDataError(
            path, f"{len(found)} tensors take {needed} bytes out of the {size} of '{location}': they overlap"
        )


def _fill(path: Path, stream: BinaryIO, found: list[tuple[TensorProto, Slot]]) -> None:
    for tensor, slot in found:
        stream.seek(slot.offset)
        data = stream.read(slot.length)
        if len(data) != slot.length:
            raise ExternalDataError(path, f"'{slot.location}' became shorter while it was read")
        tensor.raw_data = data
        tensor.ClearField("data_location")
        tensor.ClearField("external_data")


def chunks(stream: BinaryIO, start: int, stop: int) -> Iterator[bytes]:
    """Yield the bytes of ``stream`` from ``start`` to ``stop``, or to its end."""
    stream.seek(start)
    while start < stop and (data := stream.read(min(CHUNK, stop - start))):
        yield data
        start += len(data)


def digest_of(stream: BufferedReader) -> str:
    """Return the SHA-256, in hex, of everything in ``stream``."""
    stream.seek(0)
    return hashlib.file_digest(stream, "sha256").hexdigest()
