"""If, Loop and Scan: graphs that run when, and as often as, the data say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from onnx import GraphProto, NodeProto, TensorProto, helper
from onnx2torch.onnx_graph import OnnxGraph
from onnx2torch.onnx_node import OnnxNode
from onnx2torch.utils.common import OnnxMapping, OperationConverterResult
from torch import Tensor, nn

from mothkit_converters.ops.registry import serve
from mothkit_converters.ops.scope import Body, Scope


class Empty(NamedTuple):
    """What a stacked output is when nothing was stacked: its type, and the shape of one slice."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]


class Steps(NamedTuple):
    """How Scan goes through its inputs and puts its outputs together: an axis and a direction for each."""

    input_axes: Sequence[int]
    input_backwards: Sequence[int]
    output_axes: Sequence[int]
    output_backwards: Sequence[int]


class If(nn.Module):
    """Runs one of two graphs.

    Attributes:
        captured: Names of the outer values that either graph reads.
    """

    numeric = frozenset({0})

    def __init__(self, then: Body, otherwise: Body) -> None:
        super().__init__()
        self.captured = tuple(dict.fromkeys(then.captured + otherwise.captured))
        self.branches = nn.ModuleList([otherwise.network, then.network])
        self._places = [[self.captured.index(name) for name in body.captured] for body in (otherwise, then)]

    def forward(self, condition: Any, *captured: Any) -> Any:  # noqa: ANN401 - of any type
        """Return the outputs of the graph that ``condition`` chooses, one alone as it is."""
        chosen = int(_truth(condition))
        outputs = self.branches[chosen](*(captured[place] for place in self._places[chosen]))
        return outputs[0] if len(outputs) == 1 else outputs


