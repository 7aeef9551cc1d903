"""Quantised arithmetic, and the casts into it and out of it."""
