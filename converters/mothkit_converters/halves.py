"""Half precision: computed and trained in float32, given back as the file declares it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
from onnx import AttributeProto, GraphProto, TensorProto, numpy_helper

from mothkit_converters.scopes import all_nodes
from mothkit_converters.shapes import inferred
from mothkit_converters.source import Source
from mothkit_converters.tensors import HALVES, array_of, is_outlined, weight_tensors

_TYPE_ATTRIBUTES = frozenset({"to", "dtype", "output_dtype", "softmax_precision"})
_TORCH: Mapping[int, torch.dtype] = MappingProxyType(
    {TensorProto.FLOAT16: torch.float16, TensorProto.BFLOAT16: torch.bfloat16}
)


def has_halves(source: Source) -> bool:
    """Return whether ``source`` stores, takes or computes anything in half precision."""
    graph = source.proto.graph
    kinds = {tensor.data_type for tensor in weight_tensors(graph).values()}
    kinds |= {info.type.tensor_type.elem_type for info in (*graph.input, *graph.output)}
    kinds |= {
        attribute.i for node in all_nodes(graph) for attribute in node.attribute if attribute.name == "to"
    }
    return not HALVES.isdisjoint(kinds)


def declared_halves(source: Source, values: Sequence[str]) -> dict[str, torch.dtype]:
    """Return the dtype of those of ``values`` that ``source`` has in half precision."""
    infos = {info.name: info for info in (*source.proto.graph.input, *source.proto.graph.output)}
    if any(name not in infos for name in values):
        known = inferred(source.proto).graph
        infos |= {info.name: info for info in known.value_info}
    types = {name: infos[name].type.tensor_type.elem_type for name in values if name in infos}
    return {name: _TORCH[kind] for name, kind in types.items() if kind in _TORCH}


def widen(graph: GraphProto) -> None:
    """Compute in float32 what ``graph`` computes in half precision, also in its branches and loops."""
    for tensor in graph.initializer:
        _widen(tensor)
    for info in (*graph.input, *graph.output, *graph.value_info):
        if info.type.tensor_type.elem_type in HALVES:
            info.type.tensor_type.elem_type = TensorProto.FLOAT
    for node in graph.node:
        for attribute in node.attribute:
            _widen_attribute(attribute)


def _widen_attribute(attribute: AttributeProto) -> None:
    if attribute.name in _TYPE_ATTRIBUTES and attribute.i in HALVES:
        attribute.i = TensorProto.FLOAT
    if attribute.HasField("t"):
        _widen(attribute.t)
    if attribute.HasField("g"):
        widen(attribute.g)


def _widen(tensor: TensorProto) -> None:
    if tensor.data_type not in HALVES:
        return
    if is_outlined(tensor):
        tensor.data_type = TensorProto.FLOAT
    else:
        tensor.CopyFrom(numpy_helper.from_array(array_of(tensor).astype("f4"), tensor.name))
