"""GlobalAveragePool, and the AveragePool versions that add dilations."""

from __future__ import annotations

from onnx2torch.onnx_graph import OnnxGraph
from onnx2torch.onnx_node import OnnxNode
from onnx2torch.utils.common import OperationConverterResult, onnx_mapping_from_node
from torch import Tensor, nn

from mothkit_converters.errors import UnsupportedOpError
from mothkit_converters.ops.registry import converter_of, serve

_average_pool = converter_of("AveragePool", 11)


class GlobalAveragePool(nn.Module):
    """One mean per image and channel."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the means of ``x`` [N, C, ...] as [N, C, 1, ...]."""
        return x.mean(dim=tuple(range(2, x.dim())), keepdim=True)


@serve("GlobalAveragePool", 1, 22)  # onnx2torch averages the batch too where the rank is unknown
def _global_average_pool(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:  # noqa: ARG001
    return OperationConverterResult(GlobalAveragePool(), onnx_mapping_from_node(node))


@serve("AveragePool", 19, 22)  # as version 11, but for dilations and the divisor of ceil_mode's last window
def _average_pool_19(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    if any(dilation != 1 for dilation in node.attributes.get("dilations", ())):
        raise UnsupportedOpError("AveragePool", node.name, "it has dilations")
    if node.attributes.get("ceil_mode", 0):
        raise UnsupportedOpError("AveragePool", node.name, "ceil_mode is 1")
    return _average_pool(node, graph)
