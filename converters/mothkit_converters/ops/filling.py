"""Tensors made from numbers: constants, ranges, unit matrices."""
