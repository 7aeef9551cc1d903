"""Graphs within the nodes of a graph: finding them, and one name for each value of them all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from onnx import GraphProto, ModelProto, NodeProto

MARK = "\x1f"  # between a node's own name and our number


def label(node: NodeProto) -> str:
    """Return the name by which messages call ``node``."""
    return node.name.partition(MARK)[0] or next(filter(None, node.output), node.op_type)


def opsets_of(model: ModelProto) -> dict[str, int]:
    """Return the opset that ``model`` imports of each domain."""
    return {entry.domain: entry.version for entry in model.opset_import}


def inner_graphs(node: NodeProto) -> Iterator[GraphProto]:
    """Yield the graphs that ``node`` holds: branches of an If, the body of a Loop."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def all_graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """Yield ``graph`` and every graph within it, the outer before the inner."""
    yield graph
    for node in graph.node:
        for inner in inner_graphs(node):
            yield from all_graphs(inner)


def all_nodes(graph: GraphProto) -> Iterator[NodeProto]:
    """Yield the nodes of ``graph`` and of every graph within it."""
    for part in all_graphs(graph):
        yield from part.node


def read_by(node: NodeProto) -> set[str]:
    """Return the values that ``node`` reads, also from within its graphs."""
    names = set(node.input) - {""}
    for graph in inner_graphs(node):
        names.update(info.name for info in graph.output)
        for inner in graph.node:
            names |= read_by(inner)
    return names


def unique_names(graph: GraphProto) -> list[tuple[GraphProto, dict[str, str]]]:
    """Return the graphs within ``graph``, outer before inner, each with a name for every value it defines.

    No two names are the same in all of ``graph``. A value keeps its own where nothing came before it; else
    it is called by the way to it: ``node/attribute/value``. Tensors are values here, stored in any way.
    """
    taken = set(_defined(graph))
    found: list[tuple[GraphProto, dict[str, str]]] = []
    for node in graph.node:
        _name_within(node, taken, found)
    return found


def _name_within(node: NodeProto, taken: set[str], found: list[tuple[GraphProto, dict[str, str]]]) -> None:
    for attribute in node.attribute:
        for inner in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
            names: dict[str, str] = {}
            found.append((inner, names))
            for name in dict.fromkeys(_defined(inner)):
                names[name] = _free(name, f"{label(node)}/{attribute.name}/{name}", taken)
                taken.add(names[name])
            for nested in inner.node:
                _name_within(nested, taken, found)


def _defined(graph: GraphProto) -> Iterator[str]:
    yield from (info.name for info in graph.input)
    yield from (tensor.name for tensor in graph.initializer)
    yield from (name for node in graph.node for name in node.output if name)


def _free(name: str, longer: str, taken: set[str]) -> str:
    key, count = name if name not in taken else longer, 1
    while key in taken:
        count += 1
        key = f"{longer}#{count}"
    return key


def rename(graph: GraphProto, names: Mapping[str, str]) -> None:
    """Call values by their new ``names`` wherever ``graph``, and any graph within it, has them."""
    for part in all_graphs(graph):
        for info in (*part.input, *part.output, *part.initializer, *part.value_info):
            info.name = names.get(info.name, info.name)
        for node in part.node:
            node.input[:] = [names.get(name, name) for name in node.input]
            node.output[:] = [names.get(name, name) for name in node.output]


def hoist(graph: GraphProto) -> None:
    """Give each value a name of its own, and the initializers of the graphs within ``graph`` to ``graph``."""
    for inner, names in reversed(unique_names(graph)):
        changed = {old: new for old, new in names.items() if old != new}
        if changed:
            rename(inner, changed)
        given = {
            info.name for info in inner.input
        }  # a caller's value always takes the place of the stored one
        graph.initializer.extend(tensor for tensor in inner.initializer if tensor.name not in given)
        del inner.initializer[:]


def put_strays_home(model: ModelProto) -> None:
    """Put operators of its own that onnxruntime writes into ONNX's domain into com.microsoft."""
    opset = next((version for domain, version in opsets_of(model).items() if domain in ("", "ai.onnx")), 1)
    names = {"SimplifiedLayerNormalization"} | ({"LayerNormalization"} if opset < 17 else set())
    for node in all_nodes(model.graph):
        if node.op_type in names and node.domain in ("", "ai.onnx"):
            node.domain = "com.microsoft"
    if "com.microsoft" not in opsets_of(model):
        model.opset_import.add(domain="com.microsoft", version=1)
