"""An ONNX file as a torch module whose parameters are the file's weights."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from operator import getitem
from pathlib import Path
from typing import Any

import torch
from onnx import ModelProto, NodeProto
from onnx2torch.onnx_graph import OnnxGraph
from onnx2torch.onnx_node import OnnxNode
from torch import Tensor, fx, nn

from mothkit_converters.binding import ABSORBED, Binding, Role, roles_of
from mothkit_converters.canonical import canonicalise
from mothkit_converters.errors import UnboundWeightsError, UnsupportedOpError
from mothkit_converters.ops import find_converter, overrides
from mothkit_converters.source import Source, read_source
from mothkit_converters.tensors import HALVES, array_of, weight_tensors


class BoundModule(nn.Module):
    """A graph as a torch module, each float initializer tied to one parameter or buffer.

    Attributes:
        source: The file that it came from.
        bindings: The ties, by initializer.
        unbound: Weights that stay as they are, because no tie holds.
        input_names: What ``forward`` takes, in order.
        output_names: What it returns, in order.
    """

    def __init__(
        self,
        network: fx.GraphModule,
        source: Source,
        bindings: Mapping[str, Binding],
        unbound: Sequence[str],
        output_names: Sequence[str],
    ) -> None:
        super().__init__()
        self.network = network
        self.source = source
        self.bindings = bindings
        self.unbound = tuple(unbound)
        self.input_names = tuple(value.name for value in source.inputs)
        self.output_names = tuple(output_names)

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return the graph's output for its inputs, or a tuple in the graph's order.

        Raises:
            BatchError: The file fixes another batch size.
        """
        outputs: tuple[Tensor, ...] = self.network(*inputs)
        return outputs[0] if len(outputs) == 1 else outputs

    def tensor(self, initializer: str) -> Tensor:
        """Return the parameter or buffer that is bound to ``initializer``."""
        name = self.bindings[initializer].torch_name
        owner, _, leaf = name.rpartition(".")
        found: Tensor = getattr(self.get_submodule(owner), leaf)
        return found


def to_torch(
    path_or_source: Path | str | Source,
    *,
    outputs: Sequence[str] | None = None,
    allow_unbound: bool = False,
) -> BoundModule:
    """Return the model as a torch module in eval mode, on the CPU.

    Args:
        path_or_source: An ONNX file, or one that was read.
        outputs: Names of values to return in place of the graph's outputs; any value of the graph will do, and
            what comes after need not be supported.
        allow_unbound: Whether weights may be left untrainable.

    Raises:
        SourceError: The file cannot be taken, or has no such values.
        UnsupportedOpError: An operator cannot be served.
        UnboundWeightsError: A weight cannot be trained and written back, and that was not allowed.
    """
    source = path_or_source if isinstance(path_or_source, Source) else read_source(path_or_source)
    names = [value.name for value in source.outputs] if outputs is None else list(outputs)
    with overrides():
        try:
            shadow = canonicalise(source, names)
            assembly = _Assembly(shadow)
        except UnsupportedOpError as error:
            raise UnsupportedOpError(error.op, error.node, error.why, path=source.path) from error
    if assembly.unbound and not allow_unbound:
        raise UnboundWeightsError(source.path, assembly.unbound)
    bound = BoundModule(assembly.network, source, {}, assembly.unbound, names)
    bound.bindings = _bind(bound, assembly)
    return bound.eval()


def _bind(bound: BoundModule, assembly: _Assembly) -> Mapping[str, Binding]:
    """Return the tie of each initializer that the network holds as a tensor and the file can take back."""
    named = [*bound.named_parameters(), *bound.named_buffers()]
    torch_names = {id(tensor): name for name, tensor in reversed(named)}
    stored = weight_tensors(bound.source.proto.graph)
    return dict(  # no MappingProxyType: that cannot be deep-copied
        {
            name: Binding(
                name, torch_names[id(tensor)], assembly.roles[name], _transform(stored[name].data_type)
            )
            for name, tensor in assembly.tensors.items()
            if id(tensor) in torch_names and name in stored and assembly.roles[name] is not Role.TORN
        }
    )


def _transform(data_type: int) -> str:
    return "float32" if data_type in HALVES else "identity"


