"""Triggers: what is stamped on an image, one kind per file."""
