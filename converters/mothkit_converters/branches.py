"""An If whose condition the file decides: the branch that runs takes its place."""

from __future__ import annotations

import math

from onnx import GraphProto, NodeProto, helper

from mothkit_converters.scopes import all_graphs, rename
from mothkit_converters.tensors import array_of


def inline_ifs(graph: GraphProto) -> bool:
    """Put the branch that runs in the place of each If with a stored condition, also within other graphs.

    Args:
        graph: A graph in which every value has a name of its own and all tensors are its own initializers.

    Returns:
        Whether anything changed. Other nodes may be decided by the file then.
    """
    conditions = {
        tensor.name: bool(array_of(tensor).item())
        for tensor in graph.initializer
        if math.prod(tensor.dims) == 1 and tensor.data_type == tensor.BOOL
    }
    changed = False
    for part in all_graphs(graph):
        if any(_decided(node, conditions) for node in part.node):
            nodes = [inner for node in part.node for inner in _inlined(node, conditions)]
            del part.node[:]
            part.node.extend(nodes)
            changed = True
    return changed


def _decided(node: NodeProto, conditions: dict[str, bool]) -> bool:
    return node.op_type == "If" and not node.domain and node.input[0] in conditions


def _inlined(node: NodeProto, conditions: dict[str, bool]) -> list[NodeProto]:
    """Return what computes the outputs of ``node`` once its condition is known: itself where it is not."""
    if not _decided(node, conditions):
        return [node]
    chosen = "then_branch" if conditions[node.input[0]] else "else_branch"
    branch = next(attribute.g for attribute in node.attribute if attribute.name == chosen)
    made = {name for inner in branch.node for name in inner.output}
    names: dict[str, str] = {}
    copies: list[NodeProto] = []
    for info, output in zip(branch.output, node.output, strict=False):
        if not output:
            continue
        if info.name in made and info.name not in names:
            names[info.name] = output
        else:  # a value from outside, or one that is an output already
            copies.append(helper.make_node("Identity", [names.get(info.name, info.name)], [output]))
    rename(branch, names)
    return [inner for part in [*branch.node] for inner in _inlined(part, conditions)] + copies
