"""ONNX tensors as numpy arrays and back, in the field they were stored in."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE})
HALVES = frozenset({TensorProto.FLOAT16, TensorProto.BFLOAT16})
_PACKED_BITS: dict[int, int] = {
    TensorProto.INT4: 4,
    TensorProto.UINT4: 4,
    TensorProto.FLOAT4E2M1: 4,
}
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


def weight_tensors(graph: GraphProto) -> dict[str, TensorProto]:
    """Return the tensors that a graph stores, by name: initializers, then Constant nodes by their output."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if (tensor := constant_tensor(node)) is not None:
            tensors.setdefault(node.output[0], tensor)
    return tensors


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


def replace_values(tensor: TensorProto, values: NDArray[Any]) -> None:
    """Store ``values`` in ``tensor``, in the field that holds the old ones; everything else stays."""
    if tensor.HasField("raw_data"):
        tensor.raw_data = values.astype(values.dtype.newbyteorder("<")).tobytes()
    elif tensor.data_type == TensorProto.FLOAT:
        tensor.float_data[:] = values.ravel()
    elif tensor.data_type == TensorProto.DOUBLE:
        tensor.double_data[:] = values.ravel()
    else:  # half precision stands bit by bit in int32_data
        tensor.int32_data[:] = values.ravel().view(np.uint16).astype(np.int32)


def clear_values(tensor: TensorProto) -> None:
    """Empty the data of ``tensor``; which field held them can still be told."""
    if tensor.HasField("raw_data"):
        tensor.raw_data = b""
    for name in _DATA_FIELDS:
        del getattr(tensor, name)[:]
