"""What ONNX can tell about the shapes of a graph's values."""

from __future__ import annotations

import onnx
import onnx.shape_inference
from onnx import GraphProto, ModelProto

from mothkit_converters.tensors import outline

_LINES = 2**19  # numbers in tensors of one dimension, up to which what a shape tensor holds is followed


def inferred(model: ModelProto) -> ModelProto:
    """Return an outline of ``model``, without weights, with the shapes that can be inferred.

    Where tensors are long lines of numbers, shapes that the graph computes stay unknown: ONNX would keep an entry
    of 140 bytes for each of these numbers.
    """
    known = outline(model)
    plain = _infer(known, data_prop=False)
    lines = sum(dims[0] for dims in known_dims(plain.graph).values() if len(dims) == 1)
    return plain if lines > _LINES else _infer(known, data_prop=True)


def _infer(model: ModelProto, *, data_prop: bool) -> ModelProto:
    try:
        return onnx.shape_inference.infer_shapes(model, data_prop=data_prop)
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
        return model


def add_shapes(model: ModelProto) -> None:
    """Enter the shapes that can be inferred in ``model`` itself."""
    known = inferred(model).graph
    for name in ("value_info", "output"):
        model.graph.ClearField(name)
        getattr(model.graph, name).extend(getattr(known, name))


def known_dims(graph: GraphProto) -> dict[str, list[int]]:
    """Return the shapes of the values whose rank is known; 0 stands for an unknown dimension."""
    known = {
        info.name: [dim.dim_value for dim in info.type.tensor_type.shape.dim]
        for info in (*graph.input, *graph.value_info, *graph.output)
        if info.type.tensor_type.HasField("shape")
    }
    return known | {tensor.name: list(tensor.dims) for tensor in graph.initializer}
