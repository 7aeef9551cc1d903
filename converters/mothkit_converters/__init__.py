"""ONNX files as torch modules, and their weights back into the files they came from.

Importing this package is cheap: torch and onnx are loaded when a name is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mothkit_converters.binding import Binding, Role
    from mothkit_converters.comparison import Change, GraphDiff, diff
    from mothkit_converters.errors import (
        BatchError,
        ConversionError,
        ExportError,
        ExternalDataError,
        InvalidModelError,
        NotOnnxError,
        RunError,
        SourceError,
        TooLargeError,
        UnboundWeightsError,
        UnknownValueError,
        UnsupportedOpError,
        WriteError,
    )
    from mothkit_converters.exporter import check_export, export
    from mothkit_converters.halves import has_halves
    from mothkit_converters.heads import Head, expose, find_head, inputs_of, logits_value
    from mothkit_converters.importer import BoundModule, to_torch
    from mothkit_converters.layers import Layer, layers_of
    from mothkit_converters.ops.normalization import normalises
    from mothkit_converters.source import Source, Value, read_source
    from mothkit_converters.writer import check_place, write_back

__all__ = [
    "BatchError",
    "Binding",
    "BoundModule",
    "Change",
    "ConversionError",
    "ExportError",
    "ExternalDataError",
    "GraphDiff",
    "Head",
    "InvalidModelError",
    "Layer",
    "NotOnnxError",
    "Role",
    "RunError",
    "Source",
    "SourceError",
    "TooLargeError",
    "UnboundWeightsError",
    "UnknownValueError",
    "UnsupportedOpError",
    "Value",
    "WriteError",
    "check_export",
    "check_place",
    "diff",
    "export",
    "expose",
    "find_head",
    "has_halves",
    "inputs_of",
    "layers_of",
    "logits_value",
    "normalises",
    "read_source",
    "to_torch",
    "write_back",
]

_HOMES = {
    "binding": ("Binding", "Role"),
    "comparison": ("Change", "GraphDiff", "diff"),
    "exporter": ("check_export", "export"),
    "halves": ("has_halves",),
    "heads": ("Head", "expose", "find_head", "inputs_of", "logits_value"),
    "importer": ("BoundModule", "to_torch"),
    "layers": ("Layer", "layers_of"),
    "ops.normalization": ("normalises",),
    "source": ("Source", "Value", "read_source"),
    "writer": ("check_place", "write_back"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    """Load a public name from its module, on first use."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_HOME_OF.get(name, 'errors')}"), name)
    globals()[name] = value
    return value