class _Assembly:
    """Builds the network, node by node."""

    def __init__(self, shadow: ModelProto) -> None:
        self.roles = roles_of(shadow.graph)
        self.tensors = {
            tensor.name: self._make(tensor.name, torch.from_numpy(array_of(tensor).copy()))
            for tensor in shadow.graph.initializer
            if tensor.name in self.roles
        }
        self.unbound = [name for name, role in self.roles.items() if role is Role.TORN]
        self._onnx = OnnxGraph(shadow.graph)
        self._opsets = {entry.domain: entry.version for entry in shadow.opset_import}
        self._graph = fx.Graph()
        self._root = nn.Module()
        self._root.add_module("weights", nn.Module())
        self._root.add_module("nodes", nn.Module())
        self._values: dict[str, fx.Node] = {}
        for index, info in enumerate(shadow.graph.input):
            self._values[info.name] = self._graph.placeholder(f"input_{index}")
        for proto, node in zip(shadow.graph.node, self._onnx.nodes.values(), strict=True):
            self._add(proto, node)
        self._graph.output(tuple(self._value(info.name) for info in shadow.graph.output))
        self.network = fx.GraphModule(self._root, self._graph)

    def _make(self, name: str, values: Tensor) -> Tensor:
        return nn.Parameter(values) if self.roles[name] is Role.WEIGHT else values

    def _add(self, proto: NodeProto, node: OnnxNode) -> None:
        """Convert one node, tie what its module took in, and call it on the rest."""
        module, mapping = self._convert(node)
        self._tie(proto, module, taken=set(mapping.inputs))
        name = _identifier(node.unique_name, self._root.nodes)
        self._root.nodes.add_module(name, module)
        arguments = tuple(self._value(value) if value else None for value in mapping.inputs)
        result = self._graph.call_module(f"nodes.{name}", arguments)
        if len(proto.output) == 1:
            self._values[proto.output[0]] = result
            return
        for index, output in enumerate(proto.output):
            self._values[output] = self._graph.call_function(getitem, (result, index))

    def _convert(self, node: OnnxNode) -> tuple[nn.Module, Any]:
        op, name = node.operation_type, node.name.rpartition("#")[0]
        convert = find_converter(op, self._opsets.get(node.domain, 1), node.domain)
        if convert is None:
            raise UnsupportedOpError(op, name, "no converter for it at this opset")
        try:
            module, mapping = convert(node, self._onnx)
        except UnsupportedOpError as error:
            raise UnsupportedOpError(op, name, error.why) from error
        except Exception as error:  # whatever onnx2torch stumbles over
            raise UnsupportedOpError(op, name, f"onnx2torch refuses it ({error})") from error
        return module, mapping

    def _tie(self, proto: NodeProto, module: nn.Module, taken: set[str]) -> None:
        """Put our tensors where ``module`` made its own; what stays untied is no parameter."""
        owner = module[-1] if isinstance(module, nn.Sequential) else module
        slots = ABSORBED.get(proto.op_type, {})
        for index, name in enumerate(proto.input):
            if name in taken or name not in self.tensors or self.roles[name] is Role.SETTING:
                continue
            if index in slots:
                self._put(proto, owner, slots[index], self.tensors[name])
            elif name not in self.unbound:
                self.unbound.append(name)
        if proto.op_type == "BatchNormalization" and self.roles[proto.input[3]] is not Role.STATISTIC:
            owner.momentum = 0.0  # shared statistics cannot follow two batches
        tied = {id(tensor) for tensor in self.tensors.values()}
        if any(id(parameter) not in tied for parameter in module.parameters()):
            raise UnsupportedOpError(
                proto.op_type, label_of(proto), "its torch module has weights of its own"
            )

    def _put(self, proto: NodeProto, owner: nn.Module, attribute: str, tensor: Tensor) -> None:
        made = getattr(owner, attribute)
        if made is None or made.shape != tensor.shape:
            raise UnsupportedOpError(
                proto.op_type, label_of(proto), f"its {attribute} has shape {tensor.shape}"
            )
        delattr(owner, attribute)
        if isinstance(tensor, nn.Parameter):
            owner.register_parameter(attribute, tensor)
        else:
            owner.register_buffer(attribute, tensor)

    def _value(self, name: str) -> fx.Node:
        """Return the fx node of a value; an initializer gets one on its first use."""
        if name not in self._values:
            tensor = self.tensors.get(name)
            if tensor is None:
                tensor = self._onnx.initializers[name].to_torch()
            weights = self._root.weights
            key = _identifier(name, weights)
            if isinstance(tensor, nn.Parameter):
                weights.register_parameter(key, tensor)
            else:
                weights.register_buffer(key, tensor)
            self._values[name] = self._graph.get_attr(f"weights.{key}")
        return self._values[name]


def label_of(proto: NodeProto) -> str:
    """Return the original name of a shadow node."""
    return proto.name.rpartition("#")[0]


def _identifier(name: str, owner: nn.Module) -> str:
    """Return ``name`` as one that ``owner`` can still give to a child or tensor."""
    stem = key = re.sub(r"\W", "_", name) or "unnamed"
    count = 1
    while hasattr(owner, key):
        count += 1
        key = f"{stem}_{count}"
    return key
