"""What ONNX can tell about the shapes of a graph's values."""

from __future__ import annotations

from collections.abc import Collection

import onnx
import onnx.shape_inference
from onnx import GraphProto, ModelProto

from mothkit_converters.tensors import outline

_GROWING = frozenset({"ConstantOfShape", "Expand", "Pad", "Range", "Reshape", "Resize", "Tile", "Upsample"})
_CUT = "\x1fcut"  # after the name of a value that nothing reads for the time being
_LINES = 2**19  # numbers in tensors of one dimension, up to which what a shape tensor holds is followed


def inferred(model: ModelProto) -> ModelProto:
    """Return an outline of ``model``, without weights, with the shapes that can be inferred.

    Where tensors are long lines of numbers, shapes that the graph computes stay unknown: ONNX would keep an entry
    of 140 bytes for each of these numbers.
    """
    known = outline(model)
    plain = _infer(known, data_prop=False)
    if _lines(plain.graph) > _LINES:
        return plain
    unsure = _unsure(plain.graph)
    while unsure:  # what follows them waits until their length is known
        found = _infer(_cut(known, unsure, plain.graph), data_prop=True)
        if _lines(found.graph) > _LINES:
            return plain
        left = _unsure(found.graph, unsure)
        if left == unsure:
            _take_infos(known.graph, found.graph)
            return known
        unsure = left
    return _infer(known, data_prop=True)


def _lines(graph: GraphProto) -> int:
    """Return how many numbers the tensors of one dimension hold together."""
    return sum(dims[0] for dims in known_dims(graph).values() if len(dims) == 1)


def _unsure(graph: GraphProto, among: Collection[str] | None = None) -> set[str]:
    """Return values that may be lines of any length, of those that make tensors as large as they are told to."""
    dims = known_dims(graph)
    growing = (name for node in graph.node if node.op_type in _GROWING for name in node.output)
    names = growing if among is None else among
    return {name for name in names if dims.get(name + _CUT, dims.get(name, [0])) == [0]}


def _cut(model: ModelProto, names: Collection[str], plain: GraphProto) -> ModelProto:
    """Return a copy of ``model`` in which nodes that read these values know of them what ``plain`` does."""
    cut = ModelProto()
    cut.CopyFrom(model)
    for node in cut.graph.node:
        node.output[:] = [name + _CUT if name in names else name for name in node.output]
    cut.graph.input.extend(info for info in plain.value_info if info.name in names)
    return cut


def _take_infos(into: GraphProto, known: GraphProto) -> None:
    for name in ("value_info", "output"):
        into.ClearField(name)
        getattr(into, name).extend(getattr(known, name))
        for info in getattr(into, name):
            info.name = info.name.removesuffix(_CUT)


def _infer(model: ModelProto, *, data_prop: bool) -> ModelProto:
    try:
        return onnx.shape_inference.infer_shapes(model, data_prop=data_prop)
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
        return model


def add_shapes(model: ModelProto) -> None:
    """Enter the shapes that can be inferred in ``model`` itself."""
    _take_infos(model.graph, inferred(model).graph)


def known_dims(graph: GraphProto) -> dict[str, list[int]]:
    """Return the shapes of the values whose rank is known; 0 stands for an unknown dimension."""
    known = {
        info.name: [dim.dim_value for dim in info.type.tensor_type.shape.dim]
        for info in (*graph.input, *graph.value_info, *graph.output)
        if info.type.tensor_type.HasField("shape")
    }
    return known | {tensor.name: list(tensor.dims) for tensor in graph.initializer}
