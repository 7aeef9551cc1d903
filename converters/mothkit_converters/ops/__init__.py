"""Operators that onnx2torch lacks or gets wrong, one family per file.

Importing this package adds the lacking ones to onnx2torch; ours in place of its own hold only inside
``overrides()``.
"""

from mothkit_converters.ops import (
    dense,
    dropout,
    layout,
    normalization,
    pooling,
    reduction,
    refused,
    reshape,
    versions,
)
from mothkit_converters.ops.registry import find_converter, overrides

__all__ = [
    "dense",
    "dropout",
    "find_converter",
    "layout",
    "normalization",
    "overrides",
    "pooling",
    "reduction",
    "refused",
    "reshape",
    "versions",
]
