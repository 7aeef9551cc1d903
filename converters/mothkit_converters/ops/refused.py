"""Operators that onnx2torch takes and gets wrong without a word. Each is refused until one of ours serves it."""

from __future__ import annotations

from onnx2torch.onnx_graph import OnnxGraph
from onnx2torch.onnx_node import OnnxNode
from onnx2torch.utils.common import OperationConverterResult

from mothkit_converters.errors import UnsupportedOpError
from mothkit_converters.ops.registry import converter_of, serve

_conv_transpose = converter_of("ConvTranspose", 11)


@serve("CumSum", 11, 14)  # sums along the wrong axis, and widens integers
@serve("NonMaxSuppression", 10, 11)  # takes flipped corners for empty boxes
@serve("NonZero", 13)  # returns the transpose
def _refuse(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:  # noqa: ARG001
    raise UnsupportedOpError(node.operation_type, node.name, "onnx2torch computes something else")


@serve("ConvTranspose", 1, 11, 22)
def _checked_conv_transpose(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    if node.attributes.get("output_shape"):  # passed over by onnx2torch
        raise UnsupportedOpError("ConvTranspose", node.name, "it fixes its output_shape")
    return _conv_transpose(node, graph)
