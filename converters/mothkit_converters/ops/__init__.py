"""Operators that onnx2torch lacks or gets wrong, one family per file.

Importing this package adds the lacking ones to onnx2torch; ours in place of its own hold only inside
``overrides()``.
"""

from mothkit_converters.ops import (
    activations,
    attention,
    call,
    control,
    convolution,
    dense,
    dropout,
    elementwise,
    filling,
    indexing,
    layout,
    normalization,
    pooling,
    quantized,
    recurrent,
    reduction,
    refused,
    reshape,
    sampling,
    sizes,
    versions,
)
from mothkit_converters.ops.registry import find_converter, overrides

__all__ = [
    "activations",
    "attention",
    "call",
    "control",
    "convolution",
    "dense",
    "dropout",
    "elementwise",
    "filling",
    "find_converter",
    "indexing",
    "layout",
    "normalization",
    "overrides",
    "pooling",
    "quantized",
    "recurrent",
    "reduction",
    "refused",
    "reshape",
    "sampling",
    "sizes",
    "versions",
]
