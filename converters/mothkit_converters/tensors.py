"""ONNX tensors as numpy arrays and back, in the field they were stored in."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import onnx
from google.protobuf.descriptor import FieldDescriptor  # type: ignore[import-untyped]
from google.protobuf.message import Message  # type: ignore[import-untyped]
from numpy.typing import NDArray
from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

from mothkit_converters.attributes import attribute_tensors
from mothkit_converters.scopes import unique_names

FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE})
HALVES = frozenset({TensorProto.FLOAT16, TensorProto.BFLOAT16})
_PACKED_BITS: dict[int, int] = {
    TensorProto.INT4: 4,
    TensorProto.UINT4: 4,
    TensorProto.FLOAT4E2M1: 4,
}
_GRAPH, _NODE, _INITIALIZER, _ATTRIBUTE = 7, 1, 5, 5  # numbers of fields, by onnx.proto
_TENSOR, _SUBGRAPH, _SUBGRAPHS = 5, 6, 11
_SMALL = 4096  # bytes up to which an outline keeps a tensor's data: shapes, axes, scales
_HOLDERS = frozenset(f"onnx.{name}Proto" for name in ("Attribute", "Function", "Graph", "Node", "Tensor"))
_COMPLEX = frozenset({TensorProto.COMPLEX64, TensorProto.COMPLEX128})
_DATA_FIELDS = ("float_data", "double_data", "int32_data", "int64_data", "uint64_data", "string_data")


def array_of(tensor: TensorProto) -> NDArray[Any]:
    """Return ``tensor``'s values, in its own dtype and shape; external data must have been loaded."""
    return np.asarray(numpy_helper.to_array(tensor))


def constant_tensor(node: NodeProto) -> TensorProto | None:
    """Return the tensor that a Constant node holds, None for any other node or kind of constant."""
    if node.op_type != "Constant" or node.domain not in ("", "ai.onnx"):
        return None
    values: Iterator[TensorProto] = (a.t for a in node.attribute if a.name == "value")
    return next(values, None)


Place = tuple[tuple[int, int], ...]
"""Where a message stands in a model: number and index of each field on the way to it."""


def weight_tensors(graph: GraphProto) -> dict[str, TensorProto]:
    """Return the tensors that a graph stores, by name: initializers, then Constant nodes by their output.

    Weights that nodes of the graph itself hold as attributes count; their tensors are copies.
    Those of branches and loops are called as ``unique_names`` has it.
    """
    return {name: tensor for name, (_, tensor) in placed_weights(graph).items()}


def placed_weights(graph: GraphProto) -> dict[str, tuple[Place, TensorProto]]:
    """Return what ``weight_tensors`` does, each with its place in the model."""
    inner = iter([names for _, names in unique_names(graph)])
    weights: dict[str, tuple[Place, TensorProto]] = {}
    for name, place, tensor in _named_tensors(graph, ((_GRAPH, 0),), {}, inner):
        weights.setdefault(name, (place, tensor))
    for i, node in enumerate(graph.node):
        for j, tensor in attribute_tensors(node):
            weights.setdefault(tensor.name, (((_GRAPH, 0), (_NODE, i), (_ATTRIBUTE, j)), tensor))
    return weights


def holder_at(model: ModelProto, place: Place) -> TensorProto | AttributeProto:
    """Return what stands at ``place`` in ``model``: a tensor, or an attribute that holds weights."""
    message: Any = model
    for number, index in place:
        field = message.DESCRIPTOR.fields_by_number[number]
        value = getattr(message, field.name)
        message = value[index] if field.is_repeated else value
    held: TensorProto | AttributeProto = message
    return held


def _named_tensors(
    graph: GraphProto, place: Place, names: Mapping[str, str], inner: Iterator[Mapping[str, str]]
) -> Iterator[tuple[str, Place, TensorProto]]:
    """Yield the tensors of ``graph`` by their unique ``names``; ``inner`` has those of the graphs within it."""
    for i, tensor in enumerate(graph.initializer):
        yield names.get(tensor.name, tensor.name), (*place, (_INITIALIZER, i)), tensor
    for i, node in enumerate(graph.node):
        for j, attribute in enumerate(node.attribute):
            here = (*place, (_NODE, i), (_ATTRIBUTE, j))
            if attribute.name == "value" and constant_tensor(node) is not None:
                name = node.output[0]
                yield names.get(name, name), (*here, (_TENSOR, 0)), attribute.t
            if attribute.HasField("g"):
                yield from _named_tensors(attribute.g, (*here, (_SUBGRAPH, 0)), next(inner), inner)
            for k, subgraph in enumerate(attribute.graphs):
                yield from _named_tensors(subgraph, (*here, (_SUBGRAPHS, k)), next(inner), inner)


def all_tensors(model: ModelProto) -> Iterator[TensorProto]:
    """Yield every tensor stored in ``model``: subgraphs, sparse initializers and functions too."""
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        for node in function.node:
            yield from _node_tensors(node)


