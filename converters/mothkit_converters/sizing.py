"""Which of a graph's values are kept as Python numbers, and how nodes compute with them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from onnx import NodeProto, TensorProto
from onnx2torch.onnx_graph import OnnxGraph
from onnx2torch.onnx_node import OnnxNode
from torch import Tensor, fx, nn

from mothkit_converters import attributes
from mothkit_converters.errors import ConversionError
from mothkit_converters.ops import sizes
from mothkit_converters.tensors import array_of

MOST = 1024
"""Numbers that a value may have to be kept as such; more are better off in a tensor."""

_DTYPES: Mapping[int, torch.dtype] = MappingProxyType(
    {
        TensorProto.INT64: torch.int64,
        TensorProto.INT32: torch.int32,
        TensorProto.BOOL: torch.bool,
        TensorProto.FLOAT: torch.float32,
        TensorProto.DOUBLE: torch.float64,
    }
)
_WHOLE = frozenset({TensorProto.INT64, TensorProto.INT32})
_FRACTIONS = frozenset({TensorProto.FLOAT, TensorProto.DOUBLE})
_COMPARISONS = frozenset({"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"})
_LOGIC = frozenset({"And", "Not", "Or", "Xor"})
_OF_FRACTIONS = frozenset({"Ceil", "Floor", "Round", "Sqrt"})
_TOTALS = frozenset({"ReduceMax", "ReduceMin", "ReduceProd", "ReduceSum"})
_MOVED: Mapping[str, Sequence[int] | None] = MappingProxyType(
    {
        **dict.fromkeys(("Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity"), (0,)),
        **dict.fromkeys(("Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"), (0,)),
        **dict.fromkeys(("ScatterElements", "ScatterND"), (0, 2)),
        "Concat": None,
    }
)
"""Operators that move elements: which of their inputs these are in, None for all. The others say where to."""

Shape = tuple[int, ...]


class Size(NamedTuple):
    """A value that is kept as Python numbers.

    Attributes:
        numbers: A flat list, or the fx node that makes one.
        shape: The value's shape, None where it has one dimension of a length that is not known.
        kind: Its element type in ONNX.
    """

    numbers: fx.Node | list[Any]
    shape: Shape | None
    kind: int

    @property
    def known(self) -> list[Any] | None:
        """The numbers, where the file alone decides them."""
        return self.numbers if isinstance(self.numbers, list) else None

    def tensor(self) -> Tensor:
        """Return the known numbers as a tensor."""
        return sizes.as_tensor(self.known or [], self.shape, _DTYPES[self.kind], None)


class Sizing:
    """Adds nodes that compute with sizes to a traced graph."""

    def __init__(
        self,
        graph: fx.Graph,
        scope: OnnxGraph,
        *,
        tensor: Callable[[str], fx.Node],
        convert: Callable[[NodeProto, OnnxNode], tuple[nn.Module, Any]],
        is_weight: Callable[[str], bool],
    ) -> None:
        """Serve the nodes of ``scope``, whose tensors ``tensor`` gives, and ``convert`` their modules."""
        self._graph, self._scope = graph, scope
        self._tensor, self._convert, self._is_weight = tensor, convert, is_weight
        self._sizes: dict[str, Size] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._sizes

    def argument(self, name: str) -> Any:  # noqa: ANN401 - an fx node, numbers, or None
        """Return what stands for a value where numbers are asked for; None where only a tensor does."""
        size = self._sizes.get(name)
        if size is None or (size.shape is not None and len(size.shape) > 1):
            return None
        if size.shape == ():
            return self._call(sizes.only, [size])
        return size.numbers

    def as_tensor(self, name: str, like: fx.Node | None) -> fx.Node:
        """Return the fx node of a size as a tensor."""
        size = self._sizes[name]
        return self._trace(sizes.as_tensor, size.numbers, size.shape, _DTYPES[size.kind], like)

    def add(self, proto: NodeProto, node: OnnxNode) -> bool:
        """Add a node if sizes can serve it; return whether they can."""
        if proto.domain not in ("", "ai.onnx"):
            return False
        if proto.op_type in ("Shape", "Size"):
            self._sizes[proto.output[0]] = self._measured(proto)
            return True
        given = [self._get(name) for name in proto.input if name]
        sizes_given = [size for size in given if size is not None]
        if len(sizes_given) < len(given) or not any(name in self._sizes for name in proto.input):
            return False
        try:
            made = self._made(proto, node, sizes_given)
        except (ArithmeticError, LookupError, ValueError, RuntimeError, ConversionError):
            return False  # its own converter will say what is wrong
        self._sizes.update({name: size for name, size in zip(proto.output, made, strict=False) if name})
        return bool(made)

    def _get(self, name: str) -> Size | None:
        """Return a value as numbers, None where it is a tensor."""
        if name in self._sizes or name not in self._scope.initializers:
            return self._sizes.get(name)
        tensor = self._scope.initializers[name].proto
        if tensor.data_type not in _DTYPES or math.prod(tensor.dims) > MOST or self._is_weight(name):
            return None
        return Size(array_of(tensor).ravel().tolist(), tuple(tensor.dims), tensor.data_type)

    def _call(self, function: Callable[..., Any], given: Sequence[Size], *settings: Any) -> Any:  # noqa: ANN401
        """Call ``function`` on settings and sizes: now if the file decides them, else when the network runs."""
        known = [size.known for size in given]
        if None not in known:
            return function(*settings, *known)
        return self._trace(function, *settings, *(size.numbers for size in given))

    def _trace(self, function: Callable[..., Any], *arguments: Any) -> fx.Node:  # noqa: ANN401
        """Call ``function`` when the network runs; whoever traces that must not look into it, as in unpickling."""
        node = self._graph.call_function(function, arguments)
        node.meta["is_wrapped"] = True
        return node

    def _measured(self, proto: NodeProto) -> Size:
        """Return what Shape or Size tells of a value."""
        name = proto.input[0]
        known = self._sizes[name].shape if name in self._sizes else None
        if proto.op_type == "Size":
            numbers = [math.prod(known)] if known is not None else self._read(sizes.count, name)
            return Size(numbers, (), TensorProto.INT64)
        start, end = attributes.given(proto, "start", None), attributes.given(proto, "end", None)
        if known is not None:
            part = list(known)[start:end]
            return Size(part, (len(part),), TensorProto.INT64)
        rank = self._rank(name)
        shape = None if rank is None else (len(range(rank)[start:end]),)
        return Size(self._read(sizes.dims, name, start, end), shape, TensorProto.INT64)

    def _read(self, function: Callable[..., list[Any]], name: str, *settings: int | None) -> fx.Node:
        return self._trace(function, self._tensor(name), *settings)

    def _rank(self, name: str) -> int | None:
        """Return the number of a tensor's dimensions; what a file says of its outputs is not relied on."""
        if name in self._scope.initializers:
            return len(self._scope.initializers[name].proto.dims)
        info = self._scope.value_info.get(name)
        if info is None or name in self._scope.output_values or not info.type.tensor_type.HasField("shape"):
            return None
        return len(info.type.tensor_type.shape.dim)

    def _made(self, proto: NodeProto, node: OnnxNode, given: Sequence[Size]) -> list[Size]:
        """Return the outputs of a node of which all inputs are numbers; none where it wants tensors."""
        op = proto.op_type
        if op in _MOVED:
            return self._moved(proto, node)
        if op == "Cast":
            return self._cast(attributes.given(proto, "to", 0), given[0])
        if op == "ConstantOfShape":
            return _filled(proto, given[0])
        if op in _TOTALS:
            return self._totalled(proto, given)
        return self._computed(proto, given) if op in sizes.ELEMENTWISE else []

    def _moved(self, proto: NodeProto, node: OnnxNode) -> list[Size]:
        """Move numbers as the node's own module moves their places."""
        places = _MOVED[proto.op_type]
        names = list(proto.input) if places is None else [proto.input[place] for place in places]
        given = {name: self._size(name) for name in names}
        others = {name: self._size(name) for name in proto.input if name and name not in given}
        if any(size.known is None for size in others.values()):
            return []
        if any(size.shape is None for size in given.values()):
            return self._moved_unmeasured(proto, [self._size(name) for name in proto.input if name])
        arguments = {name: size.tensor() for name, size in others.items()} | _places(given)
        module, mapping = self._convert(proto, node)
        with torch.no_grad():
            found = module(*(arguments.get(name) for name in mapping.inputs))
        moved = found if isinstance(found, tuple) else (found,)
        if any(part.numel() > MOST for part in moved):
            return []
        kind, sources = given[names[0]].kind, list(given.values())
        return [
            Size(self._picked(part.flatten().tolist(), sources), tuple(part.shape), kind) for part in moved
        ]

    def _moved_unmeasured(self, proto: NodeProto, given: Sequence[Size]) -> list[Size]:
        """Do the same for lists of a length that is not known."""
        kind = given[0].kind
        if proto.op_type == "Concat" and all(size.shape is None or len(size.shape) == 1 for size in given):
            return [Size(self._call(sizes.join, given), None, kind)]
        if proto.op_type == "Gather" and attributes.given(proto, "axis", 0) in (0, -1):
            return [Size(self._picked(given[1].known or [], given[:1]), given[1].shape, kind)]
        if proto.op_type == "Slice" and len(given) > 2 and "" not in proto.input:
            (start,), (end,), *_ = numbers = [size.known or [] for size in given[1:]]
            step = numbers[3][0] if len(numbers) > 3 else 1
            return [Size(self._call(sizes.part, given[:1], start, end, step), None, kind)] if step > 0 else []
        return []

    def _picked(self, places: list[int], sources: Sequence[Size]) -> Any:  # noqa: ANN401
        (first, *more) = sources
        if not more and first.shape is not None and places == list(range(math.prod(first.shape))):
            return first.numbers
        return self._call(sizes.pick, sources, tuple(places))

    def _cast(self, to: int, size: Size) -> list[Size]:
        if to not in _DTYPES:
            return []
        if size.kind == TensorProto.BOOL and to != TensorProto.BOOL:
            size = size._replace(numbers=self._call(sizes.from_truths, [size]), kind=TensorProto.INT64)
        numbers: Any = size.numbers
        if to in _FRACTIONS:
            numbers = self._call(sizes.to_fractions, [size], to == TensorProto.FLOAT)
        elif to == TensorProto.BOOL:
            numbers = self._call(sizes.to_truths, [size])
        elif size.kind in _FRACTIONS:
            numbers = self._call(sizes.to_whole, [size])
        return [Size(numbers, size.shape, to)]

    def _totalled(self, proto: NodeProto, given: Sequence[Size]) -> list[Size]:
        """Join the numbers of a list; whatever axes are named, it has one."""
        size, *axes = given
        several = size.shape is not None and len(size.shape) != 1
        if several or size.kind not in _WHOLE or attributes.given(proto, "noop_with_empty_axes", 0):
            return []
        if any(not axis.known for axis in axes):
            return []
        shape = (1,) if attributes.given(proto, "keepdims", 1) else ()
        return [Size(self._call(sizes.total, [size], proto.op_type), shape, size.kind)]

    def _computed(self, proto: NodeProto, given: Sequence[Size]) -> list[Size]:
        """Compute element by element, with the shapes broadcast."""
        kind = given[-1].kind
        name = _function(proto, kind)
        if not name:
            return []
        shapes = [size.shape for size in given]
        shape: Shape | None = None
        if None not in shapes:
            shape = np.broadcast_shapes(*(shape for shape in shapes if shape is not None))
            given = [self._spread(size, shape) for size in given]
        elif any(shape is not None and len(shape) > 1 for shape in shapes):
            return []
        truths = proto.op_type in _COMPARISONS or proto.op_type in _LOGIC
        single = kind == TensorProto.FLOAT and not truths and proto.op_type != "Where"
        numbers = self._call(sizes.each, given, name, single)
        return [Size(numbers, shape, TensorProto.BOOL if truths else kind)]

    def _spread(self, size: Size, shape: Shape) -> Size:
        """Return ``size`` with numbers repeated as broadcasting to ``shape`` does, if more than one is."""
        own = size.shape or ()
        if math.prod(own) in (1, math.prod(shape)):
            return size
        places = np.broadcast_to(np.arange(math.prod(own)).reshape(own), shape)
        return size._replace(numbers=self._picked(places.ravel().tolist(), [size]), shape=shape)

    def _size(self, name: str) -> Size:
        size = self._get(name)
        if size is None:
            raise LookupError(name)
        return size


