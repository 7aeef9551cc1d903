"""What differs between two ONNX files: weights by how much, everything else by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import Message  # type: ignore[import-untyped]
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto

from mothkit_converters.external import chunks
from mothkit_converters.source import STAMP_PREFIX, Source, read_source
from mothkit_converters.tensors import array_of, clear_values, holder_at, placed_weights, weight_tensors

_SHOWN = 5  # differing nodes and weights that are told one by one
_MODEL_FIELDS = {
    "ir_version": "the IR version",
    "opset_import": "the opsets",
    "producer_name": "the producer's name",
    "producer_version": "the producer's version",
    "domain": "the model's domain",
    "model_version": "the model's version",
    "doc_string": "the model's documentation",
    "metadata_props": "the metadata",
    "functions": "the local functions",
    "training_info": "the training information",
}
_GRAPH_FIELDS = {
    "name": "the graph's name",
    "doc_string": "the graph's documentation",
    "input": "the inputs",
    "output": "the outputs",
    "value_info": "the value infos",
    "sparse_initializer": "the sparse initializers",
    "quantization_annotation": "the quantization annotations",
    "metadata_props": "the graph's metadata",
}


@dataclass(frozen=True, slots=True)
class Change:
    """An initializer whose values differ.

    Attributes:
        name: Its name, or that of the output of the Constant node that holds it.
        dtype: ONNX's name of its element type in lower case.
        shape: Its dimensions.
        l2: L2 norm of the change; NaN for strings, as are the other two.
        relative_l2: The same over the first file's L2 norm; infinite where that is 0.
        max_abs: Largest change of a single value.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    l2: float
    relative_l2: float
    max_abs: float


@dataclass(frozen=True, slots=True)
class GraphDiff:
    """What differs between two models.

    Attributes:
        changes: Initializers of the same name, dtype and shape whose values differ, in the first's order.
        differences: All else that differs, in plain words; empty when it is byte-identical.
        unchanged: How many initializers hold the same values in both.
        stamps: Keys of the ``mothkit.`` metadata that only one has or that differ. They are entered when asked
            for and say nothing about the model, so they are told apart from ``differences``.
    """

    changes: tuple[Change, ...]
    differences: tuple[str, ...]
    unchanged: int
    stamps: tuple[str, ...] = ()

    @property
    def only_weights(self) -> bool:
        """Whether everything but the values of initializers and ``mothkit.`` metadata is byte-identical."""
        return not self.differences

    @property
    def identical(self) -> bool:
        """Whether nothing differs at all."""
        return not self.changes and not self.differences and not self.stamps


def diff(a: Path | str | Source, b: Path | str | Source) -> GraphDiff:
    """Return what differs from model ``a`` to model ``b``.

    Raises:
        SourceError: One of them cannot be taken as a model.
    """
    first, second = (x if isinstance(x, Source) else read_source(x) for x in (a, b))
    ours, theirs = weight_tensors(first.proto.graph), weight_tensors(second.proto.graph)
    shared = [name for name in ours if name in theirs and _kind(ours[name]) == _kind(theirs[name])]
    changes = tuple(filter(None, (_change(name, ours[name], theirs[name]) for name in shared)))
    return GraphDiff(
        changes=changes,
        differences=(*_other_weights(ours, theirs), *_other_parts(first, second, shared)),
        unchanged=len(shared) - len(changes),
        stamps=_stamps(first, second),
    )


def _stamps(first: Source, second: Source) -> tuple[str, ...]:
    ours, theirs = first.metadata, second.metadata
    keys = sorted(key for key in ours.keys() | theirs.keys() if key.startswith(STAMP_PREFIX))
    return tuple(key for key in keys if ours.get(key) != theirs.get(key))


def _kind(tensor: TensorProto) -> tuple[int, tuple[int, ...]]:
    return tensor.data_type, tuple(tensor.dims)


def _dtype(tensor: TensorProto) -> str:
    return str(TensorProto.DataType.Name(tensor.data_type)).lower()


def _change(name: str, a: TensorProto, b: TensorProto) -> Change | None:
    """Return how the values of one initializer differ, None where they do not."""
    if a.data_type == TensorProto.STRING:
        same, sizes = list(a.string_data) == list(b.string_data), (float("nan"),) * 3
    else:
        old, new = array_of(a), array_of(b)
        same = old.tobytes() == new.tobytes()
        sizes = (0.0,) * 3 if same else _sizes(old, new)
    return None if same else Change(name, _dtype(a), tuple(a.dims), *sizes)


def _sizes(old: NDArray[Any], new: NDArray[Any]) -> tuple[float, float, float]:
    """Return L2, relative L2 and largest absolute value of ``new`` - ``old``."""
    old, new = old.astype(np.float64), new.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):  # files may hold infinities
        delta = new - old
        l2, norm = float(np.linalg.norm(delta.ravel())), float(np.linalg.norm(old.ravel()))
    return l2, l2 / norm if norm else float("inf"), float(np.abs(delta).max())


