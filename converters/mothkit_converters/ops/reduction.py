"""ReduceMean whose axes are an input."""

from __future__ import annotations

from collections.abc import Sequence

from onnx2torch.onnx_graph import OnnxGraph
from onnx2torch.onnx_node import OnnxNode
from onnx2torch.utils.common import OnnxMapping, OperationConverterResult, get_const_value
from torch import Tensor, nn

from mothkit_converters.errors import UnsupportedOpError
from mothkit_converters.ops.registry import serve


class ReduceMean(nn.Module):
    """Mean over some axes; over all of them where none is named."""

    def __init__(self, axes: Sequence[int], *, keep_dims: bool) -> None:
        super().__init__()
        self.axes, self.keep_dims = tuple(axes), keep_dims

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean of ``x``."""
        return x.mean(dim=self.axes or tuple(range(x.dim())), keepdim=self.keep_dims)


@serve("ReduceMean", 18)
def _reduce_mean(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    axes: Sequence[int] = ()
    if len(node.input_values) > 1 and node.input_values[1]:
        try:
            axes = get_const_value(node.input_values[1], graph).tolist()
        except KeyError as error:
            raise UnsupportedOpError("ReduceMean", node.name, "its axes are not constant") from error
    if not axes and node.attributes.get("noop_with_empty_axes", 0):
        module: nn.Module = nn.Identity()
    else:
        module = ReduceMean(axes, keep_dims=bool(node.attributes.get("keepdims", 1)))
    return OperationConverterResult(module, OnnxMapping(node.input_values[:1], node.output_values))
