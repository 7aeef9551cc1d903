"""Half precision: float32 within, and what the file declares at its borders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from mothkit_converters import to_torch, write_back

TYPES = {"float16": (TensorProto.FLOAT16, torch.float16), "bfloat16": (TensorProto.BFLOAT16, torch.bfloat16)}
Save = Callable[..., Path]


def half_model(folder: Path, kind: int) -> Path:
    """Write ``y = x @ w + 1``, all of it in one half precision, the 1 from a ConstantOfShape."""
    one = numpy_helper.from_array(np.ones(1, helper.tensor_dtype_to_np_dtype(kind)))
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("ConstantOfShape", ["shape"], ["ones"], value=one),
        helper.make_node("Add", ["h", "ones"], ["y"]),
    ]
    w = np.random.default_rng(0).uniform(-1, 1, (6, 4)).astype(helper.tensor_dtype_to_np_dtype(kind))
    graph = helper.make_graph(
        nodes,
        "halves",
        [helper.make_tensor_value_info("x", kind, ["N", 6])],
        [helper.make_tensor_value_info("y", kind, ["N", 4])],
        [numpy_helper.from_array(w, "w"), numpy_helper.from_array(np.array([4]), "shape")],
    )
    path = folder / "half.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize("name", TYPES)
def test_fed_halves_it_answers_in_halves_and_fed_float32_in_float32(tmp_path: Path, name: str) -> None:
    kind, dtype = TYPES[name]
    path = half_model(tmp_path, kind)
    bound = to_torch(path)
    x = torch.randn(3, 6, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert {p.dtype for p in bound.parameters()} == {torch.float32}
    exact = x.float() @ bound.tensor("w") + 1
    assert torch.equal(bound(x), exact.to(dtype))
    assert torch.equal(bound(x.float()), exact)


@pytest.mark.parametrize("name", TYPES)
def test_weights_go_back_in_their_own_type(tmp_path: Path, name: str) -> None:
    path = half_model(tmp_path, TYPES[name][0])
    bound = to_torch(path)
    with torch.no_grad():
        bound.tensor("w").mul_(2)
    write_back(bound, tmp_path / "out.onnx")
    before, after = (onnx.load(file).graph.initializer[0] for file in (path, tmp_path / "out.onnx"))
    assert before.data_type == after.data_type
    doubled = 2 * numpy_helper.to_array(before).astype("f4")
    np.testing.assert_array_equal(numpy_helper.to_array(after).astype("f4"), doubled)


def test_a_value_within_is_given_as_declared_too(save: Save) -> None:
    body = "h = Cast<to = 10>(x) y = Cast<to = 1>(h)"
    path = save(f'<ir_version: 8, opset_import: ["" : 17]> g (float[2] x) => (float[2] y) {{ {body} }}')
    x = torch.tensor([1.0001, 3.0])
    h, y = to_torch(path, outputs=["h", "y"])(x)
    assert (h.dtype, y.dtype) == (torch.float16, torch.float32)
    values: Any = h.tolist()
    assert values == [1.0, 3.0]
