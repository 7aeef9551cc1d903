"""Reshape to a shape that the file fixes, without asking a tensor on each call."""

from __future__ import annotations

from collections.abc import Sequence

from onnx2torch.onnx_graph import OnnxGraph
from onnx2torch.onnx_node import OnnxNode
from onnx2torch.utils.common import (
    OnnxMapping,
    OperationConverterResult,
    get_const_value,
    onnx_mapping_from_node,
)
from torch import Tensor, nn

from mothkit_converters.errors import BatchError
from mothkit_converters.ops.registry import serve


class Reshape(nn.Module):
    """A fixed shape; one dimension may be -1, and 0 copies the input's own unless ``allow_zero``."""

    def __init__(self, name: str, shape: Sequence[int], *, allow_zero: bool) -> None:
        super().__init__()
        self.name, self.shape, self.allow_zero = name, tuple(shape), allow_zero

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` in the fixed shape."""
        shape = self.shape if self.allow_zero else _copy_zeros(self.shape, x)
        try:
            return x.reshape(shape)
        except RuntimeError as error:
            raise BatchError(
                f"Reshape '{self.name}' makes {list(shape)}, and got {list(x.shape)}: the file fixes the "
                "batch size. Call with that batch size, or export the model with a dynamic one"
            ) from error


class DynamicReshape(nn.Module):
    """A shape that is computed."""

    def __init__(self, *, allow_zero: bool) -> None:
        super().__init__()
        self.allow_zero = allow_zero

    def forward(self, x: Tensor, shape: Tensor) -> Tensor:
        """Return ``x`` in the shape that ``shape`` [rank] holds."""
        dims = shape.tolist()
        return x.reshape(dims if self.allow_zero else _copy_zeros(dims, x))


def _copy_zeros(shape: Sequence[int], x: Tensor) -> list[int]:
    return [x.shape[i] if dim == 0 else dim for i, dim in enumerate(shape)]


@serve(
    "Reshape", 5, 13, 14, 19, 21, 23, 24, 25
)  # the versions differ in the types they take; 14 adds allowzero
def _reshape(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    allow_zero = bool(node.attributes.get("allowzero", 0))
    try:
        shape = get_const_value(node.input_values[1], graph).tolist()
    except KeyError:
        return OperationConverterResult(DynamicReshape(allow_zero=allow_zero), onnx_mapping_from_node(node))
    module = Reshape(node.name, shape, allow_zero=allow_zero)
    return OperationConverterResult(module, OnnxMapping(node.input_values[:1], node.output_values))