def _graph_tensors(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        yield from _node_tensors(node)


def _node_tensors(node: NodeProto) -> Iterator[TensorProto]:
    for attribute in node.attribute:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        for graph in (attribute.g, *attribute.graphs):
            yield from _graph_tensors(graph)


def outline(model: ModelProto, *, shapes: bool = True, only_floats: bool = False) -> ModelProto:
    """Return a copy of ``model`` whose large tensors hold no data: as good for all that asks for no weights.

    Args:
        model: Any model; its tensors' sizes were checked.
        shapes: Whether tensors without data keep their shape. ONNX's checker wants them empty then.
        only_floats: Whether data are left out of the floats in ``weight_tensors`` alone.
    """
    copy = ModelProto()

    def enter(tensor: TensorProto, into: TensorProto) -> None:
        size = byte_size(tensor)
        if size is None or size <= _SMALL or (only_floats and tensor.data_type not in FLOATS):
            into.CopyFrom(tensor)
            return
        into.name, into.data_type, into.doc_string = tensor.name, tensor.data_type, tensor.doc_string
        into.dims.extend(tensor.dims if shapes else (0,))

    def is_whole(message: Message) -> bool:
        if only_floats and isinstance(message, FunctionProto):
            return True
        return isinstance(message, NodeProto) and not _is_outlinable(message, only_constants=only_floats)

    _outline(model, copy, enter, is_whole)
    return copy


def is_outlined(tensor: TensorProto) -> bool:
    """Return whether ``tensor`` holds no data though its shape asks for some."""
    holds = tensor.HasField("raw_data") or any(len(getattr(tensor, name)) for name in _DATA_FIELDS)
    return not holds and math.prod(tensor.dims) > 0


def _outline(
    message: Message,
    into: Message,
    enter: Callable[[TensorProto, TensorProto], None],
    is_whole: Callable[[Message], bool],
) -> None:
    for field, value in message.ListFields():
        name = field.message_type.full_name if field.message_type is not None else ""
        if name not in _HOLDERS:
            _copy_field(field, value, into)
            continue
        for entry in value if field.is_repeated else (value,):
            target = getattr(into, field.name)
            target = target.add() if field.is_repeated else target
            if isinstance(entry, TensorProto):
                enter(entry, target)
            elif is_whole(entry):
                target.CopyFrom(entry)
            else:
                target.SetInParent()
                _outline(entry, target, enter, is_whole)


def _copy_field(field: FieldDescriptor, value: Any, into: Message) -> None:  # noqa: ANN401 - as protobuf has it
    if field.is_repeated:
        getattr(into, field.name).extend(value)
    elif field.message_type is not None:
        getattr(into, field.name).CopyFrom(value)
    else:
        setattr(into, field.name, value)


def _is_outlinable(node: NodeProto, *, only_constants: bool) -> bool:
    """Return whether ``node`` holds graphs, or tensors that need not be copied."""
    graphs = any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute)
    if graphs or only_constants:
        return graphs or constant_tensor(node) is not None
    return any(attribute.HasField("t") or attribute.tensors for attribute in node.attribute)


def byte_size(tensor: TensorProto) -> int | None:
    """Return how many bytes ``tensor``'s shape and dtype need; None for strings.

    Raises:
        ValueError: A dimension is negative, or the dtype is unknown.
    """
    if any(dim < 0 for dim in tensor.dims):
        raise ValueError(f"shape {list(tensor.dims)} has a negative dimension")
    if tensor.data_type == TensorProto.STRING:
        return None
    count: int = math.prod(tensor.dims)
    if (bits := _PACKED_BITS.get(tensor.data_type)) is not None:
        return math.ceil(count * bits / 8)
    try:
        return count * int(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
    except KeyError as error:
        raise ValueError(f"dtype {tensor.data_type} is unknown") from error


def misfit(tensor: TensorProto) -> str:
    """Return what is wrong with the size of the data that ``tensor`` stores, empty where nothing is."""
    needed = byte_size(tensor)
    if tensor.HasField("raw_data"):
        found = len(tensor.raw_data)
        return "" if found == needed else f"it stores {found} bytes, expected {needed}"
    found = sum(len(getattr(tensor, name)) for name in _DATA_FIELDS)
    if tensor.data_type in _PACKED_BITS or tensor.data_type in _COMPLEX:
        return ""  # several fields to a value, or values to a field: the checker and numpy see to them
    count = math.prod(tensor.dims)
    return "" if found == count else f"it stores {found} values, expected {count}"


def replace_values(tensor: TensorProto | AttributeProto, values: NDArray[Any]) -> None:
    """Store ``values`` in ``tensor``, in the field that holds the old ones; everything else stays."""
    if isinstance(tensor, AttributeProto):
        tensor.floats[:] = values.ravel()
    elif tensor.HasField("raw_data"):
        tensor.raw_data = values.astype(values.dtype.newbyteorder("<")).tobytes()
    elif tensor.data_type == TensorProto.FLOAT:
        tensor.float_data[:] = values.ravel()
    elif tensor.data_type == TensorProto.DOUBLE:
        tensor.double_data[:] = values.ravel()
    else:  # half precision stands bit by bit in int32_data
        tensor.int32_data[:] = values.ravel().view(np.uint16).astype(np.int32)


def clear_values(tensor: TensorProto | AttributeProto) -> None:
    """Empty the data of ``tensor``; which field held them can still be told."""
    if isinstance(tensor, AttributeProto):
        del tensor.floats[:]
        return
    if tensor.HasField("raw_data"):
        tensor.raw_data = b""
    for name in _DATA_FIELDS:
        del getattr(tensor, name)[:]
