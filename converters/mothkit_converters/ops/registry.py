"""The door to onnx2torch's table of converters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

from onnx import NodeProto, defs
from onnx2torch.node_converters import registry
from onnx2torch.onnx_graph import OnnxGraph
from onnx2torch.onnx_node import OnnxNode
from onnx2torch.utils.common import OperationConverterResult

from mothkit_converters.errors import UnsupportedOpError
from mothkit_converters.scopes import label

Converter: TypeAlias = Callable[[OnnxNode, OnnxGraph], OperationConverterResult]

_TABLE: dict[Any, Converter] = registry._CONVERTER_REGISTRY  # noqa: SLF001 - a test pins the version
_OURS: dict[Any, Converter] = {}
_THEIRS = frozenset(_TABLE)


def _key(op: str, version: int, domain: str = "") -> object:
    return registry.OperationDescription(domain=domain, operation_type=op, version=version)


def serve(op: str, *versions: int, domain: str = "") -> Callable[[Converter], Converter]:
    """Return a decorator that makes a function the converter of ``op`` at these schema versions.

    Versions that onnx2torch lacks are added to it; those it has are replaced inside ``overrides()`` only.
    """

    def register(converter: Converter) -> Converter:
        for version in versions:
            key = _key(op, version, domain)
            if key in _OURS or (key in _TABLE and key not in _THEIRS):
                raise ValueError(f"{op} {version} has a converter of ours already")
            if key in _THEIRS:
                _OURS[key] = converter
            else:
                registry.add_converter(operation_type=op, version=version, domain=domain)(converter)
        return converter

    return register


@contextmanager
def overrides() -> Iterator[None]:
    """Put our converters in the place of onnx2torch's own, and its own back at the end."""
    theirs = {key: _TABLE[key] for key in _OURS}
    _TABLE.update(_OURS)
    try:
        yield
    finally:
        _TABLE.update(theirs)


def schema_version(op: str, opset: int, domain: str = "") -> int:
    """Return the version of the schema that ``op`` has at this opset; the opset where ONNX knows none."""
    if not defs.has(op, domain):
        return opset
    try:
        return int(defs.get_schema(op, domain=domain, max_inclusive_version=opset).since_version)
    except defs.SchemaError:
        return opset


def find_converter(op: str, opset: int, domain: str = "") -> Converter | None:
    """Return what converts ``op`` of this opset, None where nothing does."""
    return _TABLE.get(_key(op, schema_version(op, opset, domain), domain))


def refused(node: NodeProto, opsets: Mapping[str, int], why: str = "") -> UnsupportedOpError:
    """Return the error for a node that cannot be served, by its name and the version of its schema.

    Args:
        node: The node, of a graph in plain form.
        opsets: The opset of each domain.
        why: What stands in the way; unless given, that nothing converts it.
    """
    opset = opsets.get(node.domain, 1)
    of = f" of the domain '{node.domain}'" if node.domain else ""
    version = schema_version(node.op_type, opset, node.domain)
    return UnsupportedOpError(
        node.op_type, label(node), why or f"no converter for it at opset {opset}{of}", version=version
    )
