"""ONNX's element types that torch computes with."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
from onnx import TensorProto
from onnx2torch.onnx_graph import OnnxGraph
from onnx2torch.onnx_node import OnnxNode

DTYPES: Mapping[int, torch.dtype] = MappingProxyType(
    {
        TensorProto.FLOAT: torch.float32,
        TensorProto.UINT8: torch.uint8,
        TensorProto.INT8: torch.int8,
        TensorProto.UINT16: torch.uint16,
        TensorProto.INT16: torch.int16,
        TensorProto.INT32: torch.int32,
        TensorProto.INT64: torch.int64,
        TensorProto.BOOL: torch.bool,
        TensorProto.FLOAT16: torch.float16,
        TensorProto.DOUBLE: torch.float64,
        TensorProto.UINT32: torch.uint32,
        TensorProto.UINT64: torch.uint64,
        TensorProto.BFLOAT16: torch.bfloat16,
        TensorProto.COMPLEX64: torch.complex64,
        TensorProto.COMPLEX128: torch.complex128,
    }
)


def torch_dtype(number: int) -> torch.dtype:
    """Return ONNX's element type of this number as torch has it.

    Raises:
        TypeError: torch has none, or none that it computes with.
    """
    if number not in DTYPES:
        raise TypeError(f"{name_of(number)} is not computed with")
    return DTYPES[number]


def name_of(number: int) -> str:
    """Return ONNX's name of an element type."""
    names: dict[int, str] = {value: name for name, value in TensorProto.DataType.items()}
    return names.get(number, f"element type {number}")


def strange_input(node: OnnxNode, graph: OnnxGraph, *, lists: bool = False) -> str:
    """Return what is wrong with the graph inputs that ``node`` reads, empty where torch has their types.

    ``lists`` says whether it takes sequences and optional values.
    """
    kinds = {info.name: info.type for info in graph.proto.input if info.name in node.input_values}
    for name, kind in kinds.items():
        number = kind.tensor_type.elem_type
        if not lists and kind.WhichOneof("value") not in (None, "tensor_type"):
            return f"its input '{name}' is no tensor"
        if number and number not in DTYPES:
            return f"its input '{name}' is of {name_of(number)}, which is not computed with"
    return ""
