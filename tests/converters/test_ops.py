"""Operators of our own against ONNX's reference, and the door to onnx2torch's table."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from onnx2torch.node_converters import registry

from mothkit_converters import UnsupportedOpError, to_torch
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
    assert find_converter("Resize", 19) is None
    assert find_converter("Conv", 17, "some.domain") is None
    assert find_converter("NoSuchOp", 17) is None


def one_node(body: str, inputs: str, opset: int = 18) -> str:
    return f'<ir_version: 8, opset_import: ["" : {opset}]> g ({inputs}) => (float[] y) {{ {body} }}'


CASES = []


@pytest.mark.parametrize("opset", [18, 21, 22])
@pytest.mark.parametrize(("body", "weights", "shape"), CASES, ids=[f"{c[0]}-{c[2]}" for c in CASES])
def test_an_operator_agrees_with_onnxs_reference(
    save: Save, body: str, weights: dict[str, Any], shape: tuple[int, ...], opset: int
) -> None:
    path = save(one_node(body, f"float[{', '.join(map(str, shape))}] x", opset), weights)
    x = np.random.default_rng(0).normal(size=shape).astype("f4")
    expected = ReferenceEvaluator(str(path)).run(None, {"x": x})[0]
    found = to_torch(path)(torch.from_numpy(x)).detach().numpy()
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("h = Relu(x) y = BatchNormalization(x, s, s, h, h)", "computed, not stored"),
    ],
)
def test_what_cannot_be_right_is_refused(save: Save, body: str, why: str) -> None:
    weights = {"s": np.ones(1, "f4")}
    used = {name: values for name, values in weights.items() if f" {name}" in body}
    with pytest.raises(UnsupportedOpError, match=why):
        to_torch(save(one_node(body, "float[1, 1, 6, 6] x", opset=19), used))


@pytest.mark.parametrize(
    "body",
    [
        "y = Resize<mode = 'linear', coordinate_transformation_mode = 'asymmetric'>(x, , r)",
        "y = Resize(x, , r)",
    ],
)
def test_what_onnx2torch_gets_wrong_is_refused(save: Save, body: str) -> None:
    weights = {"r": np.array([1, 1, 2.5, 2.5], "f4")}
    used = {name: values for name, values in weights.items() if f" {name})" in body}
    text = one_node(body.replace("'", '"'), "float[1, 1, 6, 6] x", opset=13)
    with pytest.raises(UnsupportedOpError, match=r"differ|something else"):
        to_torch(save(text, used))


def test_a_node_may_be_called_as_a_keyword(save: Save) -> None:
    text = one_node("and = Relu(x) class = MatMul(and, or) y = Add(class, or)", "float[2, 2] x")
    path = save(text, {"or": np.eye(2, dtype="f4")})
    assert to_torch(path)(torch.zeros(2, 2)).tolist() == [[1, 0], [0, 1]]
