"""What a stranger's file may cost: told from its bytes, before anything is made of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from onnx import FunctionProto, ModelProto, NodeProto, TensorProto

from mothkit_converters.errors import InvalidModelError, NotOnnxError, TooLargeError
from mothkit_converters.wire import SIZED, Field, fields_of

MAX_CALLED_NODES = 1_000_000  # nodes of a graph once its functions are written out
_ROOM = 150 * 2**20  # bytes that a file's small parts may take in memory beside twice its own size
_MESSAGE, _TEXT, _NUMBER = 500, 90, 16  # bytes that the two protobuf libraries take for one, as measured
_EXACT = 2**16  # packed numbers are counted from so many bytes on; below, each byte is taken for one
_FREE_TEXT = frozenset({"doc_string"})
_UTF8_BYTES = frozenset({("onnx.AttributeProto", "s"), ("onnx.AttributeProto", "strings")})


def check_content(path: Path, content: bytes) -> None:
    """Check the bytes of a model file before they are parsed.

    Raises:
        NotOnnxError: They are no protobuf, or were cut off.
        InvalidModelError: A name is no UTF-8.
        TooLargeError: They are made of so many small parts that memory would run out.
    """
    left = _ROOM + 2 * len(content)
    try:
        for field in fields_of(content):
            left -= _cost(content, field)
            if left < 0:
                raise TooLargeError(
                    path,
                    f"its {len(content)} bytes hold more parts than memory is given for; no model is like that",
                )
            if field.wire == SIZED and field.known is not None:
                _check_text(path, content, field)
    except ValueError as error:
        hint = "expected a whole ONNX model, so fetch or export it again"
        raise NotOnnxError(path, f"is no ONNX model, or was cut off ({error}); {hint}") from error


def _cost(content: bytes, field: Field) -> int:
    """Return about how many bytes of memory ``field`` takes beside its own length."""
    known = field.known
    if field.wire != SIZED or known is None:
        return _NUMBER
    if known.message_type is not None:
        return _MESSAGE
    if known.cpp_type == known.CPPTYPE_STRING:
        return _TEXT
    if known.cpp_type in (known.CPPTYPE_FLOAT, known.CPPTYPE_DOUBLE):
        return 0
    size = field.end - field.start
    if size < _EXACT:
        return size * _NUMBER
    count = np.count_nonzero(np.frombuffer(content, np.int8, size, field.start) >= 0)
    return int(count) * _NUMBER


def _check_text(path: Path, content: bytes, field: Field) -> None:
    """Raise InvalidModelError where a name is no UTF-8; protobuf hands such text out as bytes."""
    known = field.known
    is_text = known.type == known.TYPE_STRING and known.name not in _FREE_TEXT
    if not is_text and (field.kind.name, known.name) not in _UTF8_BYTES:
        return
    text = content[field.start : field.end]
    try:
        text.decode()
    except UnicodeDecodeError as error:
        raise InvalidModelError(
            path, f"holds the name {text[:80]!r}, which is no UTF-8. Export it again"
        ) from error


Key = tuple[str, str, str]


def check_nodes(path: Path, model: ModelProto) -> None:
    """Check what ONNX's own checks pass over, or would run out of memory at.

    Raises:
        InvalidModelError: A function calls itself, a Split has fewer outputs than it says, or an input, output
            or attribute is of no known type.
        TooLargeError: Functions written out come to more than ``MAX_CALLED_NODES`` nodes.
    """
    for info in (*model.graph.input, *model.graph.output):
        if (kind := info.type.tensor_type.elem_type) not in TensorProto.DataType.values():
            raise InvalidModelError(path, f"value '{info.name}' has the unknown element type {kind}")
    for nodes in (model.graph.node, *(function.node for function in model.functions)):
        for node in _nodes(nodes):
            _check_attributes(path, node)
    _check_calls(path, model)


def _check_attributes(path: Path, node: NodeProto) -> None:
    where = f"node '{node.name or next(iter(node.output), '')}' ({node.op_type})"
    for attribute in node.attribute:
        if attribute.type == attribute.UNDEFINED:
            raise InvalidModelError(path, f"{where} has an attribute '{attribute.name}' of no type")
        if attribute.name == "num_outputs" and attribute.i > len(node.output):
            raise InvalidModelError(
                path, f"{where} says it has {attribute.i} outputs, and has {len(node.output)}"
            )


def _check_calls(path: Path, model: ModelProto) -> None:
    if not model.functions:
        return
    functions = {(f.domain, f.name, f.overload): f for f in model.functions}
    sizes: dict[Key, int] = {}
    for key in functions:
        _measure(path, key, functions, sizes)
    total = sum(sizes.get(_called(node), 1) for node in _nodes(model.graph.node))
    if total > MAX_CALLED_NODES:
        raise TooLargeError(
            path, f"its functions come to {total} nodes; at most {MAX_CALLED_NODES} are taken"
        )


def _measure(path: Path, key: Key, functions: Mapping[Key, FunctionProto], sizes: dict[Key, int]) -> None:
    """Enter in ``sizes`` how many nodes the function ``key``, and those that it calls, come to."""
    pending = [key]
    open_: set[Key] = set()
    while pending:
        key = pending[-1]
        called = {_called(node) for node in _nodes(functions[key].node)} & functions.keys()
        missing = called - sizes.keys()
        if missing & open_ or key in missing:
            raise InvalidModelError(path, f"the function '{key[1]}' calls itself. Export it again")
        if missing:
            open_.add(key)
            pending.extend(missing)
            continue
        sizes[key] = 1 + sum(sizes.get(_called(node), 1) for node in _nodes(functions[key].node))
        open_.discard(key)
        pending.pop()


def _called(node: NodeProto) -> Key:
    return node.domain, node.op_type, node.overload


def _nodes(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    """Yield nodes and those of their subgraphs."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _nodes(graph.node)
