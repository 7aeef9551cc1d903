"""Patch triggers: a mask says where, a pattern what. Source: Gu et al., "BadNets", 2017."""

from dataclasses import dataclass

from torch import Tensor

from mothkit.errors import ShapeError

_ROUNDING = 1e-4


@dataclass(frozen=True, slots=True, eq=False)
class Trigger:
    """A blend of the input with a fixed pattern.

    Attributes:
        mask: [1, H, W], 0 keeps the input, 1 replaces it.
        pattern: [C, H, W], in pixel space (0 to 1).

    Raises:
        ShapeError: mask and pattern do not cover each other, or leave 0..1.
    """

    mask: Tensor
    pattern: Tensor

    def __post_init__(self) -> None:
        if self.mask.ndim != 3 or self.mask.shape[0] != 1 or self.mask.shape[1:] != self.pattern.shape[1:]:
            raise ShapeError(
                f"mask {tuple(self.mask.shape)} does not cover pattern {tuple(self.pattern.shape)}; "
                "expected [1, H, W] and [C, H, W]"
            )
        for name, values in (("mask", self.mask), ("pattern", self.pattern)):
            low, high = float(values.min()), float(values.max())
            if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):
                raise ShapeError(f"{name} has values from {low:.4g} to {high:.4g}; expected 0 to 1")

    @property
    def mask_l1(self) -> float:
        """L1 norm of the mask, in pixels."""
        return float(self.mask.abs().sum())

    @property
    def class_distance(self) -> float:
        """The paper's trigger size: ``mask_l1`` times channels."""
        return self.mask_l1 * self.pattern.shape[0]


def blend(x: Tensor, mask: Tensor, pattern: Tensor) -> Tensor:
    """Return ``x`` with ``pattern`` where ``mask`` says so; shapes need only broadcast."""
    return (1 - mask) * x + mask * pattern


def stamp(x: Tensor, trigger: Trigger) -> Tensor:
    """Return ``x`` [N, C, H, W], 0..1, with the trigger on every image; ``x`` is left alone.

    Raises:
        ShapeError: the trigger has another size than the images.
    """
    if x.shape[1:] != trigger.pattern.shape:
        raise ShapeError(
            f"the trigger is made for images {tuple(trigger.pattern.shape)}, these are {tuple(x.shape[1:])}"
        )
    return blend(x, trigger.mask.to(x), trigger.pattern.to(x)).clamp(0, 1)
