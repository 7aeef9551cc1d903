"""Gemm, with its weights left in ONNX's own layout."""

from __future__ import annotations

import torch
from onnx2torch.onnx_graph import OnnxGraph
from onnx2torch.onnx_node import OnnxNode
from onnx2torch.utils.common import OperationConverterResult, onnx_mapping_from_node
from torch import Tensor, nn

from mothkit_converters.ops.registry import serve


class Gemm(nn.Module):
    """A product of matrices and a bias, each scaled; either matrix may be given transposed."""

    def __init__(self, *, alpha: float, beta: float, trans_a: bool, trans_b: bool) -> None:
        super().__init__()
        self.alpha, self.beta = alpha, beta
        self.trans_a, self.trans_b = trans_a, trans_b

    def forward(self, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
        """Return ``alpha`` x ``a`` [N, K] x ``b`` [K, M] + ``beta`` x ``c`` (broadcast to [N, M])."""
        a, b = (a.T if self.trans_a else a), (b.T if self.trans_b else b)
        if c is None:
            return self.alpha * (a @ b)
        return torch.addmm(c, a, b, beta=self.beta, alpha=self.alpha)


@serve(
    "Gemm", 7, 9, 11, 13
)  # onnx2torch multiplies alpha into a transposed copy, which is then no initializer
def _gemm(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:  # noqa: ARG001
    given = node.attributes
    module = Gemm(
        alpha=given.get("alpha", 1.0),
        beta=given.get("beta", 1.0),
        trans_a=bool(given.get("transA", 0)),
        trans_b=bool(given.get("transB", 0)),
    )
    return OperationConverterResult(module, onnx_mapping_from_node(node))
