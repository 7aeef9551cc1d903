"""Attention and RotaryEmbedding."""
