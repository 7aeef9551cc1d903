"""ImageSet: labelled images of one shape, read when they are needed."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mothkit.errors import ConfigError, ImageError, ShapeError
from mothkit.images.labels import check_labels, number_names
from mothkit.images.sources import ArraySource, Limits, Pixels, PixelSource, Shape

_CHUNK = 1024  # images read at once where all are visited


class ImageSet:
    """Labelled images of one shape. Subsets share their parent's pixels, and nothing is ever written to them.

    Attributes:
        labels: int64 [N], each an index into ``class_names``.
        class_names: the classes in the model's order.
        origin: where the images come from, as the user gave it.
    """

    labels: Tensor
    class_names: tuple[str, ...]
    origin: str

    def __init__(
        self,
        source: PixelSource,
        labels: Tensor,
        class_names: Sequence[str],
        origin: str,
        *,
        indices: Tensor | None = None,
    ) -> None:
        """Take images ``indices`` of ``source`` (all if None) with one label each.

        Raises:
            ImageError: no images, not one label an image, or a label without a class.
        """
        self._source = source
        self._indices = torch.arange(len(source)) if indices is None else indices
        self.labels = labels.to(torch.int64, copy=True)
        self.class_names = tuple(class_names)
        self.origin = origin
        self._hashes: tuple[str, ...] | None = None
        if len(self._indices) == 0:
            raise ImageError(f"{origin}: there are no images")
        if self.labels.shape != self._indices.shape:
            raise ImageError(f"{origin}: {len(self._indices)} images, but labels {list(labels.shape)}")
        check_labels(self.labels.numpy(), len(self.class_names), origin)

    @classmethod
    def from_arrays(
        cls,
        x: NDArray[Any] | Tensor,
        y: NDArray[Any] | Tensor | Sequence[int],
        class_names: Sequence[str] | None = None,
        origin: str = "arrays",
        *,
        layout: Literal["nchw", "nhwc"] | None = None,
    ) -> Self:
        """Return a set of copies of arrays.

        Args:
            x: uint8 [N, H, W] grey, [N, H, W, C] or [N, C, H, W] with C = 1 or 3, 0..255.
            y: integer [N], class indices from 0.
            class_names: one name a class; the numbers themselves if None.
            origin: what messages and records call the set.
            layout: where the channels are in a four-dimensional ``x``. If None, they are the second or the
                last dimension, whichever has size 1 or 3; where both have, the layout must be given.

        Raises:
            ImageError: another dtype or shape, an ambiguous layout, other counts, a label out of range.
        """
        # np.array copies: what the caller writes to x later must not reach the set.
        pixels = np.array(x.detach().cpu().numpy() if isinstance(x, Tensor) else x)
        labels = np.array(y.detach().cpu().numpy() if isinstance(y, Tensor) else y)
        if pixels.dtype != np.uint8:
            raise ImageError(f"{origin}: pixels are {pixels.dtype}, expected uint8, 0..255")
        if 0 in pixels.shape:
            raise ImageError(f"{origin}: pixels are {list(pixels.shape)}: there are no images")
        pixels = _to_nchw(pixels, layout, origin)
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise ImageError(
                f"{origin}: labels are {labels.dtype} {list(labels.shape)}, expected integers [N]"
            )
        names = number_names(labels, origin, Limits().classes) if class_names is None else class_names
        return cls(ArraySource(pixels), torch.from_numpy(labels.astype(np.int64)), names, origin)

    def __len__(self) -> int:
        return len(self._indices)

    def __repr__(self) -> str:
        what = f"{len(self)} images {list(self.shape)}, {len(self.class_names)} classes"
        return f"ImageSet({self.origin!r}, {what})"

    @property
    def shape(self) -> Shape:
        """(C, H, W) of every image."""
        return self._source.shape

    @property
    def class_counts(self) -> tuple[int, ...]:
        """How many images each class has, in the order of ``class_names``."""
        return tuple(torch.bincount(self.labels, minlength=len(self.class_names)).tolist())

    def read(self, indices: Tensor | Sequence[int]) -> Tensor:
        """Return images as new uint8 [n, C, H, W], 0..255.

        Args:
            indices: integers [n] of 0..N-1, repeats allowed, or a bool mask [N].

        Raises:
            IndexError: an index out of range, or a mask of another length.
            ImageError: an image cannot be decoded; the message names its file.
        """
        chosen = self._indices[self._resolve(indices)]
        return torch.from_numpy(self._source.read(chosen.numpy()))

    def pixels(self, indices: Tensor | Sequence[int]) -> Tensor:
        """Return images as new float32 [n, C, H, W], 0..1; arguments and errors are those of ``read``."""
        return self.read(indices).float().div_(255)

    def subset(self, indices: Tensor | Sequence[int]) -> "ImageSet":
        """Return the images ``indices`` (as for ``read``) in that order, with all class names.

        Raises:
            IndexError: an index out of range, or a mask of another length.
            ImageError: no indices.
        """
        chosen = self._resolve(indices)
        return ImageSet(
            self._source, self.labels[chosen], self.class_names, self.origin, indices=self._indices[chosen]
        )

    def per_class(self, n: int, *, seed: int) -> "ImageSet":
        """Return ``n`` images of each class, drawn without replacement; the same seed draws the same.

        Raises:
            ConfigError: ``n`` is below 1.
            ImageError: classes with fewer than ``n`` images, named with their counts.
        """
        if n < 1:
            raise ConfigError(f"images per class are {n}, not 1 or more")
        counts = self.class_counts
        if short := [
            f"{name} {count}" for name, count in zip(self.class_names, counts, strict=True) if count < n
        ]:
            raise ImageError(
                f"{self.origin}: {n} images per class were asked for, but {len(short)} classes have fewer: "
                f"{_some(short)}; ask for at most {min(counts)}, or add images"
            )
        generator = torch.Generator().manual_seed(seed)
        return self.subset(
            torch.cat([shuffled[:n] for shuffled in self._shuffled_classes(generator)]).sort().values
        )

    def split(self, fraction: float, *, generator: torch.Generator) -> tuple["ImageSet", "ImageSet"]:
        """Return (the rest, what is held back): ``fraction`` of each class is held back, drawn at random.

        A class of two or more images has at least one on either side; a single image stays in the rest.

        Raises:
            ConfigError: ``fraction`` is not within (0, 1).
            ImageError: no class has two images, so that nothing can be held back.
        """
        if not 0 < fraction < 1:
            raise ConfigError(f"fraction to hold back is {fraction}, not in (0, 1)")
        held = torch.zeros(len(self), dtype=torch.bool)
        for shuffled in self._shuffled_classes(generator):
            count = len(shuffled)
            held[shuffled[: min(max(1, round(fraction * count)), count - 1)]] = True
        if not held.any():
            raise ImageError(
                f"{self.origin}: no class has two images; nothing can be held back of {len(self)}"
            )
        return self.subset(~held), self.subset(held)

    def batches(self, size: int, generator: torch.Generator | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Return an iterator over all images, once: float32 [n, C, H, W] of 0..1 and int64 labels [n].

        Args:
            size: images a batch; the last may have fewer.
            generator: a CPU generator that shuffles; None keeps the order.

        Raises:
            ConfigError: ``size`` is below 1.
            ImageError: while iterating, an image cannot be decoded.
        """
        if size < 1:
            raise ConfigError(f"batch size is {size}, not 1 or more")
        order = (
            torch.arange(len(self)) if generator is None else torch.randperm(len(self), generator=generator)
        )
        return ((self.pixels(chosen), self.labels[chosen]) for chosen in torch.split(order, size))

    def hashes(self) -> tuple[str, ...]:
        """Return one SHA-256 an image, of shape and decoded pixels: the file's format does not matter.

        Raises:
            ImageError: an image cannot be decoded.
        """
        if self._hashes is None:
            chunks = torch.split(torch.arange(len(self)), _CHUNK)
            self._hashes = tuple(_hash(image) for chunk in chunks for image in self.read(chunk).numpy())
        return self._hashes

    @property
    def digest(self) -> str:
        """SHA-256 over all images and labels in their order; raises as ``hashes``."""
        pairs = zip(self.hashes(), self.labels.tolist(), strict=True)
        return hashlib.sha256("\n".join(f"{image} {label}" for image, label in pairs).encode()).hexdigest()

    def overlap(self, other: "ImageSet") -> int:
        """Return how many of these images are also in ``other``, pixel for pixel.

        Raises:
            ShapeError: the two sets have images of different shapes, so that nothing can be said.
            ImageError: an image cannot be decoded.
        """
        if self.shape != other.shape:
            raise ShapeError(
                f"{self.origin} has images {list(self.shape)}, {other.origin} {list(other.shape)}: "
                f"they can be compared only at one shape"
            )
        theirs = set(other.hashes())
        return sum(image in theirs for image in self.hashes())

    def _resolve(self, indices: Tensor | Sequence[int]) -> Tensor:
        """Return int64 [n] positions in this set, checked."""
        chosen = torch.as_tensor(indices).cpu()
        if chosen.numel() == 0 and chosen.dtype != torch.bool:
            return torch.zeros(0, dtype=torch.int64)
        if chosen.dim() != 1 or chosen.is_floating_point() or chosen.is_complex():
            raise IndexError(f"indices are {chosen.dtype} {list(chosen.shape)}, expected integers [n]")
        if chosen.dtype == torch.bool:
            if len(chosen) != len(self):
                raise IndexError(f"mask has {len(chosen)} entries for {len(self)} images")
            return chosen.nonzero()[:, 0]
        chosen = chosen.to(torch.int64)
        if chosen.min() < 0 or chosen.max() >= len(self):
            raise IndexError(
                f"indices reach from {chosen.min()} to {chosen.max()}, not within 0..{len(self) - 1}"
            )
        return chosen

    def _shuffled_classes(self, generator: torch.Generator) -> Iterator[Tensor]:
        """Yield for each class that has images its positions, int64 [n], in random order."""
        for label in range(len(self.class_names)):
            positions = (self.labels == label).nonzero()[:, 0]
            if len(positions):
                yield positions[torch.randperm(len(positions), generator=generator)]


