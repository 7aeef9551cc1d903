"""How much a node may ask for: a few numbers in a file can ask for more than any memory has."""

from __future__ import annotations

from mothkit_converters.errors import ConversionError

MOST = 2**31
"""Elements that one tensor may have."""


def excess(op: str, count: float) -> str:
    """Return why ``op`` cannot make ``count`` elements, empty where it can."""
    return "" if count <= MOST else f"{op} asks for a tensor of {count} elements; at most {MOST} are made"


def check_count(op: str, count: float) -> None:
    """Check what a running model asks for.

    Raises:
        ConversionError: ``op`` is asked for more than ``MOST`` elements.
    """
    if why := excess(op, count):
        raise ConversionError(why)
