"""Activations that exporters write out in several operators, put together again: one kernel in place of five.

Silu is ``x * sigmoid(x)``; Gelu is ``x / 2 * (1 + erf(x / sqrt 2))``, its constants stored as scalars.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from onnx import GraphProto, NodeProto, helper

from mothkit_converters.scopes import all_nodes
from mothkit_converters.tensors import FLOATS, array_of

DOMAIN = "com.microsoft"  # where both have a name of their own
_ARITHMETIC = frozenset({"Add", "Div", "Mul", "Pow", "Sub"})
_CLOSE = 1e-5  # relative
_DEEPEST = 6  # products of products that are looked into: each may double what there is to look at


@dataclass(frozen=True, slots=True)
class _Graph:
    """What tells how a value came about: its node, and what the stored scalars are."""

    makers: Mapping[str, NodeProto]
    scalars: Mapping[str, float]

    def factors(self, value: str, depth: int = _DEEPEST) -> tuple[list[str], float]:
        """Return the values whose product ``value`` is, and the constant among them."""
        if value in self.scalars:
            return [], self.scalars[value]
        node = self.makers.get(value)
        if node is None or node.op_type not in ("Mul", "Div") or not depth:
            return [value], 1.0
        first, second = node.input
        if node.op_type == "Div":
            if not self.scalars.get(second):
                return [value], 1.0
            values, constant = self.factors(first, depth - 1)
            return values, constant / self.scalars[second]
        (left, a), (right, b) = self.factors(first, depth - 1), self.factors(second, depth - 1)
        return left + right, a * b

    def made_by(self, value: str, op: str) -> NodeProto | None:
        """Return the node that makes ``value``, if it is an ``op``."""
        node = self.makers.get(value)
        return node if node is not None and node.op_type == op else None


def fuse(graph: GraphProto) -> bool:
    """Put activations of ``graph`` together, in place; return whether there were any.

    What they were made of stays, for those who read it.
    """
    found = _Graph({name: node for node in graph.node for name in node.output}, _scalars(graph))
    changed = False
    for node in graph.node:
        if node.op_type == "Mul":
            values, constant = found.factors(node.output[0])
            if len(values) == 2:
                changed |= _fuse_silu(node, found, values, constant) or _fuse_gelu(
                    node, found, values, constant
                )
    return changed


def _fuse_silu(node: NodeProto, found: _Graph, values: list[str], constant: float) -> bool:
    for x, gate in (values, values[::-1]):
        sigmoid = found.made_by(gate, "Sigmoid")
        if sigmoid is not None and sigmoid.input[0] == x and constant == 1:
            _become(node, "QuickGelu", x, alpha=1.0)
            return True
    return False


def _fuse_gelu(node: NodeProto, found: _Graph, values: list[str], constant: float) -> bool:
    for x, gate in (values, values[::-1]):
        if math.isclose(constant, 0.5, rel_tol=_CLOSE) and _is_one_plus_erf(gate, x, found):
            _become(node, "Gelu", x)
            return True
    return False


def _is_one_plus_erf(gate: str, x: str, found: _Graph) -> bool:
    """Return whether ``gate`` is ``1 + erf(x / sqrt 2)``."""
    total = found.made_by(gate, "Add")
    for one, other in () if total is None else (total.input, total.input[::-1]):
        erf = found.made_by(other, "Erf")
        if erf is not None and found.scalars.get(one) == 1:
            inner, scale = found.factors(erf.input[0])
            return inner == [x] and math.isclose(scale, math.sqrt(0.5), rel_tol=_CLOSE)
    return False


def _become(node: NodeProto, op: str, x: str, **attributes: Any) -> None:  # noqa: ANN401 - as ONNX has it
    made = helper.make_node(op, [x], list(node.output), name=node.name, domain=DOMAIN, **attributes)
    node.CopyFrom(made)


def _scalars(graph: GraphProto) -> dict[str, float]:
    """Return the stored numbers that nothing trains: those that arithmetic alone reads."""
    stored = {
        tensor.name: float(array_of(tensor).ravel()[0])
        for tensor in graph.initializer
        if tensor.data_type in FLOATS and math.prod(tensor.dims) == 1 and len(tensor.dims) <= 1
    }
    read = {name for node in all_nodes(graph) if node.op_type not in _ARITHMETIC for name in node.input}
    return {name: number for name, number in stored.items() if name not in read}
