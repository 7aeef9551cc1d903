"""What the graph is made of: operators on an allow-list, a range of opsets."""

from collections import Counter
from collections.abc import Iterator

from onnx import NodeProto

from mothkit.gate.bench import Bench
from mothkit.gate.findings import Checked, Finding, compared, error, holds
from mothkit.gate.policy import OperatorsCheck
from mothkit_converters import Source
from mothkit_converters.scopes import all_nodes, inner_graphs

_OWN = ("", "ai.onnx")
_SHOWN = 8


def check_operators(settings: OperatorsCheck, bench: Bench) -> Checked:
    """Return whether every operator is allowed, and the opset within its range."""
    used = count_operators(bench.source)
    opset = bench.source.opset
    findings: list[Finding] = []
    if settings.allow is not None:
        allowed = {name.removeprefix("ai.onnx:") for name in settings.allow}
        findings.append(_listed([name for name in used if name not in allowed], len(used)))
    if opset is None and (settings.min_opset, settings.max_opset) != (None, None):
        findings.append(error("operators.opset", "the file imports no opset of ONNX's own"))
    elif opset is not None:
        findings += compared(
            "operators.opset", opset, "opset", least=settings.min_opset, most=settings.max_opset
        )
    return Checked(findings=findings, measured={"operators": used, "opset": opset})


def count_operators(source: Source) -> dict[str, int]:
    """Return how often each operator stands in the graph, in graphs within it, and in the model's functions.

    Those outside ONNX's own domain are ``domain:Operator``. Calls of the model's functions are left out, their
    bodies counted.
    """
    functions = {(function.domain, function.name) for function in source.proto.functions}
    counted = Counter(
        node.op_type if node.domain in _OWN else f"{node.domain}:{node.op_type}"
        for node in _nodes(source)
        if (node.domain, node.op_type) not in functions
    )
    return dict(sorted(counted.items()))


def _nodes(source: Source) -> Iterator[NodeProto]:
    yield from all_nodes(source.proto.graph)
    for function in source.proto.functions:
        for node in function.node:
            yield node
            for graph in inner_graphs(node):
                yield from all_nodes(graph)


def _listed(others: list[str], total: int) -> Finding:
    shown = ", ".join(others[:_SHOWN]) + (", ..." if len(others) > _SHOWN else "")
    told = f"not on the list: {shown}" if others else f"all {total} operators are on the list"
    return holds("operators.allow", passed=not others, message=told)
