"""Arithmetic that the file alone decides: done once, before the module is built.

Only what comes from stored integers and truths is folded, and from dimensions that no batch changes. A stored
float may be a weight; an operator on it stays, so that the tie to the weight holds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from mothkit_converters.batches import any_batch
from mothkit_converters.shapes import inferred, known_dims
from mothkit_converters.tensors import array_of

Array = NDArray[Any]

LARGEST = 1 << 16  # elements that a folded tensor may have
_KINDS = frozenset({TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL, TensorProto.UINT8})
_SHAPING = frozenset(
    {"Gather", "Identity", "Reshape", "Shape", "Size", "Slice", "Split", "Squeeze", "Transpose"}
)
_COMPARING = frozenset(
    {"And", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not", "Or", "Xor"}
)
_COUNTING = frozenset({"Abs", "Add", "Div", "Max", "Min", "Mod", "Mul", "Neg", "Pow", "Sub"})
_ROUNDING = frozenset({"Cast", "Ceil", "Floor", "Sqrt"})
_REDUCING = frozenset({"ReduceMax", "ReduceMin", "ReduceProd", "ReduceSum"})
_FOLDED = _SHAPING | _COMPARING | _COUNTING | _ROUNDING | _REDUCING | {"Unsqueeze", "Where"}
_GROWING: Mapping[str, Callable[..., float]] = MappingProxyType(
    {
        "ConstantOfShape": lambda shape: math.prod(shape.ravel().tolist()),
        "Expand": lambda x, shape: x.size * math.prod(shape.ravel().tolist()),
        "Range": lambda start, limit, delta: abs(limit - start) / max(abs(delta), 1e-9),
        "Tile": lambda x, repeats: x.size * math.prod(repeats.ravel().tolist()),
    }
)


def fold(model: ModelProto) -> set[str]:
    """Turn nodes of ``model`` that only the file decides into initializers, in place; return their names."""
    graph = model.graph
    known = {
        tensor.name: array_of(tensor)
        for tensor in graph.initializer
        if tensor.data_type in _KINDS and math.prod(tensor.dims) <= LARGEST
    }
    dims = known_dims(inferred(any_batch(model)).graph)
    partial: dict[str, list[int | None]] = {}
    kept: list[NodeProto] = []
    folded: set[str] = set()
    for node in graph.node:
        if node.op_type == "Shape" and node.input[0] in dims:
            partial[node.output[0]] = _shape(node, dims)
        values = _values(model, node, known, partial)
        if values is None:
            kept.append(node)
            continue
        made = {name: value for name, value in zip(node.output, values, strict=True) if name}
        known |= made
        folded |= made.keys()
        graph.initializer.extend(numpy_helper.from_array(np.asarray(v), name) for name, v in made.items())
    del graph.node[:]
    graph.node.extend(kept)
    return folded


def _shape(node: NodeProto, dims: Mapping[str, list[int]]) -> list[int | None]:
    """Return the dimensions that no batch changes, None for others."""
    full: list[int | None] = [dim or None for dim in dims[node.input[0]]]
    if full:
        full[0] = None
    given = {attribute.name: attribute.i for attribute in node.attribute}
    return full[slice(given.get("start"), given.get("end"))]


def _values(
    model: ModelProto, node: NodeProto, known: Mapping[str, Array], partial: Mapping[str, list[int | None]]
) -> list[Array] | None:
    """Return what ``node`` makes, None where the file alone does not decide it."""
    if node.domain not in ("", "ai.onnx"):
        return None
    if node.op_type in ("Gather", "Slice") and node.input[0] in partial:
        known = {**known, node.input[0]: _filled(partial[node.input[0]])}
    names = [name for name in node.input if name]
    if not names or any(name not in known for name in names):
        return None
    if not _small(node, [known[name] for name in names]):
        return None
    try:
        values = _evaluate(model, node, {name: known[name] for name in names})
    except Exception:  # whatever the reference stumbles over; the operator's own converter will say it
        return None
    return None if any((np.asarray(value) == _UNKNOWN).any() for value in values) else values


_UNKNOWN = -(2**62) - 12345  # stands for a dimension that is not known, as no dimension does


def _filled(shape: list[int | None]) -> Array:
    return np.array([_UNKNOWN if dim is None else dim for dim in shape], dtype=np.int64)


def _small(node: NodeProto, inputs: list[Array]) -> bool:
    """Return whether ``node`` is one to fold, and what it makes is bounded."""
    if (grown := _GROWING.get(node.op_type)) is not None:
        return grown(*inputs) <= LARGEST
    if node.op_type == "Concat":
        return sum(x.size for x in inputs) <= LARGEST
    return node.op_type in _FOLDED and math.prod(max(x.size, 1) for x in inputs) <= LARGEST


def _evaluate(model: ModelProto, node: NodeProto, inputs: Mapping[str, Array]) -> list[Array]:
    """Return what ONNX's reference makes of ``node``; nothing where it cannot run it."""
    infos = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in inputs.items()
    ]
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
    graph = helper.make_graph([node], "one", infos, outputs)
    alone = helper.make_model(graph, opset_imports=model.opset_import)
    with np.errstate(all="ignore"):
        found = ReferenceEvaluator(alone).run(None, dict(inputs))
    return list(found)
