"""Harden ONNX image classifiers against backdoors, and prove it in onnxruntime."""
