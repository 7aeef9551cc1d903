"""A shadow copy that converters can take node by node: same values under the same names, in plainer form.

The original is never touched. No pass here merges or renames weights, so each initializer of the shadow is
one of the original.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx.inliner
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

from mothkit_converters.batches import free_batch
from mothkit_converters.branches import inline_ifs
from mothkit_converters.classical import reason, rewrite, scores_value
from mothkit_converters.errors import UnknownValueError, UnsupportedOpError
from mothkit_converters.folding import fold
from mothkit_converters.functions import inline_defined
from mothkit_converters.fusing import DOMAIN, fuse
from mothkit_converters.halves import widen
from mothkit_converters.ops import find_converter, refused
from mothkit_converters.scopes import (
    MARK,
    all_graphs,
    all_nodes,
    hoist,
    label,
    opsets_of,
    put_strays_home,
    read_by,
)
from mothkit_converters.shapes import add_shapes, inferred
from mothkit_converters.source import Source
from mothkit_converters.tensors import constant_tensor, outline

_OPTIONAL_OUTPUTS = frozenset({"Dropout", "LayerNormalization", "MaxPool"})
_SCALARS = ("value_float", "value_floats", "value_int", "value_ints")


@dataclass(frozen=True, slots=True)
class Shadow:
    """A model in plain form.

    Attributes:
        model: What computes the outputs that were asked for, and nothing else.
        derived: Names of initializers that no file stores: what its integers or an operator's
            definition say.
    """

    model: ModelProto
    derived: frozenset[str]


def canonicalise(source: Source, outputs: Sequence[str], *, keep_inputs: bool = True) -> Shadow:
    """Return a copy of ``source``'s model that computes ``outputs`` and nothing else.

    Args:
        source: The model.
        outputs: Names of any of its values.
        keep_inputs: Whether to keep inputs that ``outputs`` do not depend on.

    Raises:
        UnknownValueError: The graph has no value of that name.
        UnsupportedOpError: An operator that is needed cannot be served.
    """
    model = _typed_copy(source)
    _gather_tensors(model.graph)
    derived = rewrite(model)
    _select_outputs(source, model, outputs)
    model = _without_functions(model)
    _keep_needed(model.graph)
    _refuse_sparse(model.graph)
    if not keep_inputs:
        _drop_inputs(model.graph)
    _see_through_identities(model.graph)
    widen(model.graph)
    derived |= fold(model)
    while inline_ifs(model.graph):
        _see_through_identities(model.graph)
        derived |= fold(model)
    _keep_needed(model.graph)
    _refuse_unserved(model)
    if fuse(model.graph):
        _keep_needed(model.graph)
        if all(entry.domain != DOMAIN for entry in model.opset_import):
            model.opset_import.append(onnx.helper.make_opsetid(DOMAIN, 1))
    for index, node in enumerate(all_nodes(model.graph)):
        _trim(node, model.graph)
        node.name = f"{label(node)}{MARK}{index}"  # unique, as OnnxGraph wants them
    add_shapes(model)
    free_batch(model)
    return Shadow(model, frozenset(derived))


def _typed_copy(source: Source) -> ModelProto:
    """Return a copy with initializers no longer among the inputs, and shapes inferred afresh."""
    model = outline(source.proto, only_floats=True)  # weights stay where they are
    stored = {tensor.name for tensor in model.graph.initializer}
    real_inputs = [info for info in model.graph.input if info.name not in stored]
    del model.graph.input[:]
    model.graph.input.extend(real_inputs)
    del model.graph.value_info[:]  # may be stale
    for entry in (*model.opset_import, *all_nodes(model.graph)):
        entry.domain = "" if entry.domain == "ai.onnx" else entry.domain
    put_strays_home(model)
    model.ir_version = max(model.ir_version, 4)  # below 4, initializers had to be inputs
    return model


def _select_outputs(source: Source, model: ModelProto, outputs: Sequence[str]) -> None:
    graph = model.graph
    values = {name for node in graph.node for name in node.output if name}
    values |= {info.name for info in graph.input} | {tensor.name for tensor in graph.initializer}
    if missing := [name for name in outputs if name not in values]:
        for node in graph.node:
            if node.op_type == "LinearClassifier" and missing[0] == scores_value(
                node
            ):  # what its rewriting would have made
                why = reason(model, node) or "its scores cannot be computed"
                raise UnsupportedOpError(node.op_type, label(node), why, path=source.path)
        raise UnknownValueError(
            source.path,
            f"the graph has no value '{missing[0]}'; expected an input, a weight or a node's output",
        )
    if list(outputs) == [info.name for info in graph.output]:
        return
    known = inferred(model).graph
    infos = {info.name: info for info in (*known.value_info, *known.output, *known.input)}
    del graph.output[:]
    graph.output.extend(infos.get(name, onnx.ValueInfoProto(name=name)) for name in outputs)


def _without_functions(model: ModelProto) -> ModelProto:
    """Return ``model`` with functions written out: its own, and what ONNX defines so and nothing else serves."""
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
        _gather_tensors(model.graph)
    opsets = opsets_of(model)
    written = inline_defined(model, lambda node: _served(node, opsets))
    if written is not model:
        _gather_tensors(written.graph)
    return written


def _gather_tensors(graph: GraphProto) -> None:
    """Make every tensor an initializer of ``graph`` itself: also what Constant nodes, branches and loops hold."""
    for part in all_graphs(graph):
        _lift_constants(part)
    hoist(graph)


def _lift_constants(graph: GraphProto) -> None:
    """Turn Constant nodes into initializers, named as their outputs."""
    kept = []
    for node in graph.node:
        tensor = constant_tensor(node) or _scalar_constant(node)
        if tensor is None:
            kept.append(node)
            continue
        lifted = graph.initializer.add()
        lifted.CopyFrom(tensor)
        lifted.name = node.output[0]
    del graph.node[:]
    graph.node.extend(kept)


def _scalar_constant(node: NodeProto) -> TensorProto | None:
    given = next((attribute for attribute in node.attribute if attribute.name in _SCALARS), None)
    if node.op_type != "Constant" or given is None:
        return None
    value = onnx.helper.get_attribute_value(given)
    kind = np.float32 if "float" in given.name else np.int64
    return numpy_helper.from_array(np.asarray(value, dtype=kind))


def _keep_needed(graph: GraphProto) -> None:
    """Drop nodes and initializers that no output depends on."""
    needed, kept = {info.name for info in graph.output}, []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(read_by(node))
    del graph.node[:]
    graph.node.extend(reversed(kept))
    for index in reversed(range(len(graph.initializer))):  # a list put in anew would be a copy of all weights
        if graph.initializer[index].name not in needed:
            del graph.initializer[index]


def _drop_inputs(graph: GraphProto) -> None:
    """Drop inputs that no output depends on: labels, or what only training reads."""
    read = {name for node in graph.node for name in read_by(node)} | {info.name for info in graph.output}
    kept = [info for info in graph.input if info.name in read]
    del graph.input[:]
    graph.input.extend(kept)


def _refuse_sparse(graph: GraphProto) -> None:
    """Raise UnsupportedOpError where a node reads a tensor that the file stores sparse."""
    sparse = {entry.values.name for part in all_graphs(graph) for entry in part.sparse_initializer}
    for node in all_nodes(graph) if sparse else ():
        if found := sparse.intersection(node.input):
            why = (
                f"it reads the sparse initializer '{found.pop()}', whose zeros have no place; store it dense"
            )
            raise UnsupportedOpError(node.op_type, label(node), why)


def _see_through_identities(graph: GraphProto) -> None:
    """Let nodes read an initializer itself where they read an Identity of it."""
    stored = {tensor.name for tensor in graph.initializer}
    alias: dict[str, str] = {}
    for node in all_nodes(graph):
        for i, name in enumerate(node.input):
            node.input[i] = alias.get(name, name)
        if node.op_type == "Identity" and node.input[0] in stored:
            alias[node.output[0]] = node.input[0]
    _keep_needed(graph)


def _refuse_unserved(model: ModelProto) -> None:
    """Raise UnsupportedOpError for the first node that has no converter."""
    opsets = opsets_of(model)
    for node in all_nodes(model.graph):
        if not _served(node, opsets):
            raise refused(node, opsets, reason(model, node))


def _served(node: NodeProto, opsets: Mapping[str, int]) -> bool:
    return find_converter(node.op_type, opsets.get(node.domain, 1), node.domain) is not None


def _trim(node: NodeProto, graph: GraphProto) -> None:
    """Cut optional inputs and outputs off the end of ``node`` where nothing stands for them."""
    while node.input and not node.input[-1]:
        node.input.pop()
    if node.op_type not in _OPTIONAL_OUTPUTS:
        return
    read = {name for other in all_nodes(graph) for name in other.input}
    read |= {info.name for part in all_graphs(graph) for info in part.output}
    while len(node.output) > 1 and node.output[-1] not in read:
        node.output.pop()
