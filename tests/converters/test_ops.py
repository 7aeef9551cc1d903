"""The door to onnx2torch's table, and names that a network takes from its file."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx2torch.node_converters import registry

from mothkit_converters import to_torch
from mothkit_converters.ops import find_converter, overrides

Save = Callable[..., Path]


def test_the_overrides_were_written_for_this_onnx2torch() -> None:
    assert importlib.metadata.version("onnx2torch") == "1.5.15"


def test_the_table_is_left_as_it_was() -> None:
    before = dict(registry._CONVERTER_REGISTRY)
    with overrides():
        assert before != registry._CONVERTER_REGISTRY
    assert before == registry._CONVERTER_REGISTRY
    with pytest.raises(RuntimeError), overrides():
        raise RuntimeError
    assert before == registry._CONVERTER_REGISTRY


def test_versions_are_those_of_the_schemas() -> None:
    assert find_converter("Conv", 20) is find_converter("Conv", 11)
    assert find_converter("Conv", 23) is not None
    assert find_converter("GroupNormalization", 17) is None
    assert find_converter("Conv", 17, "some.domain") is None
    assert find_converter("NoSuchOp", 17) is None


def one_node(body: str, inputs: str, opset: int = 18) -> str:
    return f'<ir_version: 8, opset_import: ["" : {opset}]> g ({inputs}) => (float[] y) {{ {body} }}'


def test_a_node_may_be_called_as_a_keyword(save: Save) -> None:
    text = one_node("and = Relu(x) class = MatMul(and, or) y = Add(class, or)", "float[2, 2] x")
    path = save(text, {"or": np.eye(2, dtype="f4")})
    assert to_torch(path)(torch.zeros(2, 2)).tolist() == [[1, 0], [0, 1]]
