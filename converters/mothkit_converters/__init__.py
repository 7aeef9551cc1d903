"""ONNX <-> torch with every weight tied to its initializer, and surgery back into the same file."""
