"""Schema versions newer than onnx2torch that widen an operator's types and change nothing else."""

from __future__ import annotations

from mothkit_converters.ops.registry import same_meaning

same_meaning("Cast", 19, 21, 23, 24, 25, as_of=13)  # what they add concerns 8-bit floats, which are refused
same_meaning("ConstantOfShape", 20, 21, 23, 24, 25, as_of=9)
same_meaning("Conv", 22, as_of=11)
same_meaning("Elu", 22, as_of=6)
same_meaning("Equal", 19, as_of=13)
same_meaning("Flatten", 21, 23, 24, 25, as_of=13)
same_meaning("HardSigmoid", 22, as_of=6)
same_meaning("HardSwish", 22, as_of=14)
same_meaning("Identity", 19, 21, 23, 24, 25, as_of=16)
same_meaning("InstanceNormalization", 22, as_of=6)
same_meaning("MaxPool", 22, as_of=12)
same_meaning("Selu", 22, as_of=6)
same_meaning("Shape", 19, 21, 23, 24, 25, as_of=15)
same_meaning("Softplus", 22, as_of=1)
same_meaning("Softsign", 22, as_of=1)
same_meaning("Transpose", 21, 23, 24, 25, as_of=13)
same_meaning("Unsqueeze", 21, 23, 24, 25, as_of=13)
