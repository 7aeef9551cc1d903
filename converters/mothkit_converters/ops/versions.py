"""Schema versions newer than onnx2torch that widen an operator's types and change nothing else."""

from __future__ import annotations

from mothkit_converters.ops.registry import same_meaning

same_meaning("InstanceNormalization", 22, as_of=6)
