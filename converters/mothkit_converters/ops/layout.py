"""Elements in another order, cut apart or put together: nothing is computed of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mothkit_converters.ops.call import listed, operator

_FAR = 2**31  # as good as the end of any axis; torch computes places from what it is given, and may overflow


@operator("Transpose", 1, 13, 21, 23, 24, 25)
def transpose(x: Tensor, *, perm: Sequence[int] | None = None) -> Tensor:
    """Return ``x`` with its axes in the order of ``perm``, turned round where there is none."""
    return x.permute(tuple(reversed(range(x.dim()))) if perm is None else tuple(perm))


def _check_squeeze(given: Mapping[Any, Any], place: Any) -> str:  # noqa: ANN401 - a name or a number
    """Refuse a list that is there and empty: by ONNX's text nothing goes, by onnxruntime everything."""
    return "its list of axes is empty" if given.get(place) == [] else ""


@operator("Squeeze", 1, 11, check=lambda attributes: _check_squeeze(attributes, "axes"))
@operator("Squeeze", 13, 21, 23, 24, 25, numbers=(1,), limit=lambda fixed: _check_squeeze(fixed, 1))
def squeeze(x: Tensor, axes: int | Sequence[int] | None = None, *, batch: int = 0) -> Tensor:
    """Return ``x`` without these ``axes`` of size 1; without all such where none is named.

    With ``batch``, the first axis stays where it is longer: the file counts on a batch of one.

    Raises:
        RuntimeError: An axis is longer, or the list is empty.
    """
    if axes is None:
        return x.squeeze()
    axes = listed(axes)
    if not axes:
        raise RuntimeError(
            "a Squeeze is given an empty list of axes: ONNX and onnxruntime differ on what goes"
        )
    if batch and x.shape[0] != 1:
        axes = [axis for axis in axes if axis % x.dim()]
    if longer := [axis for axis in axes if x.shape[axis] != 1]:
        raise RuntimeError(f"a Squeeze takes axis {longer[0]} off a tensor {list(x.shape)}; expected size 1")
    return x.squeeze(tuple(axes))


@operator("Unsqueeze", 1, 11)
@operator("Unsqueeze", 13, 21, 23, 24, 25, numbers=(1,))
def unsqueeze(x: Tensor, axes: int | Sequence[int]) -> Tensor:
    """Return ``x`` with axes of size 1 put in, counted as the result has them."""
    rank = x.dim() + len(listed(axes))
    for axis in sorted(axis % rank for axis in listed(axes)):
        x = x.unsqueeze(axis)
    return x


@operator("Concat", 1, 4, 11, 13)  # 4 makes the axis required, 11 lets it be negative
def concat(*inputs: Tensor, axis: int = 1, batch: int = 0) -> Tensor:
    """Return ``inputs`` one after the other along ``axis``.

    With ``batch``, an input that holds one image, as a stored token does, goes with each image of the others.
    """
    if batch:
        count = max(x.shape[0] for x in inputs)
        inputs = tuple(x.expand(count, *x.shape[1:]) if x.shape[0] == 1 else x for x in inputs)
    return torch.cat(inputs, axis)


def _check_split(attributes: Mapping[str, Any]) -> str:
    return "it names no axis, and version 1 has no default" if attributes["axis"] is None else ""


@operator("Split", 1, numbers=(1,), check=_check_split, axis=None)
@operator("Split", 2, 11)
@operator("Split", 13, numbers=(1,))
@operator("Split", 18, numbers=(1,), uneven=True)
def split(
    x: Tensor,
    split: Sequence[int] | None = None,
    *,
    axis: int = 0,
    num_outputs: int | None = None,  # noqa: ARG001 - the same as ``outputs``: the file was checked
    outputs: int,
    uneven: bool = False,
) -> Tensor | tuple[Tensor, ...]:
    """Return the parts of ``x``, as long as ``split`` says or of one length, the last shorter if ``uneven``."""
    size = x.shape[axis]
    part = -(-size // outputs) if uneven else size // outputs
    rest = size - part * (outputs - 1) if uneven else part
    parts = torch.split(x, [part] * (outputs - 1) + [rest] if split is None else list(split), axis)
    return parts[0] if outputs == 1 else parts


@operator("Slice", 1)
@operator("Slice", 10, 11, 13, numbers=(1, 2, 3, 4))
def slice_(
    x: Tensor,
    starts: int | Sequence[int],
    ends: int | Sequence[int],
    axes: int | Sequence[int] | None = None,
    steps: int | Sequence[int] | None = None,
) -> Tensor:
    """Return a part of ``x``: from each start to before its end, in steps that may go backwards."""
    count = len(listed(starts))
    axes = range(count) if axes is None else listed(axes)
    steps = [1] * count if steps is None else listed(steps)
    for axis, *numbers in zip(axes, listed(starts), listed(ends), steps, strict=True):
        x = _cut(x, axis % x.dim(), *(min(max(number, -_FAR), _FAR) for number in numbers))
    return x


def _cut(x: Tensor, axis: int, start: int, end: int, step: int) -> Tensor:
    before = (slice(None),) * axis
    if step > 0:
        return x[(*before, slice(start, end, step))]
    size = x.shape[axis]
    start = min(max(start + size if start < 0 else start, 0), size - 1)
    end = min(max(end + size if end < 0 else end, -1), size - 1)
    return x.flip(axis)[(*before, slice(size - 1 - start, size - 1 - end, -step))]


def _check_mode(attributes: Mapping[str, Any]) -> str:
    mode = attributes.get("mode", "DCR")
    return "" if mode in ("DCR", "CRD") else f"its mode '{mode}' is unknown"


@operator("DepthToSpace", 1, 11, 13, 28, check=_check_mode)  # 11 adds the mode; before, it is DCR
def depth_to_space(x: Tensor, *, blocksize: int, mode: str = "DCR") -> Tensor:
    """Return ``x`` [N, C, H, W] as [N, C / b², H x b, W x b], channels going into blocks of the image."""
    n, channels, height, width = x.shape
    b, depth = blocksize, channels // blocksize**2
    if mode == "CRD":
        blocks = x.reshape(n, depth, b, b, height, width).permute(0, 1, 4, 2, 5, 3)
    else:
        blocks = x.reshape(n, b, b, depth, height, width).permute(0, 3, 4, 1, 5, 2)
    return blocks.reshape(n, depth, height * b, width * b)


@operator("SpaceToDepth", 1, 13, 28, check=_check_mode)  # 28 adds the mode; before, it is DCR
def space_to_depth(x: Tensor, *, blocksize: int, mode: str = "DCR") -> Tensor:
    """Return ``x`` [N, C, H, W] as [N, C x b², H / b, W / b], blocks of the image going into channels."""
    n, channels, height, width = x.shape
    b = blocksize
    blocks = x.reshape(n, channels, height // b, b, width // b, b)
    order = (0, 1, 3, 5, 2, 4) if mode == "CRD" else (0, 3, 5, 1, 2, 4)
    return blocks.permute(order).reshape(n, channels * b * b, height // b, width // b)
