"""What the file alone decides is computed once, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mothkit_converters import Role, read_source, to_torch
from mothkit_converters.canonical import canonicalise

Save = Callable[..., Path]
Run = Callable[..., list[Any]]


def graph(body: str, inputs: str = "float[N, 6] x", opset: int = 17) -> str:
    return f'<ir_version: 8, opset_import: ["" : {opset}]> g ({inputs}) => (float[] y) {{ {body} }}'


def operators(path: Path) -> list[str]:
    source = read_source(path)
    return [node.op_type for node in canonicalise(source, [v.name for v in source.outputs]).model.graph.node]


def drawn(*shape: int) -> Any:
    return np.random.default_rng(0).uniform(-1, 1, shape).astype("f4")


def test_sums_of_stored_integers_are_folded(save: Save, run: Run) -> None:
    body = "a = Add(two, one) b = Concat<axis = 0>(minus, a) y = Reshape(x, b)"
    path = save(graph(body), {"two": np.array([2]), "one": np.array([1]), "minus": np.array([-1])})
    assert operators(path) == ["Reshape"]
    x = drawn(2, 6)
    np.testing.assert_array_equal(to_torch(path)(torch.from_numpy(x)).numpy(), run(path, x)[0])


def test_arithmetic_on_a_stored_float_stays_and_its_weight_is_trained(save: Save) -> None:
    body = "t = Transpose(w) h = MatMul(x, t) r = Range(zero, four, one) f = Cast<to = 1>(r) y = Add(h, f)"
    path = save(graph(body), {"w": drawn(4, 6), "zero": np.array(0), "four": np.array(4), "one": np.array(1)})
    assert operators(path) == ["Transpose", "MatMul", "Add"]
    bound = to_torch(path)
    assert {name: tie.role for name, tie in bound.ties.items()} == {"w": Role.WEIGHT}
    assert bound.unbound == ()  # what was counted is nobody's weight


def test_a_dimension_that_the_batch_decides_is_not_folded(save: Save, run: Run) -> None:
    body = """s = Shape(x) n = Gather(s, zero) c = Gather(s, one) a = Unsqueeze(n, zeros) b = Unsqueeze(c, zeros)
              t = Concat<axis = 0>(a, b, minus) y = Reshape(x, t)"""
    weights = {"zero": np.array(0), "one": np.array(1), "zeros": np.array([0]), "minus": np.array([-1])}
    path = save(graph(body, "float[1, 3, 2, 2] x"), weights)
    assert operators(path).count("Gather") == 1  # the channels are known, whatever the batch
    x = drawn(1, 3, 2, 2)
    np.testing.assert_array_equal(to_torch(path)(torch.from_numpy(x)).numpy(), run(path, x)[0])
    assert to_torch(path)(torch.zeros(4, 3, 2, 2)).shape == (4, 3, 4)


@pytest.mark.parametrize(
    ("body", "numbers"),
    [
        ("c = ConstantOfShape(huge) s = Shape(c) f = Cast<to = 1>(s) y = Add(x, f)", [10**6, 10**6]),
        ("c = Expand(one, huge) s = Shape(c) f = Cast<to = 1>(s) y = Add(x, f)", [10**6, 10**6]),
        ("t = Transpose(row) c = Mul(t, row) s = Shape(c) f = Cast<to = 1>(s) y = Add(x, f)", []),
    ],
)
def test_nothing_large_is_folded(save: Save, body: str, numbers: list[int]) -> None:
    weights = {"huge": np.array(numbers), "one": np.array([1]), "row": np.ones((1, 60000), "i8")}
    path = save(graph(body), {name: value for name, value in weights.items() if name in body})
    assert {"ConstantOfShape", "Expand", "Mul"} & set(operators(path))


def test_a_division_by_zero_is_left_where_it_is(save: Save) -> None:
    path = save(
        graph("a = Mod(one, zero) f = Cast<to = 1>(a) y = Add(x, f)"),
        {"one": np.array(1), "zero": np.array(0)},
    )
    assert operators(path)[-1] == "Add"
