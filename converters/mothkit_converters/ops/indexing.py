"""Gather, scatter, and what else picks elements by index."""
