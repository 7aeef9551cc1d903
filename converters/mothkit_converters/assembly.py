"""The network of a shadow copy: a module for each node, called in the graph's order on the file's tensors."""

from __future__ import annotations

import keyword
import re
from collections.abc import Collection, Mapping
from operator import getitem
from types import MappingProxyType
from typing import Any

import torch
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper
from onnx2torch.onnx_node import OnnxNode
from torch import Tensor, fx, nn

from mothkit_converters.binding import Role, roles_of
from mothkit_converters.errors import UnsupportedOpError
from mothkit_converters.ops import find_converter, refused
from mothkit_converters.ops.normalization import BatchNorm
from mothkit_converters.ops.scope import Body, Scope
from mothkit_converters.quantisation import integer_weights
from mothkit_converters.scopes import label, opsets_of
from mothkit_converters.sizing import Sizing
from mothkit_converters.tensors import array_of, is_outlined

ORIGIN = "onnx"  # among the meta of an fx node: which node of the file it stands for
NODE = "onnx node"  # the same as operator and name
_WHOLE = MappingProxyType({"int2": "int8", "int4": "int8", "uint2": "uint8", "uint4": "uint8"})


class Assembly:
    """The network of a canonical model, and the tensors that all of its graphs share.

    Each float initializer becomes one tensor, a parameter if it is a weight. A node's module gets it as an
    argument.

    Attributes:
        network: Takes the graph's inputs, returns a tuple of its outputs.
        tensors: The tensor of each float initializer.
        roles: What each is for.
        unbound: Weights that nothing trains.
        integers: Those of them that the file has as integers.
        opsets: The opset of each domain.
    """

    def __init__(
        self, model: ModelProto, stored: Mapping[str, TensorProto], derived: Collection[str] = ()
    ) -> None:
        """Build the network of a canonical ``model``; ``stored`` and ``derived`` as ``roles_of`` has them.

        A tensor that ``model`` holds no data of has those of ``stored``.
        """
        self.roles = roles_of(model.graph, stored, derived)
        self.tensors: dict[str, Tensor] = {}
        for initializer in model.graph.initializer:
            if (role := self.roles.get(initializer.name)) is not None:
                values = _values_of(initializer, stored)
                self.tensors[initializer.name] = nn.Parameter(values) if role is Role.WEIGHT else values
        self.integers = integer_weights(model.graph)
        torn = [name for name, role in self.roles.items() if role is Role.TORN]
        self.unbound = [*torn, *self.integers]
        self.opsets = opsets_of(model)
        self.network = _Builder(self, model.graph).network


