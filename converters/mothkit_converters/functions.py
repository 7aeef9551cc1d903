"""Operators that ONNX itself defines by others, written out as these."""

from __future__ import annotations

from collections.abc import Callable

import onnx.inliner
from onnx import ModelProto, NodeProto, defs

from mothkit_converters.scopes import all_nodes, opsets_of
from mothkit_converters.shapes import inferred


def inline_defined(model: ModelProto, served: Callable[[NodeProto], bool]) -> ModelProto:
    """Return ``model`` with ONNX's own definition in the place of operators that are not ``served``.

    Args:
        model: A model whose tensors are all initializers of its graph.
        served: Whether there is a converter for a node.
    """
    opsets = opsets_of(model)
    before: set[tuple[str, str]] = set()
    while lacking := {
        (node.domain, node.op_type)
        for node in all_nodes(model.graph)
        if not served(node) and _has_definition(node, opsets.get(node.domain, 1))
    }:
        if lacking == before:
            break  # their definitions hold for other versions
        before = lacking
        try:
            written = onnx.inliner.inline_selected_functions(
                inferred(model), sorted(lacking), inline_schema_functions=True
            )
        except RuntimeError:
            break  # what it is at all depends on a type that cannot be inferred
        del written.graph.initializer[:]
        del written.graph.value_info[:]
        written.graph.initializer.extend(model.graph.initializer)
        model = written
    return model


def _has_definition(node: NodeProto, opset: int) -> bool:
    try:
        schema = defs.get_schema(node.op_type, domain=node.domain, max_inclusive_version=opset)
    except defs.SchemaError:
        return False
    return bool(schema.has_function or schema.has_context_dependent_function)
