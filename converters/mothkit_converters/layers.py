"""What a bound module computes, node by node: for those who look into the network or change parts of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from operator import getitem
from typing import Any

from torch import fx, nn

from mothkit_converters.assembly import NODE
from mothkit_converters.importer import BoundModule


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """A node of the graph, and the module that computes it.

    Attributes:
        node: Name of the node in the file.
        operator: ONNX's type of it.
        module: What computes it; a hook on it sees this node's inputs and outputs, and no other's.
        tensors: For each argument of the module, the torch name of the tensor that is stored; None if it is computed.
        inputs: For each argument, the layer that computes it; None if it is stored, or comes from outside.
    """

    node: str
    operator: str
    module: nn.Module
    tensors: tuple[str | None, ...]
    inputs: tuple[Layer | None, ...]

    @property
    def attributes(self) -> Mapping[str, Any]:
        """The node's attributes, where its module keeps them."""
        found: Mapping[str, Any] = getattr(self.module, "attributes", {})
        return found


def layers_of(bound: BoundModule) -> list[Layer]:
    """Return the layers of ``bound`` in the order in which they are computed; the last gives its first output.

    Nodes within branches and loops, and those that compute with sizes alone, are none of them.
    """
    network = bound.network
    found: dict[fx.Node, Layer] = {}
    output: fx.Node | None = None
    for call in network.graph.nodes:
        if call.op == "call_module":
            operator, name = call.meta.get(NODE, ("", str(call.target)))
            found[call] = Layer(
                node=name,
                operator=operator,
                module=network.get_submodule(str(call.target)),
                tensors=tuple(_stored(argument) for argument in call.args),
                inputs=tuple(found.get(_origin(argument)) for argument in call.args),
            )
        elif call.op == "output":
            output = _origin(call.args[0][0])
    last = found.pop(output) if output in found else None
    return [*found.values(), *([] if last is None else [last])]


def _stored(argument: object) -> str | None:
    """Return the torch name of a stored tensor."""
    if isinstance(argument, fx.Node) and argument.op == "get_attr":
        return f"network.{argument.target}"
    return None


def _origin(argument: object) -> Any:  # noqa: ANN401 - an fx node, or what stands where none is
    """Return the call whose result, or one of whose results, ``argument`` is."""
    while isinstance(argument, fx.Node) and argument.op == "call_function" and argument.target is getitem:
        argument = argument.args[0]
    return argument
