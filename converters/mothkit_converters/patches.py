"""New bytes in place of old ones in a file, everything else as it stands."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from onnx import ModelProto, StringStringEntryProto

from mothkit_converters.external import CHUNK, chunks
from mothkit_converters.tensors import Place
from mothkit_converters.wire import SIZED, Field, fields_of

_VALUES = frozenset({"raw_data", "float_data", "double_data"})  # stored as the values' own bytes, end to end


class Patch(NamedTuple):
    """Bytes to put in place of others.

    Attributes:
        start: Where the old ones begin.
        length: How many they are.
        new: Returns the new ones.
    """

    start: int
    length: int
    new: Callable[[], bytes]


def patched(content: bytes, patches: Sequence[Patch]) -> Iterator[bytes]:
    """Yield ``content`` with ``patches``, which do not overlap, in pieces."""
    yield from _patched(lambda a, b: _slices(content, a, b), len(content), patches)


def patched_file(file: Path, patches: Sequence[Patch]) -> Iterator[bytes]:
    """Yield what ``file`` holds with ``patches``, which do not overlap, in pieces."""
    with file.open("rb") as stream:
        yield from _patched(lambda a, b: chunks(stream, a, b), file.stat().st_size, patches)


def _slices(content: bytes, start: int, stop: int) -> Iterator[bytes]:
    for at in range(start, stop, CHUNK):
        yield content[at : min(at + CHUNK, stop)]


def _patched(
    read: Callable[[int, int], Iterable[bytes]], size: int, patches: Sequence[Patch]
) -> Iterator[bytes]:
    place = 0
    for patch in sorted(patches, key=lambda patch: patch.start):
        yield from read(place, patch.start)
        yield patch.new()
        place = patch.start + patch.length
    yield from read(place, size)


def value_spans(content: bytes, sizes: Mapping[Place, int]) -> dict[Place, tuple[int, int]]:
    """Return start and length of the values of the tensors at these places, where they stand as plain bytes.

    Args:
        content: A model file.
        sizes: How many bytes each tensor has. One stored otherwise is left out.
    """
    found: dict[Place, list[Field]] = {}
    for field in fields_of(content):
        if field.path in sizes and field.known is not None and field.known.name in _VALUES:
            found.setdefault(field.path, []).append(field)
    return {
        place: (fields[0].start, sizes[place])
        for place, fields in found.items()
        if len(fields) == 1 and fields[0].wire == SIZED and fields[0].end - fields[0].start == sizes[place]
    }


def stamps(content: bytes, metadata: Mapping[str, str]) -> list[Patch]:
    """Return what puts ``metadata`` into the model file ``content``, in place of entries of the same keys."""
    patches, end = [], 0
    for field in fields_of(content):
        if field.path:
            continue
        if field.known is not None and field.known.name == "metadata_props":
            entry = StringStringEntryProto.FromString(content[field.start : field.end])
            if entry.key in metadata:
                patches.append(Patch(end, field.end - end, bytes))
        end = field.end
    entries = [StringStringEntryProto(key=key, value=value) for key, value in metadata.items()]
    added: bytes = ModelProto(metadata_props=entries).SerializeToString()
    return [*patches, Patch(len(content), 0, lambda: added)]
