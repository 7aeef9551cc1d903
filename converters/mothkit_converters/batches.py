"""Files that fix a batch size: what keeps them from taking another one, and does not mean it.

Nothing changes for the size in the file. Where a batch does not come first, nothing is freed; ``mixing`` tells
whether images come out at another size as they do alone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from mothkit_converters.scopes import all_nodes
from mothkit_converters.shapes import inferred, known_dims
from mothkit_converters.tensors import array_of, outline

Dims = Mapping[str, Sequence[int]]
_PASSES = 64  # each lets sizes be known up to the next Reshape
_ELEMENTWISE = frozenset(
    (
        *("Add", "Cast", "Clip", "Div", "Erf", "Gelu", "Identity", "Mul", "Pow", "QuickGelu", "Relu"),
        *("Sigmoid", "Sqrt", "Sub", "Tanh"),
    )
)
_BY_IMAGE = frozenset(
    (
        *("AveragePool", "BatchNormalization", "Conv", "Dropout", "Gemm", "GlobalAveragePool"),
        *("InstanceNormalization", "LayerNormalization", "MatMul", "MaxPool", "Softmax"),
    )
)


def any_batch(model: ModelProto) -> ModelProto:
    """Return an outline of ``model`` that fixes no first dimension of an input, and knows no other shapes yet."""
    freed = outline(model)
    freed.graph.ClearField("value_info")
    for info in freed.graph.input:
        if info.type.tensor_type.shape.dim:
            info.type.tensor_type.shape.dim[0].Clear()
            info.type.tensor_type.shape.dim[0].dim_param = "batch"
    for info in freed.graph.output:
        info.type.tensor_type.ClearField("shape")
    return freed


def free_batch(model: ModelProto) -> None:
    """Let ``model``, whose shapes have been inferred, take other batch sizes than its file has, in place."""
    graph = model.graph
    dims = known_dims(graph)
    fixed = {dims[info.name][0] for info in graph.input if dims.get(info.name)} - {0}
    for node in all_nodes(graph):
        _keep_first(node, graph, dims)
        if 1 in fixed:
            _take_single(node, dims)
    if fixed:
        for _ in range(_PASSES):
            if not _free_leading(model, fixed):
                break


def _keep_first(node: NodeProto, graph: GraphProto, dims: Dims) -> None:
    """Let a Reshape keep the first dimension that it is given, where it keeps the fixed one.

    ``[1, 256]`` for an input [1, 16, 4, 4] becomes ``[0, 256]``.
    """
    shape = _stored_shape(node, graph)
    if shape and shape[0] > 0 and shape[:1] == list(dims.get(node.input[0], ()))[:1]:
        _reshape_to(node, graph, [0, *shape[1:]])


def _free_leading(model: ModelProto, batches: Collection[int]) -> bool:
    """Free Reshapes that put a batch together with the axis after it, or take it apart; return whether any were.

    ``[12, 197, 64]`` for an input [batch, 12, 197, 64] becomes ``[-1, 197, 64]``, and so does the way back. The
    axes behind stay as they are: what is folded otherwise may have been meant for one image alone.
    """
    dims, changed = known_dims(inferred(any_batch(model)).graph), False
    leading = {info.name for info in model.graph.input}
    for node in model.graph.node:
        shape, given = _stored_shape(node, model.graph), list(dims.get(next(iter(node.input), ""), ()))
        if shape and min(shape) > 0 and node.input[0] in leading and given[:1] == [0] and 0 not in given[1:]:
            merged = len(shape) < len(given) and shape[1:] == given[-len(shape) + 1 :]
            apart = (
                len(shape) > len(given) > 1 and given[1:] == shape[-len(given) + 1 :] and shape[0] in batches
            )
            if merged or apart:
                _reshape_to(node, model.graph, [-1, *shape[1:]])
                changed = True
        if _keeps_batch_first(node, leading, model.graph):
            leading.update(node.output)
    return changed


def _keeps_batch_first(node: NodeProto, leading: Collection[str], graph: GraphProto) -> bool:
    """Return whether a batch that comes first in what ``node`` reads comes first in what it makes."""
    if not node.input or node.input[0] not in leading:
        return node.op_type in _ELEMENTWISE and any(name in leading for name in node.input)
    given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    if node.op_type == "Transpose":
        return list(given.get("perm", ()))[:1] == [0]
    if node.op_type == "Reshape":
        return _stored_shape(node, graph)[:1] in ([0], [-1])
    return node.op_type in _ELEMENTWISE | _BY_IMAGE


def _take_single(node: NodeProto, dims: Dims) -> None:
    """Mark nodes that count on a batch of one: Squeeze may find it longer, Concat may meet a stored tensor of one.

    The mark is an attribute ``batch``, which their converters know.
    """
    given = [list(dims.get(name, ())) for name in node.input]
    if node.op_type == "Concat" and all(len(shape) > 1 and shape[0] == 1 for shape in given):
        axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
        if axis % len(given[0]) != 0:
            node.attribute.append(helper.make_attribute("batch", 1))
    elif node.op_type == "Squeeze" and len(given[0]) > 1 and given[0][0] == 1:
        node.attribute.append(helper.make_attribute("batch", 1))


def _stored_shape(node: NodeProto, graph: GraphProto) -> list[int]:
    """Return the shape that a Reshape node makes, where the file stores it and 0 copies; else nothing."""
    if node.op_type != "Reshape" or len(node.input) < 2:
        return []
    if any(attribute.name == "allowzero" and attribute.i for attribute in node.attribute):
        return []
    stored = next((tensor for tensor in graph.initializer if tensor.name == node.input[1]), None)
    if stored is None or stored.data_type != TensorProto.INT64 or len(stored.dims) != 1:
        return []
    return [int(number) for number in array_of(stored)]


def _reshape_to(node: NodeProto, graph: GraphProto, shape: Sequence[int]) -> None:
    tensor = numpy_helper.from_array(np.array(shape, dtype=np.int64), f"{node.input[1]}#{node.name}")
    graph.initializer.append(tensor)
    node.input[1] = tensor.name