class _Builder:
    """Builds the network of one graph, node by node.

    Attributes:
        network: Takes the graph's inputs, then the values of ``captured``; returns a tuple of its outputs.
        captured: Names of values of the graphs around this one that it reads, in order.
    """

    def __init__(self, shared: Assembly, graph: GraphProto, outer: _Builder | None = None) -> None:
        self._shared, self._outer = shared, outer
        self._onnx: Scope = Scope(graph, None if outer is None else outer._onnx, self._body)  # noqa: SLF001
        self._graph = fx.Graph()
        self._nodes, self._weights = nn.Module(), nn.Module()
        self._values: dict[str, fx.Node] = {}
        self._sizes = Sizing(
            self._graph,
            self._onnx,
            tensor=self._value,
            convert=self._convert,
            is_weight=lambda name: shared.roles.get(name) is Role.WEIGHT,
        )
        self.captured: list[str] = []
        for info in graph.input:
            self._add_input(info.name)
        own = next((info.name for info in graph.input if info.type.HasField("tensor_type")), None)
        self._like: str | None = own if outer is None else outer._like  # noqa: SLF001
        for proto, node in zip(graph.node, self._onnx.nodes.values(), strict=True):
            if not self._sizes.add(proto, node):
                self._add(proto, node)
        self._graph.output(tuple(self._value(info.name) for info in graph.output))
        root = nn.Module()
        root.add_module("nodes", self._nodes)
        root.add_module("weights", self._weights)
        self.network: fx.GraphModule = fx.GraphModule(root, self._graph)

    def _add_input(self, name: str) -> None:
        """Let the network take a value, after those that it takes already."""
        last = next((node for node in reversed(self._graph.nodes) if node.op == "placeholder"), None)
        with self._graph.inserting_before() if last is None else self._graph.inserting_after(last):
            self._values[name] = self._graph.placeholder(f"input_{len(self._values)}")

    def _body(self, graph: GraphProto) -> Body:
        """Build the network of a graph within a node."""
        inner = _Builder(self._shared, graph, self)
        return Body(inner.network, tuple(inner.captured))

    def _add(self, proto: NodeProto, node: OnnxNode) -> None:
        """Convert one node, tie what its module took in, and call it on the rest."""
        module, mapping = self._convert(proto, node)
        self._tie(proto, module, passed=set(mapping.inputs))
        name = _free_name(label(proto), self._nodes)
        self._nodes.add_module(name, module)
        numeric = getattr(module, "numeric", ())
        arguments = tuple(
            self._numbers(value) if index in numeric else self._value(value) if value else None
            for index, value in enumerate(mapping.inputs)
        )
        result = self._graph.call_module(f"nodes.{name}", arguments)
        result.meta[NODE] = (proto.op_type, label(proto))
        result.meta[ORIGIN] = f"operator {proto.op_type} at node '{label(proto)}'"
        if len(proto.output) == 1:
            self._values[proto.output[0]] = result
            return
        for index, output in enumerate(proto.output):
            if output:
                self._values[output] = self._graph.call_function(getitem, (result, index))

    def _numbers(self, name: str) -> Any:  # noqa: ANN401 - an fx node, or numbers
        """Return what stands for a value where numbers are asked for: a size, else the tensor."""
        numbers = self._sizes.argument(name) if name else None
        return self._value(name) if name and numbers is None else numbers

    def _convert(self, proto: NodeProto, node: OnnxNode) -> tuple[nn.Module, Any]:
        opset = self._shared.opsets.get(proto.domain, 1)
        convert = find_converter(proto.op_type, opset, proto.domain)
        if convert is None:
            raise refused(proto, self._shared.opsets)
        try:
            module, mapping = convert(node, self._onnx)
        except UnsupportedOpError as error:
            if error.version is not None:
                raise  # of a node within this one
            raise refused(proto, self._shared.opsets, error.why) from error
        except Exception as error:  # whatever a converter stumbles over in a broken node
            raise refused(
                proto, self._shared.opsets, f"it cannot be read ({type(error).__name__}: {error})"
            ) from error
        return module, mapping

    def _tie(self, proto: NodeProto, module: nn.Module, passed: Collection[str]) -> None:
        """Refuse a module that copied a weight; tell one of batch normalisation whether it may change statistics."""
        for name in proto.input:
            if name not in passed and self._shared.roles.get(name) is Role.WEIGHT:
                raise refused(proto, self._shared.opsets, f"its converter copies the weight '{name}'")
        if isinstance(module, BatchNorm) and not self._follows_batch(proto):
            module.momentum = 0.0

    def _follows_batch(self, proto: NodeProto) -> bool:
        """Return whether both statistics are this node's own, so that they may change in train mode."""
        return all(self._shared.roles.get(name) is Role.STATISTIC for name in proto.input[3:5])

    def _value(self, name: str) -> fx.Node:
        """Return the fx node of a value as a tensor; an initializer gets one on its first use."""
        if name in self._values:
            return self._values[name]
        if name in self._sizes:
            like = self._value(self._like) if self._like else None
            self._values[name] = self._sizes.as_tensor(name, like)
        elif self._outer is not None:
            self._add_input(name)
            self.captured.append(name)
        else:
            tensor = self._shared.tensors[name] if name in self._shared.tensors else self._plain(name)
            key = _free_name(name, self._weights)
            _register(self._weights, key, tensor)
            self._values[name] = self._graph.get_attr(f"weights.{key}")
        return self._values[name]

    def _plain(self, name: str) -> Tensor:
        """Return an initializer that is no float."""
        values = self._onnx.initializers[name].to_numpy()
        if (whole := _WHOLE.get(values.dtype.name)) is not None:
            values = values.astype(whole)
        try:
            tensor: Tensor = torch.from_numpy(values.copy())
        except TypeError as error:
            raise UnsupportedOpError("Constant", name, "torch has no such element type") from error
        return tensor


def _values_of(initializer: TensorProto, stored: Mapping[str, TensorProto]) -> Tensor:
    """Return what ``initializer`` holds, or what is stored under its name, in its own dtype."""
    holder = stored.get(initializer.name, initializer) if is_outlined(initializer) else initializer
    if is_outlined(holder) or holder.dims != initializer.dims:
        raise UnsupportedOpError("Constant", initializer.name, "its values are not found in the file")
    dtype = helper.tensor_dtype_to_np_dtype(initializer.data_type)
    return torch.from_numpy(array_of(holder).astype(dtype))


def _register(owner: nn.Module, name: str, tensor: Tensor) -> None:
    if isinstance(tensor, nn.Parameter):
        owner.register_parameter(name, tensor)
    else:
        owner.register_buffer(name, tensor)


def _free_name(name: str, owner: nn.Module) -> str:
    """Return ``name`` as an identifier that nothing in ``owner`` has yet."""
    stem = re.sub(r"\W+", "_", name).strip("_") or "unnamed"
    key = stem = f"{stem}_" if keyword.iskeyword(stem) else stem
    count = 1
    while hasattr(owner, key):
        count += 1
        key = f"{stem}_{count}"
    return key
