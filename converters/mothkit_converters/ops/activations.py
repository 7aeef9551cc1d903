"""Activations, and softmax and its kin."""
