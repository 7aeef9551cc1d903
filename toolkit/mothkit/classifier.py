"""Classifier: an imported network behind the border between pixel space and model space."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from mothkit.errors import ModelError, OutputError
from mothkit.inputs import InputSpec
from mothkit_converters import BoundModule, Head, Source, find_head, inputs_of, read_source, to_torch
from mothkit_converters.errors import ConversionError, WriteError

_MAX_VALUES = 2**28  # of an image, so that a stranger's file cannot ask for all memory; these take 1 GiB


@contextmanager
def as_model_errors() -> Iterator[None]:
    """Turn the converters' errors into ``ModelError`` or ``OutputError``, message and cause kept."""
    try:
        yield
    except WriteError as error:
        raise OutputError(str(error)) from error
    except ConversionError as error:
        raise ModelError(str(error)) from error


def check_scores(shape: tuple[int, ...], images: int, where: str) -> None:
    """Check that a value of ``shape`` is a row of class scores for each of ``images`` images, or one score.

    Raises:
        ModelError: it is not; the message begins with ``where``.
    """
    classes = math.prod(shape[1:])
    if not shape or shape[0] != images or classes < 1 or max(shape[1:], default=1) != classes:
        raise ModelError(f"{where} is {shape} for {images} images; expected ({images}, classes)")


def as_logits(scores: Tensor) -> Tensor:
    """Return logits [N, classes] for a model's ``scores`` [N, classes], [N, classes, 1, ...], [N, 1] or [N].

    A single score z of an image is the logit of class 1 against class 0, as a Sigmoid takes it: it becomes
    [0, z], whose Softmax is the Sigmoid's probability and its complement.
    """
    rows = scores.reshape(len(scores), -1)
    return rows if rows.shape[1] != 1 else torch.cat([torch.zeros_like(rows), rows], dim=1)


class Classifier(nn.Module):
    """Pixels [N, C, H, W] (float32, 0..1) to logits [N, classes].

    Attributes:
        network: the imported graph, cut before a final Softmax.
        spec: how pixels become its input.
        head: where the logits were taken.
        shape: (C, H, W) of the images that it takes.
        classes: how many logits it gives; two for a single score.
    """

    def __init__(
        self, network: BoundModule, spec: InputSpec, head: Head, shape: tuple[int, int, int]
    ) -> None:
        super().__init__()
        self.network, self.spec, self.head, self.shape = network, spec, head, shape
        self.classes = self._count_classes()

    @property
    def source(self) -> Source:
        """The file that the network came from."""
        return self.network.source

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [N, classes] for pixels ``x`` [N, C, H, W], 0..1."""
        scores: Tensor = self.network(self.spec.to_model(x))
        return as_logits(scores.float())

    @torch.no_grad()
    def _count_classes(self) -> int:
        where = f"{self.source.path}: the value {self.head.value!r}"
        try:
            logits: object = self.network(self.spec.to_model(torch.zeros(2, *self.shape)))
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            reason = str(error).splitlines()[0]
            raise ModelError(
                f"{self.source.path}: cannot be run on images {self.shape} (C, H, W): {reason}; "
                "check the image size, --layout and --channels"
            ) from error
        if not isinstance(logits, Tensor) or not logits.is_floating_point():
            found = logits.dtype if isinstance(logits, Tensor) else type(logits).__name__
            raise ModelError(f"{where} is {found}; expected a tensor of class scores")
        check_scores(tuple(logits.shape), 2, where)
        return as_logits(logits).shape[1]


def open_source(path: Path | str) -> Source:
    """Return the checked ONNX file at ``path``.

    Raises:
        ModelError: it cannot be taken.
    """
    with as_model_errors():
        return read_source(path)


def head_of(source: Source, output: str | None = None) -> Head:
    """Return how ``source`` ends at ``output``; at the first that is a score per class where that is None.

    Raises:
        ModelError: it has no such value.
    """
    with as_model_errors():
        return find_head(source, output)


def image_input(source: Source, output: str | None = None) -> tuple[int | str | None, ...]:
    """Return the shape of the one image input that the logits of ``source`` depend on.

    Args:
        source: the file.
        output: where its scores are, as for ``head_of``.

    Raises:
        ModelError: there is no such value or no input, there are several, the input is not 4-D, or an image of it
            would not fit into memory.
    """
    inputs = source.inputs
    if len(inputs) > 1:
        inputs = inputs_of(source, [head_of(source, output).value])
    described = ", ".join(f"{value.name} {list(value.shape or ())}" for value in inputs)
    if len(inputs) != 1 or inputs[0].shape is None or len(inputs[0].shape) != 4:
        raise ModelError(
            f"{source.path}: is no image classifier: its inputs are {described or 'none'}; expected one of 4 dimensions"
        )
    if math.prod(size for size in inputs[0].shape[1:] if isinstance(size, int)) > _MAX_VALUES:
        raise ModelError(
            f"{source.path}: its images are {described}; expected at most {_MAX_VALUES} values in one"
        )
    return tuple(inputs[0].shape)


def import_classifier(
    source: Source,
    spec: InputSpec,
    shape: tuple[int, int, int],
    *,
    output: str | None = None,
    allow_unbound: bool = False,
) -> Classifier:
    """Return ``source`` as a classifier in eval mode on the CPU.

    Args:
        source: the file.
        spec: fitted to the file's input.
        shape: (C, H, W) of the images to come.
        output: where its scores are, as for ``head_of``.
        allow_unbound: whether weights may be left untrainable.

    Raises:
        ModelError: the graph cannot be imported, or is no image classifier.
    """
    image_input(source, output)
    head = head_of(source, output)
    with as_model_errors():
        network = to_torch(source, outputs=[head.value], allow_unbound=allow_unbound)
        return Classifier(network, spec, head, shape).eval()
