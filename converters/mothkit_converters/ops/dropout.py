"""Dropout: active in torch's train mode, never in eval mode."""

from __future__ import annotations

import torch
from onnx2torch.onnx_graph import OnnxGraph
from onnx2torch.onnx_node import OnnxNode
from onnx2torch.utils.common import OnnxMapping, OperationConverterResult
from torch import Tensor, nn
from torch.nn import functional

from mothkit_converters.errors import UnsupportedOpError
from mothkit_converters.ops.registry import serve

_RANDOM = "training_mode is true, so its output is random"


class Dropout(nn.Module):
    """Drops a share of what it is given in train mode, and passes all on in eval mode."""

    def __init__(self, name: str, ratio: float | None, *, masked: bool) -> None:
        super().__init__()
        self.name, self.ratio, self.masked = name, ratio, masked

    def forward(
        self, x: Tensor, ratio: Tensor | None = None, training_mode: Tensor | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return ``x``, and where asked for what was kept of it; ``ratio`` counts if none was fixed.

        Raises:
            UnsupportedOpError: ``training_mode`` is true, and something is to be dropped.
        """
        asked = training_mode is not None and bool(training_mode)
        share = self._share(ratio) if asked or self.training else 0.0
        if asked and share:
            raise UnsupportedOpError("Dropout", self.name, _RANDOM)
        if not self.masked:
            return functional.dropout(x, share, self.training)
        kept = torch.rand_like(x) >= share if share else torch.ones_like(x, dtype=torch.bool)
        return torch.where(kept, x / (1 - share), 0) if share else x, kept

    def _share(self, ratio: Tensor | None) -> float:
        return float(ratio) if self.ratio is None and ratio is not None else self.ratio or 0.0


@serve("Dropout", 1, 6)
def _old_dropout(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:  # noqa: ARG001
    if not node.attributes.get("is_test", 0) and node.attributes.get("ratio", 0.5):
        raise UnsupportedOpError("Dropout", node.name, "is_test is 0, so its output is random")
    return _inference(node)


@serve("Dropout", 7, 10)
def _dropout_7(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:  # noqa: ARG001
    return _inference(node)


def _inference(node: OnnxNode) -> OperationConverterResult:
    """Return what a version serves that knows no other mode, and does not say what its mask then holds."""
    if len(node.output_values) > 1:
        raise UnsupportedOpError("Dropout", node.name, f"its output '{node.output_values[1]}' is used")
    module = Dropout(node.name, node.attributes.get("ratio", 0.5), masked=False)
    return OperationConverterResult(module, OnnxMapping(node.input_values[:1], node.output_values))


@serve("Dropout", 12, 13, 22)
def _dropout_12(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    x, ratio, training_mode = (*node.input_values, "", "")[:3]
    share = float(graph.initializers[ratio].to_numpy().item()) if ratio in graph.initializers else None
    if not ratio:
        share = 0.5
    if training_mode in graph.initializers:
        if graph.initializers[training_mode].to_numpy().item() and share != 0:
            raise UnsupportedOpError("Dropout", node.name, _RANDOM)
        training_mode = ""
    passed = (x, ratio if share is None else "", training_mode)
    module = Dropout(node.name, share, masked=len(node.output_values) > 1)
    return OperationConverterResult(module, OnnxMapping(passed, node.output_values))
