"""Operators whose output is random: no weights could be checked against such a graph."""

from __future__ import annotations

from onnx2torch.onnx_graph import OnnxGraph
from onnx2torch.onnx_node import OnnxNode
from onnx2torch.utils.common import OperationConverterResult

from mothkit_converters.errors import UnsupportedOpError
from mothkit_converters.ops.registry import serve


@serve("Bernoulli", 15, 22)
@serve("Multinomial", 7, 22)
@serve("RandomNormal", 1, 22)
@serve("RandomNormalLike", 1, 22)
@serve("RandomUniform", 1, 22)
@serve("RandomUniformLike", 1, 22)
def _refuse(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:  # noqa: ARG001
    raise UnsupportedOpError(node.operation_type, node.name, "its output is random")
