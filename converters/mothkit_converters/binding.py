"""What an initializer is in the torch module: a weight, a statistic, or a constant.

This is told by where the graph uses it, never by what it holds.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from onnx import GraphProto, TensorProto

from mothkit_converters.quantisation import SCALES, cut_off
from mothkit_converters.scopes import all_nodes
from mothkit_converters.tensors import FLOATS


class Role(enum.Enum):
    """What an initializer is for."""

    WEIGHT = "weight"  # trained; where the file uses it as a statistic or constant too, that use follows
    STATISTIC = "statistic"  # follows the batch in train mode
    CONSTANT = "constant"  # stays: a single number in arithmetic, or part of the input's normalisation
    SETTING = "setting"  # stays, and may be read when the module is built: a bound, a ratio, a scale
    TORN = (
        "torn"  # stays: a weight here and a setting there, or one without a tensor in the file or a gradient
    )


@dataclass(frozen=True, slots=True)
class Binding:
    """The tie between an initializer and a torch tensor of the same shape.

    Attributes:
        initializer: Name of the initializer, or of the output of the Constant node that holds it.
        torch_name: Name of the parameter or buffer in the bound module.
        role: What it is for.
        transform: How the torch tensor is made from the initializer. Operators take weights in ONNX's own
            layout, so this is ``identity``, or ``float32`` for an initializer of half precision.
    """

    initializer: str
    torch_name: str
    role: Role
    transform: str = "identity"

    @property
    def trainable(self) -> bool:
        """Whether the torch tensor is a parameter."""
        return self.role is Role.WEIGHT


_NORMS = frozenset({f"{kind}Normalization" for kind in ("Batch", "Group", "Instance", "Layer", "RMS")})
_PRODUCTS = frozenset({"Conv", "ConvTranspose", "DeformConv", "Gemm", "MatMul"})
_FUSED = frozenset({"Attention", "FusedConv", "FusedGemm", "FusedMatMul"})  # onnxruntime's own
_LAYERS = _NORMS | _PRODUCTS | _FUSED | {"GRU", "LSTM", "PRelu", "RNN"}
_ARITHMETIC = frozenset({"Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Sum", "Mod", "Where"})
# All inputs are of one kind here; elsewhere sizes say how far a weight is spread.
_JOINING = _ARITHMETIC | {"Concat"}
_LAYOUT = frozenset({"Transpose", "Reshape", "Identity", "Cast", "Squeeze", "Unsqueeze", "Split", "Concat"})
_ROUNDING = frozenset({"QuantizeLinear", "DequantizeLinear"})
_LAYOUT_TOO = frozenset({"Slice", "Flatten", "Pad"})
_SETTINGS: Mapping[str, Collection[int]] = MappingProxyType(
    {
        **dict.fromkeys(("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"), (0, 1)),  # no gradient
        "Attention": (3, 4),
        "CastLike": (1,),
        "Clip": (1, 2),
        "Dropout": (1,),
        "GRU": (5,),
        "LSTM": (5, 6),
        "NonMaxSuppression": (3, 4),
        "OneHot": (1, 2),
        "Pad": (2,),
        "RNN": (5,),
        "Range": (0, 1, 2),
        "Resize": (1, 2),
        "RotaryEmbedding": (1, 2),
        "Upsample": (1,),
        **SCALES,
    }
)


def roles_of(graph: GraphProto, stored: Collection[str], derived: Collection[str] = ()) -> dict[str, Role]:
    """Return what each float initializer of ``graph`` is for.

    Args:
        graph: A canonical graph.
        stored: Names of those that can be written back.
        derived: Names of those that were computed from integers, so that nobody trained them.
    """
    normalisation, sizes, single = _input_normalisation(graph), _of_shapes(graph), _single_channels(graph)
    floats = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type in FLOATS}
    found: dict[str, list[Role]] = {name: [] for name in floats}
    for node in all_nodes(graph):
        for i, name in enumerate(node.input):
            if name in floats:
                number = node.op_type in _JOINING or math.prod(floats[name].dims) == 1
                with_sizes = number and not sizes.isdisjoint(node.input)
                bias = node.op_type == "Add" and bool(floats[name].dims) and not single.isdisjoint(node.input)
                role = Role.WEIGHT if bias else _role(node.op_type, i, floats[name], name in normalisation)
                found[name].append(Role.SETTING if with_sizes else role)
    writable = set(stored) - cut_off(graph)
    return {
        name: Role.SETTING if name in derived else _only(roles, stored=name in writable)
        for name, roles in found.items()
    }


def _role(op: str, index: int, tensor: TensorProto, fixed: bool) -> Role:  # noqa: FBT001
    if index in _SETTINGS.get(op, ()):
        return Role.SETTING
    if op == "BatchNormalization" and index in (3, 4):
        return Role.STATISTIC
    if op in _ARITHMETIC and (fixed or math.prod(tensor.dims) == 1):
        return Role.CONSTANT
    return Role.WEIGHT


def _only(roles: list[Role], *, stored: bool) -> Role:
    """Return the one role that serves all uses."""
    kinds = set(roles)
    if not stored:
        return Role.TORN if kinds & {Role.WEIGHT, Role.STATISTIC} else Role.SETTING
    if Role.WEIGHT in kinds:  # exporters merge equal tensors, so its other uses may be anything
        return Role.TORN if Role.SETTING in kinds else Role.WEIGHT
    alone = len(roles) == 1 or kinds == {Role.WEIGHT} or kinds == {Role.SETTING}
    return roles[0] if alone else Role.CONSTANT  # also a statistic that two nodes share


def _single_channels(graph: GraphProto) -> set[str]:
    """Return products with a stored weight that has one output: a number added to each has one too, and is its bias."""
    outputs = {"Conv": 0, "MatMul": -1}  # which axis of the weight these are
    dims = {tensor.name: tensor.dims for tensor in graph.initializer}
    return {
        node.output[0]
        for node in all_nodes(graph)
        if node.op_type in outputs and len(shape := dims.get(node.input[1], ())) > 1
        if shape[outputs[node.op_type]] == 1
    }


def _of_shapes(graph: GraphProto) -> set[str]:
    """Return values that are computed from shapes alone; what they are multiplied by is a setting.

    Tensors made with such numbers, as the places in a sequence are, are none of them.
    """
    stored = {tensor.name for tensor in graph.initializer}
    found: set[str] = set()
    for node in all_nodes(graph):
        given = set(node.input) - stored - {""}
        computes = node.op_type in _ARITHMETIC | _LAYOUT | {"Ceil", "Floor", "Gather", "Slice"}
        if node.op_type in ("Shape", "Size") or (computes and given and given <= found):
            found.update(node.output)
    return found


def _input_normalisation(graph: GraphProto) -> set[str]:
    """Return the initializers that arithmetic puts on the input before the first layer sees it.

    Means and scales of the images are data, not something learned. A graph without a layer has none.
    """
    raw = {info.name for info in graph.input}
    stored = {tensor.name for tensor in graph.initializer}
    found: set[str] = set()
    for node in graph.node:
        given = set(node.input) - stored - {""}
        if not given or not given <= raw:
            continue
        if node.op_type in _ARITHMETIC | _LAYOUT | _LAYOUT_TOO | _ROUNDING:
            raw.update(node.output)
            found.update(stored.intersection(node.input))
    has_layer = any(node.op_type in _LAYERS for node in graph.node)
    return found if has_layer else set()
