"""Dropout: active in torch's train mode, never in eval mode."""

from __future__ import annotations

from onnx2torch.onnx_graph import OnnxGraph
from onnx2torch.onnx_node import OnnxNode
from onnx2torch.utils.common import OnnxMapping, OperationConverterResult, get_const_value
from torch import nn

from mothkit_converters.errors import UnsupportedOpError
from mothkit_converters.ops.registry import serve


def _constant(node: OnnxNode, graph: OnnxGraph, index: int, default: float) -> float:
    """Return the constant at input ``index``, ``default`` where the node has no such input."""
    name = node.input_values[index] if len(node.input_values) > index else ""
    if not name:
        return default
    try:
        return float(get_const_value(name, graph))
    except KeyError as error:
        raise UnsupportedOpError("Dropout", node.name, f"'{name}' is not constant") from error


@serve("Dropout", 7, 10, 12, 13, 22)  # onnx2torch's own needs the ratio as a tensor, and lacks 7 and 22
def _dropout(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    if _constant(node, graph, 2, default=0.0):
        raise UnsupportedOpError("Dropout", node.name, "training_mode is true, so its output is random")
    ratio = _constant(node, graph, 1, default=node.attributes.get("ratio", 0.5))
    return OperationConverterResult(nn.Dropout(ratio), OnnxMapping(node.input_values[:1], node.output_values))
