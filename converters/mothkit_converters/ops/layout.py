"""Slice, Pad and Squeeze: where the file fixes their numbers, no tensor is asked for them on each call."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from onnx2torch.node_converters.pad import OnnxPadStatic
from onnx2torch.onnx_graph import OnnxGraph
from onnx2torch.onnx_node import OnnxNode
from onnx2torch.utils.common import OnnxMapping, OperationConverterResult, onnx_mapping_from_node
from torch import Tensor, nn

from mothkit_converters.errors import UnsupportedOpError
from mothkit_converters.ops.registry import converter_of, serve

_computed_pad = converter_of("Pad", 13)


def fixed_ints(node: OnnxNode, graph: OnnxGraph, index: int) -> list[int] | None:
    """Return the integers that the file fixes at input ``index``, None where the node has no such input.

    Raises:
        UnsupportedOpError: They are computed.
    """
    name = node.input_values[index] if len(node.input_values) > index else ""
    if not name:
        return None
    if name not in graph.initializers:
        raise UnsupportedOpError(node.operation_type, node.name, f"'{name}' is computed, not stored")
    return [int(number) for number in graph.initializers[name].to_numpy().ravel()]


class Slice(nn.Module):
    """A part of a tensor, one step per axis; numbers that the file does not fix are arguments."""

    def __init__(self, fixed: Sequence[Sequence[int] | None] | None) -> None:
        super().__init__()
        self.fixed = fixed

    def forward(self, x: Tensor, *computed: Tensor | None) -> Tensor:
        """Return the part of ``x`` [...]; ``computed`` holds starts, ends, axes, steps."""
        if self.fixed is not None:
            return _slice(x, *self.fixed)
        return _slice(x, *(None if numbers is None else numbers.tolist() for numbers in computed))


def _slice(
    x: Tensor,
    starts: Sequence[int] | None,
    ends: Sequence[int] | None,
    axes: Sequence[int] | None = None,
    steps: Sequence[int] | None = None,
) -> Tensor:
    """Return a part of ``x``, by one Python slice per axis: they mean what ONNX's do, also backwards."""
    starts, ends = starts or (), ends or ()
    given = zip(axes or range(len(starts)), starts, ends, steps or [1] * len(starts), strict=True)
    for axis, *numbers in given:
        start, stop, step = slice(*numbers).indices(x.shape[axis])
        if step == 1:
            x = x.narrow(axis, start, max(stop - start, 0))
        else:
            x = x.index_select(
                axis, torch.tensor(range(start, stop, step), dtype=torch.long, device=x.device)
            )
    return x


@serve("Slice", 10, 11, 13)  # onnx2torch's own indexes by a list, which newer torch takes for something else
def _convert_slice(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    try:
        numbers = [fixed_ints(node, graph, index) for index in range(1, 5)]
    except UnsupportedOpError:
        return OperationConverterResult(Slice(None), onnx_mapping_from_node(node))
    return OperationConverterResult(Slice(numbers), OnnxMapping(node.input_values[:1], node.output_values))


@serve("Pad", 11, 13, 18, 19, 21, 23, 24, 25)  # 18 adds axes, 19 a mode that is refused, the rest types
def _pad(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    axes = fixed_ints(node, graph, 3)
    if axes is None and node.input_values[1] not in graph.initializers:
        return _computed_pad(node, graph)
    pads = fixed_ints(node, graph, 1) or []
    value = node.input_values[2] if len(node.input_values) > 2 else ""
    if value and value not in graph.initializers:
        raise UnsupportedOpError("Pad", node.name, f"'{value}' is computed, not stored")
    module = OnnxPadStatic.create_from_onnx_params(
        onnx_pads=pads if axes is None else _on_all_axes(node, graph, pads, axes),
        onnx_mode=node.attributes.get("mode", "constant"),
        constant_value=float(graph.initializers[value].to_numpy()) if value else 0.0,
    )
    return OperationConverterResult(module, OnnxMapping(node.input_values[:1], node.output_values))


def _on_all_axes(node: OnnxNode, graph: OnnxGraph, pads: Sequence[int], axes: Sequence[int]) -> list[int]:
    """Return begins and ends for every axis, from those for ``axes``."""
    info = graph.value_info.get(node.input_values[0])
    rank = len(info.type.tensor_type.shape.dim) if info is not None else 0
    if rank == 0:
        raise UnsupportedOpError("Pad", node.name, "the rank of its input is not known")
    full = [0] * 2 * rank
    for i, axis in enumerate(axes):
        full[axis % rank], full[rank + axis % rank] = pads[i], pads[len(axes) + i]
    return full


class Squeeze(nn.Module):
    """A tensor without some of its dimensions of size 1; without all of them where none is named."""

    def __init__(self, axes: Sequence[int] | None) -> None:
        super().__init__()
        self.axes = tuple(axes or ())

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` with fewer dimensions."""
        return x.squeeze(self.axes) if self.axes else x.squeeze()


@serve("Squeeze", 13, 21, 23, 24, 25)
def _squeeze(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    module = Squeeze(fixed_ints(node, graph, 1))
    return OperationConverterResult(module, OnnxMapping(node.input_values[:1], node.output_values))
