"""Arithmetic on sizes in Python: what graphs compute from shapes needs no tensors.

A size is an int or a list of ints. Kept as such it makes no device wait and can be traced as a symbol.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeAlias

import torch
from onnx import NodeProto, TensorProto, helper
from torch import Tensor

Size: TypeAlias = "int | list[int]"
Rank: TypeAlias = int  # 0 for an int, 1 for a list
Plan: TypeAlias = "tuple[Callable[..., Size], Rank]"


def as_tensor(size: Size, like: Tensor | None) -> Tensor:
    """Return ``size`` as a tensor of int64 (bool where it is of truths) on the device of ``like``."""
    empty = isinstance(size, list) and not size
    return torch.tensor(
        size, dtype=torch.int64 if empty else None, device=None if like is None else like.device
    )


def shape_of(node: NodeProto) -> Callable[[Tensor], Size] | None:
    """Return what reads a size off a tensor as ``node`` does; None where it is no Shape or Size."""
    if node.op_type == "Size":
        return torch.Tensor.numel
    if node.op_type != "Shape":
        return None
    bounds = slice(_attribute(node, "start", None), _attribute(node, "end", None))

    def shape(x: Tensor) -> list[int]:
        return list(x.shape[bounds]) if _ordered(bounds, x.dim()) else []

    return shape


def plan(node: NodeProto, ranks: Sequence[Rank | None]) -> Plan | None:
    """Return a function of sizes that does what ``node`` does, and the rank of its result.

    Args:
        node: A node whose inputs are all sizes, or None where one is left out.
        ranks: The rank of each input.

    Returns:
        None where sizes cannot serve the node, so that it has to take tensors.
    """
    make = _PLANS.get(node.op_type)
    return None if make is None else make(node, ranks)


def _ordered(bounds: slice, rank: int) -> bool:
    start, stop, _ = bounds.indices(rank)
    return start <= stop


def _attribute(node: NodeProto, name: str, default: Any) -> Any:  # noqa: ANN401 - as ONNX has it
    found = next((attribute for attribute in node.attribute if attribute.name == name), None)
    return default if found is None else helper.get_attribute_value(found)


def _divide(a: int, b: int) -> int:
    """Return ``a / b`` rounded towards zero, as C does."""
    return a // b if (a < 0) == (b < 0) else -(-a // b)


def _elementwise(function: Callable[..., int]) -> Callable[[NodeProto, Sequence[Rank | None]], Plan | None]:
    def compute(*sizes: Size) -> Size:
        lists = [size for size in sizes if isinstance(size, list)]
        if not lists:
            return function(*sizes)
        length = max(map(len, lists))
        spread = [[size] * length if isinstance(size, int | torch.SymInt) else size for size in sizes]
        spread = [size * length if len(size) == 1 else size for size in spread]
        return [function(*values) for values in zip(*spread, strict=True)]

    def make(node: NodeProto, ranks: Sequence[Rank | None]) -> Plan | None:  # noqa: ARG001
        return None if None in ranks else (compute, max(rank or 0 for rank in ranks))

    return make


def _gather(node: NodeProto, ranks: Sequence[Rank | None]) -> Plan | None:
    def gather(size: list[int], index: Size) -> Size:
        return [size[i] for i in index] if isinstance(index, list) else size[index]

    return (gather, ranks[1] or 0) if ranks[0] == 1 and _attribute(node, "axis", 0) in (0, -1) else None


def _slice(node: NodeProto, ranks: Sequence[Rank | None]) -> Plan | None:  # noqa: ARG001
    if ranks[0] != 1 or len(ranks) < 3 or any(rank == 0 for rank in ranks[1:]):
        return None  # its numbers are attributes before version 10

    def cut(size: list[int], starts: list[int], ends: list[int], *more: list[int] | None) -> list[int]:
        steps = more[1] if len(more) > 1 and more[1] else [1]
        first, stop, step = slice(starts[0], ends[0], steps[0]).indices(len(size))
        return [size[i] for i in range(first, stop, step)]

    return cut, 1


def _concat(node: NodeProto, ranks: Sequence[Rank | None]) -> Plan | None:  # noqa: ARG001
    def join(*sizes: list[int]) -> list[int]:
        return [number for size in sizes for number in size]

    return (join, 1) if all(rank == 1 for rank in ranks) else None


def _to_list(node: NodeProto, ranks: Sequence[Rank | None]) -> Plan | None:  # noqa: ARG001
    return (lambda size, *_: [size], 1) if ranks[0] == 0 else None


def _to_number(node: NodeProto, ranks: Sequence[Rank | None]) -> Plan | None:
    def only(size: list[int], *_: Size) -> int:
        (number,) = size
        return number

    named = len(ranks) > 1 or _attribute(node, "axes", None) is not None  # else a longer list stays one
    return (only, 0) if ranks[0] == 1 and named else None


def _same(node: NodeProto, ranks: Sequence[Rank | None]) -> Plan | None:
    if ranks[0] is None or _attribute(node, "to", TensorProto.INT64) != TensorProto.INT64:
        return None
    return (lambda size: size), ranks[0]


def _product(node: NodeProto, ranks: Sequence[Rank | None]) -> Plan | None:
    if ranks[0] != 1 or (
        len(ranks) > 1 and ranks[1] is not None and _attribute(node, "noop_with_empty_axes", 0)
    ):
        return None
    kept = bool(_attribute(node, "keepdims", 1))

    def multiply(size: list[int], *_: Size | None) -> Size:
        product = 1
        for number in size:
            product = product * number
        return [product] if kept else product

    return multiply, int(kept)


_PLANS: Mapping[str, Callable[[NodeProto, Sequence[Rank | None]], Plan | None]] = MappingProxyType(
    {
        "Add": _elementwise(operator.add),
        "Cast": _same,
        "Concat": _concat,
        "Div": _elementwise(_divide),
        "Equal": _elementwise(operator.eq),
        "Gather": _gather,
        "Identity": _same,
        "Max": _elementwise(max),
        "Min": _elementwise(min),
        "Mul": _elementwise(operator.mul),
        "ReduceProd": _product,
        "Slice": _slice,
        "Squeeze": _to_number,
        "Sub": _elementwise(operator.sub),
        "Unsqueeze": _to_list,
        "Where": _elementwise(lambda chosen, a, b: a if chosen else b),
    }
)