def _places(given: Mapping[str, Size]) -> dict[str, Tensor]:
    """Return for each size the places of its numbers among those of all."""
    made, start = {}, 0
    for name, size in given.items():
        shape = size.shape or ()
        made[name] = torch.arange(start, start + math.prod(shape)).reshape(shape)
        start += math.prod(shape)
    return made


def _filled(proto: NodeProto, size: Size) -> list[Size]:
    """Return what ConstantOfShape makes of a shape that is known."""
    if size.known is None or math.prod(size.known) > MOST:
        return []
    value = attributes.given(proto, "value", None)
    kind = TensorProto.FLOAT if value is None else value.data_type
    if kind not in _DTYPES:
        return []
    number = 0.0 if value is None else array_of(value).item()
    return [Size([number] * math.prod(size.known), tuple(size.known), kind)]


def _function(proto: NodeProto, kind: int) -> str:
    """Return the name of the function that a node means for numbers of this kind, empty where none does."""
    op = proto.op_type
    if any(attribute.name in ("axis", "broadcast") for attribute in proto.attribute):
        return ""  # before version 7
    if (op in _LOGIC) != (kind == TensorProto.BOOL) and op not in ("Equal", "Where"):
        return ""
    if op in _OF_FRACTIONS and kind not in _FRACTIONS:
        return ""
    if op == "Div" and kind in _WHOLE:
        return "DivWhole"
    if op == "Mod":
        truncated = attributes.given(proto, "fmod", 0)
        return "" if kind not in _WHOLE else "ModTruncated" if truncated else "Mod"
    return op
