"""Protobuf's wire format, as far as it takes to bound a stranger's file and to find the bytes of its tensors."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from google.protobuf.descriptor import Descriptor  # type: ignore[import-untyped]
from onnx import ModelProto

Path = tuple[tuple[int, int], ...]
"""Where a message stands in the model: number and index of each field on the way to it."""

VARINT, FIXED64, SIZED, FIXED32 = 0, 1, 2, 5  # wire types; the two others are groups, which ONNX has none of
_FIXED = {FIXED64: 8, FIXED32: 4}
_DEEPEST = 100  # protobuf's own bound


class Kind(NamedTuple):
    """A type of message: its name, and its fields by number."""

    name: str
    fields: Mapping[int, Any]


class Field(NamedTuple):
    """One field as it is stored.

    Attributes:
        path: Where the message that it belongs to stands.
        kind: What that message is.
        known: Its descriptor, None where ONNX has none of this number.
        wire: How it is stored.
        start, end: Where its value lies, without tag and length.
    """

    path: Path
    kind: Kind
    known: Any  # protobuf has no types
    wire: int
    start: int
    end: int

    @property
    def is_message(self) -> bool:
        """Whether its value is a message that ONNX knows."""
        return self.wire == SIZED and self.known is not None and self.known.message_type is not None


@functools.cache
def _kind(name: str) -> Kind:
    descriptor: Descriptor = ModelProto.DESCRIPTOR.file.pool.FindMessageTypeByName(name)
    return Kind(name, dict(descriptor.fields_by_number))


def fields_of(data: bytes) -> Iterator[Field]:
    """Yield every field of the model in ``data``, those of inner messages after the field that holds them.

    Raises:
        ValueError: It is cut off, no protobuf, too deep, or gives a message twice.
    """
    pending = [_fields(data, 0, len(data), (), _kind(ModelProto.DESCRIPTOR.full_name))]
    while pending:
        field, index = next(pending[-1], (None, 0))
        if field is None:
            pending.pop()
            continue
        yield field
        if field.is_message:
            pending.append(_inner(data, field, index))
            if len(pending) > _DEEPEST:
                raise ValueError(f"messages in messages, more than {_DEEPEST} deep")


def _inner(data: bytes, field: Field, index: int) -> Iterator[tuple[Field, int]]:
    """Return the fields of the message that ``field`` holds."""
    if index and not field.known.is_repeated:
        raise ValueError(
            f"{field.kind.name} has two fields '{field.known.name}'"
        )  # protobuf would merge them
    path = (*field.path, (field.known.number, index))
    return _fields(data, field.start, field.end, path, _kind(field.known.message_type.full_name))


def _fields(data: bytes, start: int, end: int, path: Path, kind: Kind) -> Iterator[tuple[Field, int]]:
    """Yield the fields of one message, each with how many of its number came before."""
    counts: dict[int, int] = {}
    while start < end:
        tag, start = _varint(data, start, end)
        number, wire = tag >> 3, tag & 7
        if wire == VARINT:
            stop = _varint(data, start, end)[1]
        elif wire == SIZED:
            size, start = _varint(data, start, end)
            stop = start + size
        elif wire in _FIXED:
            stop = start + _FIXED[wire]
        else:
            raise ValueError(f"wire type {wire} at byte {start}")
        if stop > end:
            raise ValueError(f"a field ends at byte {stop}, its message at byte {end}")
        index = counts.get(number, 0)
        counts[number] = index + 1
        yield Field(path, kind, kind.fields.get(number), wire, start, stop), index
        start = stop


def _varint(data: bytes, start: int, end: int) -> tuple[int, int]:
    """Return the number that begins at ``start``, and where it ends."""
    value = shift = 0
    while start < end and shift < 70:
        byte = data[start]
        start += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, start
        shift += 7
    raise ValueError(f"no number ends before byte {start}")
