"""An operator as a function of tensors: how ours are written, unless they hold state."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from onnx import helper
from onnx2torch.onnx_graph import OnnxGraph
from onnx2torch.onnx_node import OnnxNode
from onnx2torch.utils.common import OnnxMapping, OperationConverterResult
from torch import Tensor, nn

from mothkit_converters.errors import UnsupportedOpError
from mothkit_converters.ops.dtypes import strange_input
from mothkit_converters.ops.registry import serve
from mothkit_converters.ops.scope import is_carried
from mothkit_converters.scopes import label

F = TypeVar("F", bound=Callable[..., Any])


class Call(nn.Module):
    """Calls a function on a node's inputs: tensors as they come, and numbers where it asks for numbers.

    Attributes:
        numeric: Places among the inputs that ``forward`` takes whose values are read as Python numbers.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        attributes: Mapping[str, Any],
        *,
        fixed: Mapping[int, Any],
        numbers: Collection[int],
        count: int,
    ) -> None:
        super().__init__()
        self.function, self.attributes = function, dict(attributes)
        self.fixed, self.count = dict(fixed), count
        taken = [place for place in range(count) if place not in self.fixed]
        self.numeric = frozenset(index for index, place in enumerate(taken) if place in numbers)

    def forward(self, *given: Any) -> Any:  # noqa: ANN401 - as the function has it
        """Return the function of ``given``, which are the inputs that the file does not fix, in order."""
        return self.function(*self.inputs(given), **self.attributes)

    def inputs(self, given: Sequence[Any]) -> list[Any]:
        """Return all inputs: those that the file fixes, and ``given``, as numbers where asked for."""
        rest = iter([_as_numbers(x) if i in self.numeric else x for i, x in enumerate(given)])
        return [self.fixed[i] if i in self.fixed else next(rest) for i in range(self.count)]

    def extra_repr(self) -> str:
        """Return the function's name and what is fixed."""
        fixed = [f"{place}: {value}" for place, value in self.fixed.items()]
        named = [f"{name}={value!r}" for name, value in self.attributes.items()]
        return ", ".join([_name(self.function), *fixed, *named])


def operator(
    op: str,
    *versions: int,
    numbers: Collection[int] = (),
    domain: str = "",
    stored: Collection[int] = (),
    check: Callable[[Mapping[str, Any]], str] | None = None,
    limit: Callable[[Mapping[int, Any]], str] | None = None,
    also: Collection[str] = (),
    lists: bool = False,
    **presets: object,
) -> Callable[[F], F]:
    """Return a decorator that makes a function of tensors the converter of ``op`` at these schema versions.

    The function takes the node's inputs in order, None where one is left out, then the node's attributes by
    name; it declares every attribute that these versions have, with ONNX's default. One that it does not
    declare is refused. Keywords ``outputs`` and ``node`` are the number of the node's outputs and its name; if it has
    ``carried``, that is whether its first output, which holds integers, is to be kept as floats.

    Args:
        op: The operator's type.
        versions: Schema versions (not opsets) that mean what the function does.
        numbers: Which inputs it takes as Python numbers: a number for a scalar, a list for one dimension.
            What the file stores is read once, what it computes on each call.
        domain: The operator's domain.
        stored: Which inputs it takes as a Python number where the file stores a single one, else as a tensor.
        check: Returns why a node with these attributes cannot be served, empty where it can.
        limit: Returns the same for the numbers that the file stores, by the place of their input.
        also: Attributes that the function takes without naming them.
        lists: Whether it takes sequences and optional values too: lists, and None.
        presets: Keywords that tell the function which versions these are.
    """

    def register(function: F) -> F:
        known = inspect.signature(function).parameters

        def convert(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
            attributes = dict(presets) | attributes_of(node)
            strange = strange_input(node, graph, lists=lists)
            if why := strange or _misfit(known, attributes, also, len(node.input_values)):
                raise UnsupportedOpError(op, node.name, why)
            told = {"outputs": len(node.output_values), "node": label(node.proto)}
            attributes |= {name: value for name, value in told.items() if name in known}
            if "carried" in known:
                attributes["carried"] = is_carried(node, graph)
            if check is not None and (why := check(attributes)):
                raise UnsupportedOpError(op, node.name, why)
            fixed = fixed_numbers(node, graph, numbers) | _single(node, graph, stored)
            if limit is not None and (why := limit(fixed)):
                raise UnsupportedOpError(op, node.name, why)
            module = Call(function, attributes, fixed=fixed, numbers=numbers, count=len(node.input_values))
            passed = tuple(name for i, name in enumerate(node.input_values) if i not in fixed)
            return OperationConverterResult(module, OnnxMapping(passed, node.output_values))

        serve(op, *versions, domain=domain)(convert)
        return function

    return register


def _misfit(
    known: Mapping[str, inspect.Parameter], attributes: Collection[str], also: Collection[str], inputs: int
) -> str:
    """Return why a function with these parameters cannot take a node's attributes and inputs, empty if it can."""
    if unknown := [name for name in attributes if name not in known and name not in also]:
        return f"its attribute {unknown[0]} is not served"
    places = [p for p in known.values() if p.kind is p.POSITIONAL_OR_KEYWORD and p.default is p.empty]
    needed = [p.name for p in places if p.name not in attributes]
    return f"it has no input for {needed[inputs]}" if inputs < len(needed) else ""


def _name(function: Callable[..., Any]) -> str:
    """Return the name of a function; of a partial one, that of the function it was given."""
    return _name(function.args[0]) if isinstance(function, partial) else function.__name__


def listed(numbers: float | Sequence[float] | None) -> list[Any]:
    """Return ``numbers`` as a list, also where it is one alone or none."""
    if numbers is None:
        return []
    return list(numbers) if isinstance(numbers, Sequence) else [numbers]


def attributes_of(node: OnnxNode) -> dict[str, Any]:
    """Return the node's attributes by name, texts as str."""
    return {
        attribute.name: _plain(helper.get_attribute_value(attribute)) for attribute in node.proto.attribute
    }


def _plain(value: Any) -> Any:  # noqa: ANN401 - as ONNX has it
    """Return an attribute's text as text, and its lists as lists."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return value


def fixed_numbers(node: OnnxNode, graph: OnnxGraph, numbers: Collection[int]) -> dict[int, Any]:
    """Return the numbers that the file stores, by the place of their input."""
    names = {place: name for place, name in enumerate(node.input_values) if place in numbers}
    return {
        place: graph.initializers[name].to_numpy().tolist() if name else None
        for place, name in names.items()
        if not name or name in graph.initializers
    }


def _single(node: OnnxNode, graph: OnnxGraph, stored: Collection[int]) -> dict[int, Any]:
    """Return those of the ``stored`` inputs that are one number in the file, by their place."""
    names = {place: name for place, name in enumerate(node.input_values) if place in stored}
    tensors = {place: graph.initializers[name] for place, name in names.items() if name in graph.initializers}
    return {place: tensor.to_numpy().item() for place, tensor in tensors.items() if not tensor.proto.dims}


def _as_numbers(value: Any) -> Any:  # noqa: ANN401 - a tensor, numbers, or None
    return value.tolist() if isinstance(value, Tensor) else value