@serve("If", 1, 11, 13, 16, 19, 21, 23, 24, 25)
def _if(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    scope = _scope(graph)
    module = If(scope.body(node, "then_branch"), scope.body(node, "else_branch"))
    return OperationConverterResult(
        module, OnnxMapping((*node.input_values, *module.captured), node.output_values)
    )


class Loop(nn.Module):
    """Runs a graph over and over, each time on what the last time returned.

    Attributes:
        numeric: Place of the trip count, which may be a Python number.
    """

    numeric = frozenset({0})

    def __init__(self, body: Body, *, carried: int, scanned: Sequence[Empty], count: int) -> None:
        super().__init__()
        self.body = body.network
        self._carried, self._scanned, self._count = carried, scanned, count

    def forward(self, trips: Any, condition: Any, *given: Any) -> Any:  # noqa: ANN401 - of any type
        """Return the carried values after the last trip, then what each trip gave, stacked.

        Args:
            trips: How many at most, None for no bound.
            condition: Whether there is a first trip, None for yes.
            given: What is carried, of any types; then the values that the graph captured.
        """
        carried, captured = given[: self._carried], given[self._carried :]
        device = _device(given)
        stacks: list[list[Any]] = [[] for _ in self._scanned]
        limit = None if trips is None else int(_number(trips))
        condition = torch.tensor(1, device=device).bool() if condition is None else condition
        trip = 0
        while (limit is None or trip < limit) and _truth(condition):
            step = torch.tensor(trip, device=device)
            condition, *results = self.body(step, condition, *carried, *captured)
            carried = results[: self._carried]
            for stack, value in zip(stacks, results[self._carried :], strict=True):
                stack.append(value)
            trip += 1
        scanned = (
            _stack(stack, empty, 0, device) for stack, empty in zip(stacks, self._scanned, strict=True)
        )
        return _outputs((*carried, *scanned), self._count)


class Scan(nn.Module):
    """Runs a graph on one slice of the scanned inputs after another."""

    def __init__(
        self, body: Body, steps: Steps, *, states: int, scanned: Sequence[Empty], count: int
    ) -> None:
        super().__init__()
        self.body = body.network
        self._steps, self._states, self._scanned, self._count = steps, states, scanned, count

    def forward(self, *given: Any) -> Any:  # noqa: ANN401 - one tensor or several
        """Return the last states, then what each step gave, stacked.

        Args:
            given: The first states, the scanned inputs, and the values that the graph captured.
        """
        return _outputs(self.scan(*given), self._count)

    def scan(self, *given: Any) -> tuple[Any, ...]:  # noqa: ANN401 - of any types
        """Return what ``forward`` does, as a tuple in any case."""
        last = self._states + len(self._steps.input_axes)
        states, captured = given[: self._states], given[last:]
        inputs = [
            _slices(x, axis, backwards=backwards)
            for x, axis, backwards in zip(
                given[self._states : last], self._steps.input_axes, self._steps.input_backwards, strict=True
            )
        ]
        stacks: list[list[Any]] = [[] for _ in self._scanned]
        for slices in zip(*inputs, strict=True):
            results = self.body(*states, *slices, *captured)
            states = results[: self._states]
            for stack, value in zip(stacks, results[self._states :], strict=True):
                stack.append(value)
        outputs = [
            _stack(stack[::-1] if backwards else stack, empty, axis, _device(given))
            for stack, empty, axis, backwards in zip(
                stacks, self._scanned, self._steps.output_axes, self._steps.output_backwards, strict=True
            )
        ]
        return (*states, *outputs)


class BatchedScan(Scan):
    """Scan of version 8: once for each element of a batch, each over its own length."""

    def forward(self, lengths: Any, *given: Any) -> Any:  # noqa: ANN401 - one tensor or several
        """Return the last states and the stacked results, each with the batch as its first dimension.

        Args:
            lengths: How long each sequence is [batch], None where all are as long as the input.
            given: The first states [batch, ...], the scanned inputs [batch, length, ...], and the captured.
        """
        last = self._states + len(self._steps.input_axes)
        batched, captured = given[:last], given[last:]
        longest = batched[-1].shape[1]
        kept = [longest] * len(batched[-1]) if lengths is None else lengths.tolist()
        runs = []
        for index, length in enumerate(kept):
            states = [x[index] for x in batched[: self._states]]
            inputs = [x[index, :length] for x in batched[self._states :]]
            found = self.scan(*states, *inputs, *captured)
            padded = [_padded(x, longest) for x in found[self._states :]]
            runs.append((*found[: self._states], *padded))
        return _outputs(tuple(torch.stack(values) for values in zip(*runs, strict=True)), self._count)


@serve("Loop", 1, 11, 13, 16, 19, 21, 23, 24, 25)
def _loop(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    body, proto = _scope(graph).body(node, "body"), _graph_of(node)
    carried = len(proto.input) - 2
    given = (*node.input_values, "", "")[: carried + 2]  # the first two can be left out
    module = Loop(body, carried=carried, scanned=_empties(proto, carried + 1), count=len(node.output_values))
    return OperationConverterResult(module, OnnxMapping((*given, *body.captured), node.output_values))


@serve("Scan", 9, 11, 16, 19, 21, 23, 24, 25)
def _scan(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    return _scan_module(Scan, node, graph, node.input_values)


@serve("Scan", 8)  # has a batch, and lengths of its sequences
def _batched_scan(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    return _scan_module(BatchedScan, node, graph, node.input_values[1:])


def _scan_module(
    kind: type[Scan], node: OnnxNode, graph: OnnxGraph, given: Sequence[str]
) -> OperationConverterResult:
    body, proto = _scope(graph).body(node, "body"), _graph_of(node)
    inputs = int(node.attributes["num_scan_inputs"])
    states = len(given) - inputs
    outputs = len(proto.output) - states
    steps = Steps(
        node.attributes.get("scan_input_axes", [0] * inputs),
        node.attributes.get("scan_input_directions", node.attributes.get("directions", [0] * inputs)),
        node.attributes.get("scan_output_axes", [0] * outputs),
        node.attributes.get("scan_output_directions", [0] * outputs),
    )
    module = kind(body, steps, states=states, scanned=_empties(proto, states), count=len(node.output_values))
    return OperationConverterResult(
        module, OnnxMapping((*node.input_values, *body.captured), node.output_values)
    )


def _scope(graph: OnnxGraph) -> Scope:
    if not isinstance(graph, Scope):
        raise TypeError("graphs within nodes are built by mothkit's own assembly")
    return graph


def _graph_of(node: OnnxNode) -> GraphProto:
    proto: NodeProto = node.proto
    graph: GraphProto = next(attribute.g for attribute in proto.attribute if attribute.name == "body")
    return graph


def _empties(graph: GraphProto, first: int) -> list[Empty]:
    """Return what the outputs of ``graph`` from the ``first`` on are made of, as far as the file says."""
    types = [info.type.tensor_type for info in graph.output[first:]]
    return [
        Empty(
            np.dtype(helper.tensor_dtype_to_np_dtype(kind.elem_type or TensorProto.FLOAT)),
            tuple(max(dim.dim_value, 0) for dim in kind.shape.dim),
        )
        for kind in types
    ]


def _truth(value: Any) -> bool:  # noqa: ANN401 - a tensor of one element, or a Python truth
    return bool(_number(value))


def _number(value: Any) -> Any:  # noqa: ANN401 - a tensor or list of one element, or a number
    if isinstance(value, Tensor):
        return value.item()
    return value[0] if isinstance(value, list) else value


def _device(values: Sequence[Any]) -> torch.device | None:
    return next((value.device for value in values if isinstance(value, Tensor)), None)


def _slices(x: Tensor, axis: int, *, backwards: int) -> Sequence[Tensor]:
    slices = x.unbind(axis)
    return slices[::-1] if backwards else slices


def _stack(values: Sequence[Tensor], empty: Empty, axis: int, device: torch.device | None) -> Tensor:
    if values:
        return torch.stack(list(values), axis)
    rank = len(empty.shape) + 1
    shape = list(empty.shape)
    shape.insert(axis % rank, 0)
    return torch.from_numpy(np.empty(shape, empty.dtype)).to(device)


def _padded(x: Tensor, length: int) -> Tensor:
    return torch.cat([x, x.new_zeros((length - len(x), *x.shape[1:]))])


def _outputs(values: tuple[Any, ...], count: int) -> Any:  # noqa: ANN401 - one or several
    return values[0] if count == 1 else values[:count]
