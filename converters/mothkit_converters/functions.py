"""Operators that ONNX itself defines by others, written out as these."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx.inliner
from onnx import ModelProto, NodeProto, defs, helper

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
    while True:
        nodes = [
            node
            for node in all_nodes(model.graph)
            if not served(node) and _definition(node, opsets.get(node.domain, 1)) is not None
        ]
        lacking = {(node.domain, node.op_type) for node in nodes}
        if lacking == before:
            break  # none, or their definitions hold for other versions
        before = lacking
        for node in nodes:
            _spell_out(node, opsets.get(node.domain, 1))
        try:
            written = onnx.inliner.inline_selected_functions(
                _typed(model), sorted(lacking), inline_schema_functions=True
            )
        except RuntimeError:
            break  # what it is at all depends on a type that cannot be inferred
        del written.graph.initializer[:]
        del written.graph.value_info[:]
        written.graph.initializer.extend(model.graph.initializer)
        model = written
    return model


def _definition(node: NodeProto, opset: int) -> defs.OpSchema | None:
    """Return the schema of ``node`` if it says how to compute it by other operators."""
    schema: Any  # its stub lacks has_function
    try:
        schema = defs.get_schema(node.op_type, domain=node.domain, max_inclusive_version=opset)
    except defs.SchemaError:
        return None
    return schema if schema.has_function or schema.has_context_dependent_function else None


def _typed(model: ModelProto) -> ModelProto:
    """Return an outline of ``model`` with a type for each value that one is known for."""
    typed = inferred(model)
    typed.graph.value_info.extend(
        helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in typed.graph.initializer
    )
    return typed


def _spell_out(node: NodeProto, opset: int) -> None:
    """Write the defaults of attributes into ``node``, since a definition may refer to them."""
    schema, given = _definition(node, opset), {attribute.name for attribute in node.attribute}
    for name, attribute in schema.attributes.items() if schema else ():
        if name not in given and attribute.default_value.name:
            node.attribute.append(attribute.default_value)
