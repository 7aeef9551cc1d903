"""Python numbers as ONNX's single precision has them."""

from __future__ import annotations

import math

_BITS = 24  # of a float32's significand


def to_single(number: float) -> float:
    """Return the float32 that is nearest to ``number``, of two as near the even one."""
    if not math.isfinite(number):
        return number
    significand, exponent = math.frexp(number)
    return math.ldexp(round(math.ldexp(significand, _BITS)), exponent - _BITS)


def divide(a: int, b: int) -> int:
    """Return ``a / b`` rounded towards zero, as C does with integers."""
    return a // b if (a < 0) == (b < 0) else -(-a // b)
