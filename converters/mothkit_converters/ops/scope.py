"""What a converter can ask of a graph whose nodes hold graphs of their own."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

from onnx import GraphProto
from onnx2torch.onnx_graph import OnnxGraph
from onnx2torch.onnx_node import OnnxNode
from torch import nn

from mothkit_converters import quantisation


class Body(NamedTuple):
    """The network of a graph within a node.

    Attributes:
        network: Takes the graph's inputs, then the values of ``captured``; returns a tuple of its outputs.
        captured: Names of values of the graphs around it that it reads.
    """

    network: nn.Module
    captured: tuple[str, ...]


class Scope(OnnxGraph):  # type: ignore[misc]  # it has no types
    """A graph in which the initializers of the graphs around it can be seen."""

    def __init__(
        self, graph: GraphProto, outer: Scope | None, assemble: Callable[[GraphProto], Body]
    ) -> None:
        super().__init__(graph)
        self._assemble = assemble
        if outer is not None:
            hidden = {info.name for info in graph.input}
            seen = {name: value for name, value in outer.initializers.items() if name not in hidden}
            self._initializers: dict[str, Any] = {**seen, **self.initializers}

    def body(self, node: OnnxNode, attribute: str) -> Body:
        """Return the network of the graph that ``node`` holds as ``attribute``."""
        graph = next(entry.g for entry in node.proto.attribute if entry.name == attribute)
        return self._assemble(graph)

    @cached_property
    def carried(self) -> frozenset[str]:
        """Names of the integers that are kept as floats."""
        return quantisation.carried(self.proto)


def is_carried(node: OnnxNode, graph: OnnxGraph) -> bool:
    """Return whether the first output of ``node``, which holds integers, is kept as floats."""
    return isinstance(graph, Scope) and node.output_values[0] in graph.carried
