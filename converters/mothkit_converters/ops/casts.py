"""Changes of the element type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onnx import TensorProto
from torch import Tensor

from mothkit_converters.errors import UnsupportedOpError
from mothkit_converters.ops.call import operator
from mothkit_converters.ops.dtypes import DTYPES, name_of


def _number(to: int | str) -> int:
    """Return the number of an element type, which version 1 of Cast gives by its name."""
    return int(to) if isinstance(to, int) else dict(TensorProto.DataType.items()).get(to, 0)


def _refusal(attributes: Mapping[str, Any]) -> str:
    number = _number(attributes["to"])
    return "" if number in DTYPES else f"it makes {name_of(number)}, which is not computed with"


@operator("Cast", 1, 6, 9, 13, 19, 21, 23, 24, 25, 28, check=_refusal)
def cast(x: Tensor, *, to: int | str, saturate: int = 1, round_mode: str = "up") -> Tensor:  # noqa: ARG001
    """Return ``x`` in another element type; the other attributes concern 8-bit floats."""
    return x.to(DTYPES[_number(to)])


@operator("CastLike", 15, 19, 21, 23, 24, 25)
def cast_like(x: Tensor, like: Tensor, *, saturate: int = 1, round_mode: str = "up") -> Tensor:  # noqa: ARG001
    """Return ``x`` in the element type of ``like``."""
    if like.dtype not in DTYPES.values():
        raise UnsupportedOpError("CastLike", "CastLike", f"it makes {like.dtype}, which is not computed with")
    return x.to(like.dtype)


@operator("BitCast", 26, check=_refusal)
def bit_cast(x: Tensor, *, to: int) -> Tensor:
    """Return the bits of ``x`` read as another element type of the same size."""
    dtype = DTYPES[to]
    if x.element_size() != dtype.itemsize:
        why = f"it reads {x.dtype} as {dtype}; half precision is computed in float32"
        raise UnsupportedOpError("BitCast", "BitCast", why)
    return x.view(dtype)


@operator("Identity", 1, 13, 14, 16, 19, 21, 23, 24, 25, lists=True)
def identity(x: Any) -> Any:  # noqa: ANN401 - sequences and optionals too
    """Return ``x``."""
    return x
