"""Other shapes for the same elements, or for elements repeated: Reshape, Flatten, Expand, Tile."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from mothkit_converters.errors import BatchError
from mothkit_converters.ops.bounds import check_count, excess
from mothkit_converters.ops.call import listed, operator


@operator("Reshape", 1)  # the shape is an attribute
@operator("Reshape", 5, 13, 14, 19, 21, 23, 24, 25, numbers=(1,))  # 14 adds allowzero, the others types
def reshape(
    x: Tensor,
    shape: Sequence[int] = (),
    *,
    allowzero: int = 0,
    consumed_inputs: Sequence[int] = (),  # noqa: ARG001 - a hint about memory
) -> Tensor:
    """Return ``x`` in ``shape``; one dimension may be -1, and 0 copies that of ``x`` unless ``allowzero``.

    Raises:
        BatchError: ``x`` has another number of elements.
    """
    dims = [x.shape[i] if dim == 0 and not allowzero else dim for i, dim in enumerate(shape)]
    try:
        return x.reshape(dims)
    except RuntimeError as error:
        raise BatchError(
            f"a Reshape makes {dims}, and got {list(x.shape)}: the file fixes the "
            "batch size. Call with that batch size, or export the model with a dynamic one"
        ) from error


@operator("Flatten", 1, 9, 11, 13, 21, 23, 24, 25)  # 11 lets the axis be negative, the others add types
def flatten(x: Tensor, *, axis: int = 1) -> Tensor:
    """Return ``x`` as a matrix, the dimensions before ``axis`` making its rows."""
    at = axis if axis >= 0 else axis + x.dim()
    return x.reshape(math.prod(x.shape[:at]), math.prod(x.shape[at:]))


def _limit_expand(fixed: Mapping[int, Any]) -> str:
    return excess("Expand", math.prod(listed(fixed.get(1))))


@operator("Expand", 8, 13, numbers=(1,), limit=_limit_expand)
def expand(x: Tensor, shape: int | Sequence[int]) -> Tensor:
    """Return ``x`` broadcast to ``shape``, or to its own where that is larger."""
    more = len(listed(shape)) - x.dim()
    wanted = [1] * -more + listed(shape)
    sizes = [-1 if size == 1 and place >= more else size for place, size in enumerate(wanted)]
    result = x.expand(sizes)
    check_count("Expand", result.numel())
    return result


@operator("Tile", 1, numbers=(1, 2))
def tile_along(x: Tensor, tiles: int | Sequence[int], axis: int | Sequence[int]) -> Tensor:
    """Return ``x`` repeated ``tiles`` times along one axis."""
    repeats = [1] * x.dim()
    repeats[listed(axis)[0]] = listed(tiles)[0]
    return tile(x, repeats)


def _limit_tile(fixed: Mapping[int, Any]) -> str:
    return excess("Tile", math.prod(listed(fixed.get(1))))


@operator("Tile", 6, 13, numbers=(1,), limit=_limit_tile)
def tile(x: Tensor, repeats: Sequence[int]) -> Tensor:
    """Return ``x`` repeated along each axis."""
    check_count("Tile", x.numel() * math.prod(repeats))
    return x.repeat(*repeats) if repeats else x
