"""What ONNX can tell about the shapes of a graph's values."""

from __future__ import annotations

import onnx
import onnx.shape_inference
from onnx import GraphProto, ModelProto

from mothkit_converters.tensors import outline


def inferred(model: ModelProto) -> ModelProto:
    """Return a copy of ``model`` with the shapes that can be inferred, or itself where that fails."""
    try:
        told = onnx.shape_inference.infer_shapes(outline(model), data_prop=True).graph
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
        return model
    copy = ModelProto()
    copy.CopyFrom(model)
    for name in ("value_info", "output"):
        copy.graph.ClearField(name)
        getattr(copy.graph, name).extend(getattr(told, name))
    return copy


def outlined(model: ModelProto) -> ModelProto:
    """Return what ``inferred`` does, without the data of large tensors."""
    return inferred(outline(model))


def known_dims(graph: GraphProto) -> dict[str, list[int]]:
    """Return the shapes of the values whose rank is known; 0 stands for an unknown dimension."""
    known = {
        info.name: [dim.dim_value for dim in info.type.tensor_type.shape.dim]
        for info in (*graph.input, *graph.value_info, *graph.output)
        if info.type.tensor_type.HasField("shape")
    }
    return known | {tensor.name: list(tensor.dims) for tensor in graph.initializer}
