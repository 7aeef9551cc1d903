"""BatchNormalization for inputs of any rank, also where the rank is not known beforehand."""

from __future__ import annotations

from onnx2torch.onnx_graph import OnnxGraph
from onnx2torch.onnx_node import OnnxNode
from onnx2torch.utils.common import OnnxMapping, OperationConverterResult
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from mothkit_converters.errors import UnsupportedOpError
from mothkit_converters.ops.registry import serve

_TENSORS = ("weight", "bias", "running_mean", "running_var")


class BatchNorm(_BatchNorm):
    """Batch normalisation of [N, C, ...]; in train mode it follows the batch, as torch's own does."""

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002 - torch's name
        """Take every rank: the graph was checked."""


@serve("BatchNormalization", 9, 14, 15)  # onnx2torch's own needs the rank, and is blind to training_mode
def _batch_norm(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    if node.attributes.get("training_mode", 0):
        raise UnsupportedOpError("BatchNormalization", node.name, "training_mode is 1, expected 0")
    if missing := [name for name in node.input_values[1:] if name not in graph.initializers]:
        raise UnsupportedOpError("BatchNormalization", node.name, f"'{missing[0]}' is computed, not stored")
    module = BatchNorm(
        num_features=graph.initializers[node.input_values[1]].to_numpy().size,
        eps=node.attributes.get("epsilon", 1e-5),
        momentum=1 - node.attributes.get("momentum", 0.9),  # ONNX keeps this share, torch replaces it
    )
    for attribute, name in zip(_TENSORS, node.input_values[1:], strict=True):
        getattr(module, attribute).data = graph.initializers[name].to_torch()
    return OperationConverterResult(module, OnnxMapping(node.input_values[:1], node.output_values))