def _other_weights(ours: Mapping[str, TensorProto], theirs: Mapping[str, TensorProto]) -> list[str]:
    """Return words on initializers that only one file has, or that changed dtype or shape."""
    words = [f"initializer '{name}' is only in the first file" for name in ours if name not in theirs]
    words += [f"initializer '{name}' is only in the second file" for name in theirs if name not in ours]
    words += [
        f"initializer '{name}' was {_dtype(a)} {list(a.dims)}, and is {_dtype(b)} {list(b.dims)}"
        for name, a in ours.items()
        if (b := theirs.get(name)) is not None and _kind(a) != _kind(b)
    ]
    return _shortened(words, "initializers that only one file has, or of another kind")


def _other_parts(first: Source, second: Source, shared: Sequence[str]) -> Iterator[str]:
    """Yield words on what differs once the values of ``shared`` initializers are taken out."""
    if not _same_gaps(first, second, shared):
        yield "the external files differ outside the weights"
    a, b = _emptied(first, shared), _emptied(second, shared)
    if _bytes(a) == _bytes(b):
        return
    words = [
        *_fields(a, b, _MODEL_FIELDS),
        *_fields(a.graph, b.graph, _GRAPH_FIELDS),
        *_nodes(a.graph.node, b.graph.node),
        *_storage(a, b),
    ]
    yield from words or ["a part of the file that has no name here differs"]


def _emptied(source: Source, names: Sequence[str]) -> ModelProto:
    """Return the model as it is stored, without the values of these initializers and without our metadata."""
    model: ModelProto = ModelProto.FromString(source.content)
    weights = placed_weights(model.graph)
    for name in names:
        if name not in source.slots:
            clear_values(holder_at(model, weights[name][0]))
    others = [entry for entry in model.metadata_props if not entry.key.startswith(STAMP_PREFIX)]
    del model.metadata_props[:]
    model.metadata_props.extend(others)
    return model


def _same_gaps(first: Source, second: Source, shared: Sequence[str]) -> bool:
    """Return whether the external files hold the same outside the values of ``shared`` initializers."""
    slots, others = ({name: s.slots[name] for name in shared if name in s.slots} for s in (first, second))
    if slots != others or first.external != second.external:
        return False
    for location, size in first.external.items():
        if first.digests[location] == second.digests[location]:
            continue
        taken = sorted(
            (slot.offset, slot.offset + slot.length) for slot in slots.values() if slot.location == location
        )
        with (first.path.parent / location).open("rb") as a, (second.path.parent / location).open("rb") as b:
            for start, stop in _gaps(taken, size):
                if any(x != y for x, y in zip(chunks(a, start, stop), chunks(b, start, stop), strict=True)):
                    return False
    return True


def _gaps(taken: Sequence[tuple[int, int]], size: int) -> Iterator[tuple[int, int]]:
    place = 0
    for start, stop in taken:
        if start > place:
            yield place, start
        place = max(place, stop)
    if place < size:
        yield place, size


def _bytes(message: Message) -> bytes:
    return bytes(message.SerializeToString(deterministic=True))


def _serialised(value: Any) -> Any:  # noqa: ANN401 - a protobuf field: a number, text, or messages
    if isinstance(value, Message):
        return _bytes(value)
    if isinstance(value, str | bytes | int):
        return value
    return [_serialised(entry) for entry in value]


def _fields(a: Message, b: Message, names: Mapping[str, str]) -> list[str]:
    """Return words on the fields that differ; a field that this onnx does not know is passed over."""
    known = [name for name in names if hasattr(a, name)]
    differing = [name for name in known if _serialised(getattr(a, name)) != _serialised(getattr(b, name))]
    return [f"{names[name]} differ{'' if names[name].endswith('s') else 's'}" for name in differing]


def _nodes(a: Sequence[NodeProto], b: Sequence[NodeProto]) -> list[str]:
    """Return words on the nodes that differ, place by place."""
    if len(a) != len(b):
        return [f"the first file has {len(a)} nodes, the second {len(b)}"]
    words = []
    for index, (node, other) in enumerate(zip(a, b, strict=True)):
        if _bytes(node) != _bytes(other):
            name = node.name or (node.output[0] if node.output else "")
            words.append(f"node {index} ({node.op_type} '{name}') differs")
    return _shortened(words, "nodes that differ")


def _storage(a: ModelProto, b: ModelProto) -> list[str]:
    """Return words on how initializers are stored: order, field, external location, documentation."""
    ours, theirs = a.graph.initializer, b.graph.initializer
    if {tensor.name for tensor in ours} != {tensor.name for tensor in theirs}:
        return []  # told already
    if [tensor.name for tensor in ours] != [tensor.name for tensor in theirs]:
        return ["the order of the initializers differs"]
    words = [
        f"initializer '{tensor.name}' is stored in another way"
        for tensor, other in zip(ours, theirs, strict=True)
        if _kind(tensor) == _kind(other) and _bytes(tensor) != _bytes(other)
    ]
    return _shortened(words, "initializers that are stored in another way")


def _shortened(words: list[str], what: str) -> list[str]:
    return words if len(words) <= _SHOWN else [*words[:_SHOWN], f"and {len(words) - _SHOWN} more {what}"]
