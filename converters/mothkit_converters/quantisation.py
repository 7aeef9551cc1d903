"""Quantised graphs: what of them holds gradients, and which weights are integers alone.

A value that was rounded to integers is kept as a float where only quantised arithmetic reads it. Rounding then
passes gradients on as if it were not there, inside the range that the integers have.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Mapping
from types import MappingProxyType

from onnx import GraphProto, NodeProto, TensorProto

from mothkit_converters.scopes import inner_graphs, read_by
from mothkit_converters.tensors import FLOATS

_DATA: Mapping[str, Collection[int]] = MappingProxyType(
    {
        "ConvInteger": (0, 1),
        "DequantizeLinear": (0,),
        "DynamicQuantizeMatMul": (1,),
        "MatMulInteger": (0, 1),
        "MatMulIntegerToFloat": (0, 1),
        "QGemm": (0, 3, 6),
        "QLinearAdd": (0, 3),
        "QLinearAveragePool": (0,),
        "QLinearConcat": range(2, 1000, 3),
        "QLinearConv": (0, 3, 8),
        "QLinearGlobalAveragePool": (0,),
        "QLinearLeakyRelu": (0,),
        "QLinearMatMul": (0, 3),
        "QLinearMul": (0, 3),
        "QLinearSigmoid": (0,),
        "QLinearSoftmax": (0,),
        "QLinearWhere": (1, 4),
    }
)
"""Which inputs of an operator hold quantised numbers, rather than scales and zero points."""
_TO_FLOAT = frozenset({"DequantizeLinear", "DynamicQuantizeMatMul", "MatMulIntegerToFloat"})
_ROUNDING = frozenset({"QuantizeLinear", "DynamicQuantizeLinear", *_DATA}) - _TO_FLOAT
_MOVING = frozenset(
    {"Flatten", "Identity", "MaxPool", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"}
)
_PICKING = frozenset({"Concat", "Expand", "Gather", "Split", "Tile"})
_NARROW = frozenset(
    {TensorProto.INT8, TensorProto.INT4, TensorProto.UINT4, TensorProto.INT2, TensorProto.UINT2}
)

SCALES: Mapping[str, Collection[int]] = MappingProxyType(
    {
        **dict.fromkeys((op for op in _DATA if op.startswith("Q")), range(1000)),
        "DequantizeLinear": (1,),
        "DynamicQuantizeMatMul": (2,),
        "MatMulIntegerToFloat": (2, 3),
        "QuantizeLinear": (1,),
    }
)
"""Which float inputs of an operator say how numbers were quantised."""


def carried(graph: GraphProto) -> frozenset[str]:
    """Return the integers of ``graph`` that can be floats, because only quantised arithmetic reads them."""
    if not any(map(_rounds, graph.node)):
        return frozenset()
    barred = {info.name for info in graph.output}
    uses: dict[str, list[tuple[NodeProto, int]]] = defaultdict(list)
    for node in graph.node:
        if any(True for _ in inner_graphs(node)):
            barred |= read_by(node)
        for place, name in enumerate(node.input):
            uses[name].append((node, place))
    good: set[str] = set()
    for node in reversed(graph.node):
        name = next(iter(node.output), "")
        if name not in barred and all(_takes_floats(*use, good) for use in uses[name]):
            good.add(name)
    return frozenset(node.output[0] for node in graph.node if _rounds(node) and node.output[0] in good)


def _rounds(node: NodeProto) -> bool:
    """Return whether the first output of ``node`` holds integers that were rounded, or sums of such."""
    floats = node.op_type == "QGemm" and len(node.input) < 8
    return node.op_type in _ROUNDING and not floats


def _takes_floats(node: NodeProto, place: int, good: Collection[str]) -> bool:
    if node.op_type == "Cast":
        return any(attribute.name == "to" and attribute.i in FLOATS for attribute in node.attribute)
    if node.op_type in _MOVING:
        return place == 0 and len(node.output) == 1 and node.output[0] in good
    return place in _DATA.get(node.op_type, ())


def cut_off(graph: GraphProto) -> set[str]:
    """Return the initializers of ``graph`` that no gradient reaches, because integers stand in between."""
    floats = carried(graph)
    if all(not _rounds(node) or node.output[0] in floats for node in graph.node):
        return set()
    reached = {info.name for info in graph.output}
    for node in reversed(graph.node):
        if reached.intersection(node.output) and (not _rounds(node) or node.output[0] in floats):
            reached |= read_by(node)
    return {tensor.name for tensor in graph.initializer} - reached


def integer_weights(graph: GraphProto) -> list[str]:
    """Return the weights of ``graph`` that were stored as integers, so that no float stands behind them."""
    stored = {
        tensor.name: tensor
        for tensor in graph.initializer
        if tensor.data_type not in FLOATS and math.prod(tensor.dims) > 1
    }
    found: dict[str, None] = {}
    for node in graph.node:
        if node.op_type in _MOVING | _PICKING and node.input[0] in stored:
            stored[node.output[0]] = stored[node.input[0]]
        names = [name for place, name in enumerate(node.input) if place in _DATA.get(node.op_type, ())]
        for inner in inner_graphs(node):
            names += _read_within(inner)
        if node.op_type == "Cast" and stored.get(node.input[0], TensorProto()).data_type in _NARROW:
            names.append(node.input[0])
        found.update(dict.fromkeys(stored[name].name for name in names if name in stored))
    return list(found)


def _read_within(graph: GraphProto) -> list[str]:
    """Return what the quantised arithmetic of a graph within another reads."""
    return [
        name
        for node in graph.node
        for place, name in enumerate(node.input)
        if place in _DATA.get(node.op_type, ())
    ]