def _hash(image: Pixels) -> str:
    header = "x".join(map(str, image.shape)) + ":"
    return hashlib.sha256(header.encode() + image.tobytes()).hexdigest()


def _some(parts: list[str]) -> str:
    return ", ".join(parts[:10]) + (f" and {len(parts) - 10} more" if len(parts) > 10 else "")


def _to_nchw(pixels: Pixels, layout: str | None, origin: str) -> Pixels:
    """Return a view [N, C, H, W] of pixels in any layout that ``from_arrays`` takes."""
    if pixels.ndim == 3:
        return pixels[:, None]
    if pixels.ndim != 4:
        raise ImageError(f"{origin}: pixels are {list(pixels.shape)}, expected 3 or 4 dimensions")
    second, last = pixels.shape[1] in (1, 3), pixels.shape[3] in (1, 3)
    if layout is None and second and last:
        raise ImageError(
            f"{origin}: pixels {list(pixels.shape)} could be NCHW or NHWC; say which with layout="
        )
    layout = layout or ("nhwc" if last else "nchw")
    nchw = pixels.transpose(0, 3, 1, 2) if layout == "nhwc" else pixels
    if nchw.shape[1] not in (1, 3):
        raise ImageError(f"{origin}: pixels {list(pixels.shape)} are not {layout} with 1 or 3 channels")
    return nchw
