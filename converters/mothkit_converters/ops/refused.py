"""Operators that onnx2torch takes and gets wrong without a word. Each is refused until one of ours serves it."""

from __future__ import annotations

from onnx2torch.onnx_graph import OnnxGraph
from onnx2torch.onnx_node import OnnxNode
from onnx2torch.utils.common import OperationConverterResult

from mothkit_converters.errors import UnsupportedOpError
from mothkit_converters.ops.registry import serve


def _refuse(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:  # noqa: ARG001
    raise UnsupportedOpError(node.operation_type, node.name, "onnx2torch computes something else")
