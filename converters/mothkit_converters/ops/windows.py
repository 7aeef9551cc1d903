"""Where the windows of convolutions and pools stand: padding and sizes, by ONNX's rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch.nn.functional as F  # noqa: N812 - its customary name
from torch import Tensor

_MOST_AXES = 3  # what torch's kernels serve


class Windows(NamedTuple):
    """Windows over spatial axes: each field has one number per axis.

    Attributes:
        kernel: Elements of a window.
        strides: From one window to the next.
        dilations: From one element to the next.
        begins: Padding before the first element.
        ends: Padding after the last.
    """

    kernel: Sequence[int]
    strides: list[int]
    dilations: list[int]
    begins: list[int]
    ends: list[int]

    @property
    def symmetric(self) -> bool:
        """Whether the padding is the same on both sides."""
        return self.begins == self.ends

    @property
    def extents(self) -> list[int]:
        """From the first element of a window to its last, both counted."""
        return [_extent(k, d) for k, d in zip(self.kernel, self.dilations, strict=True)]

    def overhangs(self, sizes: Sequence[int]) -> list[int]:
        """Return how far the last window that ``ceil_mode`` asks for goes beyond the padding, per axis."""
        numbers = zip(sizes, self.extents, self.strides, self.begins, self.ends, strict=True)
        return [_overhang(*each) for each in numbers]

    def fit(self, x: Tensor, value: float = 0.0) -> Tensor:
        """Return ``x`` [N, C, ...] with its padding filled with ``value``."""
        return padded(x, self.begins, self.ends, value)


def windows(
    sizes: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int],
    auto_pad: str,
) -> Windows:
    """Return the windows over axes of these ``sizes``; empty attributes mean ONNX's defaults."""
    rank = len(kernel)
    strides, dilations = list(strides) or [1] * rank, list(dilations) or [1] * rank
    begins, ends = [0] * rank, [0] * rank
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        totals = [_same(*each) for each in zip(sizes, kernel, strides, dilations, strict=True)]
        begins, ends = halves(totals, upper=auto_pad == "SAME_UPPER")
    elif auto_pad != "VALID" and pads:
        begins, ends = list(pads[:rank]), list(pads[rank:])
    return Windows(kernel, strides, dilations, begins, ends)


def halves(totals: Sequence[int], *, upper: bool) -> tuple[list[int], list[int]]:
    """Return ``totals`` split in two; what is odd goes to the end if ``upper``."""
    less, more = [total // 2 for total in totals], [total - total // 2 for total in totals]
    return (less, more) if upper else (more, less)


def padded(x: Tensor, begins: Sequence[int], ends: Sequence[int], value: float = 0.0) -> Tensor:
    """Return ``x`` with its last axes padded with ``value``; a negative number takes away."""
    if not any(begins) and not any(ends):
        return x
    pairs = list(zip(begins, ends, strict=True))
    return F.pad(x, [number for pair in reversed(pairs) for number in pair], value=value)


def too_many_axes(attributes: Mapping[str, Any]) -> str:
    """Return why no kernel serves windows of as many axes as these attributes have; empty where one does."""
    counts = [len(attributes.get(name, ())) for name in ("kernel_shape", "strides", "dilations")]
    axes = max(*counts, len(attributes.get("pads", ())) // 2)
    return f"it has {axes} spatial axes, expected at most {_MOST_AXES}" if axes > _MOST_AXES else ""


def _extent(kernel: int, dilation: int) -> int:
    return (kernel - 1) * dilation + 1


def _same(size: int, kernel: int, stride: int, dilation: int) -> int:
    """Return the padding that makes one window per stride."""
    return max((-(-size // stride) - 1) * stride + _extent(kernel, dilation) - size, 0)


def _overhang(size: int, extent: int, stride: int, begin: int, end: int) -> int:
    left = (size + begin + end - extent) % stride  # elements that no window of floor mode reaches
    last = size + begin + end - left + stride - extent  # where the next window would start
    return stride - left if left and last < size + begin else 0  # none starts in the padding at the end
