"""What ONNX can tell about the shapes of a graph's values."""

from __future__ import annotations

import onnx
import onnx.shape_inference
from onnx import GraphProto, ModelProto

from mothkit_converters.tensors import outline


def inferred(model: ModelProto) -> ModelProto:
    """Return an outline of ``model``, without weights, with the shapes that can be inferred."""
    known = outline(model)
    try:
        return onnx.shape_inference.infer_shapes(known, data_prop=True)
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
        return known


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
