"""Poisoned models made here: drawn signs, four attacks, small networks, and what comes of them."""
