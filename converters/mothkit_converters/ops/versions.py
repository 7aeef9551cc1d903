"""Schema versions newer than onnx2torch that widen an operator's types and change nothing else: none is left."""
