"""Products of matrices, with their weights left in ONNX's own layout."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from mothkit_converters.ops.call import operator


@operator("Gemm", 1, 6, 7, 9, 11, 13)
def gemm(
    a: Tensor,
    b: Tensor,
    c: Tensor | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    broadcast: int = 0,  # noqa: ARG001 - says what the shapes say
    transA: int = 0,  # noqa: N803 - ONNX's name
    transB: int = 0,  # noqa: N803 - ONNX's name
) -> Tensor:
    """Return ``alpha`` x ``a`` [N, K] x ``b`` [K, M] + ``beta`` x ``c`` (broadcast to [N, M]).

    Either matrix may be given transposed.
    """
    a, b = (a.T if transA else a), (b.T if transB else b)
    if c is not None and a.is_floating_point():
        return torch.addmm(c, a, b, beta=beta, alpha=alpha)
    product = _times(a @ b, alpha)
    return product if c is None else product + _times(c, beta)


def _times(x: Tensor, factor: float) -> Tensor:
    return x if factor == 1 else (x * factor).to(x.dtype)


@operator("MatMul", 1, 9, 13)
def matmul(a: Tensor, b: Tensor) -> Tensor:
    """Return the product of ``a`` [..., N, K] and ``b`` [..., K, M]; either may be a vector."""
    return a @ b


@operator("Einsum", 12, 28)
def einsum(*terms: Tensor, equation: str) -> Tensor:
    """Return the sum of products of ``terms`` that ``equation`` names."""
    return torch.einsum(re.sub(r"\s", "", equation), *terms)


@operator("Det", 11, 22)
def determinant(x: Tensor) -> Tensor:
    """Return the determinants of ``x`` [..., N, N]."""
    found: Tensor = torch.linalg.det(x)
    return found
