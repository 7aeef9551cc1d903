"""Weights that nodes of ``ai.onnx.ml`` hold as attributes, seen as tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, NodeProto, TensorProto, numpy_helper

ML = "ai.onnx.ml"

_HELD: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "Imputer": ("imputed_value_floats",),
        "LinearClassifier": ("coefficients", "intercepts"),
        "LinearRegressor": ("coefficients", "intercepts"),
        "Scaler": ("offset", "scale"),
    }
)


def attribute_tensors(node: NodeProto) -> Iterator[tuple[int, TensorProto]]:
    """Yield the index of each attribute of ``node`` that holds weights, and a float32 tensor of its values.

    It is called by the node's first output and the attribute: ``label.coefficients``. Coefficients have the shape
    [classes, features], all else has one dimension.
    """
    names = _HELD.get(node.op_type, ()) if node.domain == ML else ()
    for index, attribute in enumerate(node.attribute):
        if attribute.name in names and attribute.type == AttributeProto.FLOATS:
            values = np.array(attribute.floats, np.float32)
            if attribute.name == "coefficients":
                values = _rows(values, node)
            yield index, numpy_helper.from_array(values, f"{node.output[0]}.{attribute.name}")


def _rows(coefficients: Any, node: NodeProto) -> Any:  # noqa: ANN401 - a float32 array
    """Return ``coefficients`` with a row for each class or target; as they are where they do not divide so."""
    labels = given(node, "classlabels_ints", ()) or given(node, "classlabels_strings", ())
    count = len(given(node, "intercepts", ())) or len(labels) or given(node, "targets", 1)
    return coefficients if count < 1 or coefficients.size % count else coefficients.reshape(count, -1)


def given(node: NodeProto, name: str, default: Any) -> Any:  # noqa: ANN401 - as ONNX has it
    """Return the value of an attribute of ``node``, ``default`` where it has none."""
    found = next((attribute for attribute in node.attribute if attribute.name == name), None)
    return default if found is None else onnx.helper.get_attribute_value(found)
