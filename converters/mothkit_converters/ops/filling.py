"""Tensors made from numbers: constants, ranges, unit matrices, shapes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from onnx import TensorProto
from onnx2torch.onnx_graph import OnnxGraph
from onnx2torch.onnx_node import OnnxNode
from onnx2torch.utils.common import OnnxMapping, OperationConverterResult
from torch import Tensor

from mothkit_converters.errors import UnsupportedOpError
from mothkit_converters.ops.bounds import check_count, excess
from mothkit_converters.ops.call import Call, fixed_numbers, listed, operator
from mothkit_converters.ops.dtypes import torch_dtype
from mothkit_converters.ops.registry import serve


class Filling(Call):
    """Calls a function that makes a tensor of numbers alone.

    Attributes:
        like: What the function takes last: a tensor on the device where the module is.
    """

    like: Tensor

    def __init__(
        self, function: Callable[..., Tensor], like: Tensor, *, fixed: Mapping[int, Any], count: int
    ) -> None:
        super().__init__(function, {}, fixed=fixed, numbers=range(count), count=count)
        self.register_buffer("like", like, persistent=False)

    def forward(self, *given: Any) -> Tensor:  # noqa: ANN401 - numbers, or tensors that hold them
        """Return the function of ``given``, which are the numbers that the file does not fix, in order."""
        made: Tensor = self.function(*self.inputs(given), self.like)
        return made


def _filling(
    node: OnnxNode,
    graph: OnnxGraph,
    function: Callable[..., Tensor],
    like: Tensor,
    size: Callable[..., float],
) -> OperationConverterResult:
    """Convert ``node``, unless the numbers that the file stores make a tensor of a ``size`` that is too much."""
    count = len(node.input_values)
    fixed = fixed_numbers(node, graph, range(count))
    stored = [fixed[place] for place in range(count) if place in fixed]
    if len(stored) == count and (why := excess(node.operation_type, size(*stored))):
        raise UnsupportedOpError(node.operation_type, node.name, why)
    passed = tuple(name for place, name in enumerate(node.input_values) if place not in fixed)
    module = Filling(function, like, fixed=fixed, count=count)
    return OperationConverterResult(module, OnnxMapping(passed, node.output_values))


def constant_of_shape(shape: Sequence[int], value: Tensor) -> Tensor:
    """Return a tensor of this ``shape`` that holds ``value`` everywhere."""
    check_count("ConstantOfShape", math.prod(shape))
    return value.expand(shape)


@serve("ConstantOfShape", 9, 20, 21, 23, 24, 25)  # the versions add types
def _constant_of_shape(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    given = node.attributes.get("value")
    value = torch.zeros(()) if given is None else given.to_torch().reshape(())
    return _filling(node, graph, constant_of_shape, value, size=math.prod)


Scalar = float | Sequence[float]
"""A number, or a list of one: exporters write a tensor [1] where ONNX wants a scalar."""


def range_(start: Scalar, limit: Scalar, delta: Scalar, like: Tensor) -> Tensor:
    """Return the numbers from ``start`` to before ``limit`` in steps of ``delta``, in the dtype of ``like``."""
    start, limit, delta = (listed(number)[0] for number in (start, limit, delta))  # some files give lists
    count = _length(start, limit, delta)
    check_count("Range", count)
    steps = torch.arange(count, dtype=like.dtype, device=like.device)
    made: Tensor = listed(start)[0] + listed(delta)[0] * steps
    return made


def _length(*numbers: Scalar) -> int:
    """Return how many numbers there are from a start to before a limit, in steps."""
    start, limit, delta = (listed(number)[0] for number in numbers)
    whole = (
        -((start - limit) // delta) if not isinstance(delta, float) else math.ceil((limit - start) / delta)
    )
    count: int = max(whole, 0)
    return count


@serve("Range", 11, 27)  # 27 adds half precision, which is computed in float32 as its stash_type says
def _range(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    infos = [
        graph.value_info[name]
        for name in (*node.output_values, *node.input_values)
        if name in graph.value_info
    ]
    stored = [
        graph.initializers[name].proto.data_type for name in node.input_values if name in graph.initializers
    ]
    types = [*stored, *(info.type.tensor_type.elem_type for info in infos)]
    kind = next(filter(None, types), TensorProto.INT64)
    like = torch.zeros((), dtype=torch_dtype(kind))
    return _filling(node, graph, range_, like, size=_length)


@serve("Constant", 1, 9, 11, 12, 13, 19, 21, 23, 24, 25)
def _constant(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:  # noqa: ARG001
    """Refuse what is left of Constant nodes once those of plain tensors and numbers are initializers."""
    kind = next(iter(node.attributes), "nothing")
    raise UnsupportedOpError("Constant", node.name, f"it holds a {kind}; expected a dense tensor of numbers")


def _check_eye(attributes: Mapping[str, Any]) -> str:
    try:
        torch_dtype(attributes.get("dtype", TensorProto.FLOAT))
    except TypeError:
        return f"its dtype {attributes['dtype']} is not computed with"
    return ""


@operator("EyeLike", 9, 22, check=_check_eye)
def eye_like(x: Tensor, *, dtype: int | None = None, k: int = 0) -> Tensor:
    """Return a matrix of the shape of ``x`` [N, M] with ones on its ``k``-th diagonal."""
    rows, columns = (torch.arange(size, device=x.device) for size in x.shape)
    return (columns - rows.unsqueeze(1) == k).to(x.dtype if dtype is None else torch_dtype(dtype))


@operator("Trilu", 14, numbers=(1,))
def trilu(x: Tensor, k: int | Sequence[int] | None = None, *, upper: int = 1) -> Tensor:
    """Return ``x`` [..., N, M] with zeros below its ``k``-th diagonal, or above it where not ``upper``."""
    diagonal = listed(k)[0] if k is not None else 0
    return x.triu(diagonal) if upper else x.tril(diagonal)


@operator("Shape", 1, 13, 15, 19, 21, 23, 24, 25)  # 15 adds start and end
def shape(x: Tensor, *, start: int = 0, end: int | None = None) -> Tensor:
    """Return the dimensions of ``x`` as a tensor; graphs that count with them get ``sizes`` in its place."""
    return torch.tensor(list(x.shape[start:end]), dtype=torch.int64, device=x.device)


@operator("Size", 1, 13, 19, 21, 23, 24, 25)
def size(x: Tensor) -> Tensor:
    """Return the number of elements of ``x`` as a tensor."""
    return torch.tensor(x.numel(), device=x.device)
