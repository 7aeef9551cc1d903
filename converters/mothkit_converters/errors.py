"""What can go wrong between an ONNX file and a torch module. One root, leaves named for the fact."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


class ConversionError(Exception):
    """Root of everything that this package raises on purpose."""


class SourceError(ConversionError):
    """A file that cannot be taken as a model.

    Attributes:
        path: The file.
    """

    def __init__(self, path: Path | str, message: str) -> None:
        super().__init__(f"{path}: {message}")
        self.path = Path(path)


class NotOnnxError(SourceError):
    """The file is missing, empty, cut off, or no ONNX model."""


class InvalidModelError(SourceError):
    """The file parses, but breaks ONNX's own rules."""


class TooLargeError(SourceError):
    """A file or tensor is larger than what is read."""


class ExternalDataError(SourceError):
    """Data outside the model file is missing, cut off, or not where it may be."""


class UnknownValueError(SourceError):
    """A value was asked for that the graph does not have."""


class UnsupportedOpError(ConversionError):
    """An operator that cannot be served rightly.

    Attributes:
        op: The operator's type.
        node: The node's name, or that of its first output.
        why: What stands in the way.
        version: The version of its schema, None where it was not looked up.
    """

    def __init__(
        self, op: str, node: str, why: str, path: Path | str | None = None, version: int | None = None
    ) -> None:
        where = f"{path}: " if path else ""
        schema = "" if version is None else f" (version {version})"
        super().__init__(
            f"{where}operator {op}{schema} at node '{node}' is not supported: {why}. "
            "Take the outputs before this node, or export the model without it"
        )
        self.op, self.node, self.why, self.version = op, node, why, version


class UnboundWeightsError(SourceError):
    """Weights that no torch parameter stands for.

    Attributes:
        names: The initializers, in the graph's order.
        integers: Those of them that are stored as integers.
    """

    def __init__(self, path: Path | str, names: Sequence[str], integers: Sequence[str] = ()) -> None:
        way_out = "Pass allow_unbound=True to leave them as they are"
        if integers:
            way_out = (
                f"Integers have no gradient ({_listed(integers)}): harden the float model that was quantised, "
                f"and quantise the result again. {way_out}"
            )
        super().__init__(
            path,
            f"{len(names)} weight(s) cannot be trained and written back: {_listed(names)}; expected all of them "
            f"to be. {way_out}",
        )
        self.names, self.integers = tuple(names), tuple(integers)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:8])
    return f"{shown} and {len(names) - 8} more" if len(names) > 8 else shown


class BatchError(ConversionError):
    """The graph has a batch size built in that the input does not have."""


class RunError(ConversionError, RuntimeError):
    """The network cannot be computed on these inputs."""


class WriteError(ConversionError):
    """The hardened file could not be written; what stood at its place still stands.

    Attributes:
        path: Where it should have gone.
    """

    def __init__(self, path: Path | str, message: str) -> None:
        super().__init__(f"{path}: {message}")
        self.path = Path(path)


class ExportError(WriteError):
    """A fresh graph could not be made of a module, or is not what was asked for; nothing was written."""
