"""Products of matrices against onnxruntime, or onnx's reference where that lacks the version."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.converters.ops.single import Array, assert_agrees, assert_same, imported, one, ours, runtime


def drawn(*shape: int) -> Array:
    return np.random.default_rng(shape).normal(size=shape).astype("f4")


GEMMS: list[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...] | None, dict[str, Any]]] = [
    ((2, 3), (3, 4), None, {}),
    ((2, 3), (3, 4), (4,), {}),
    ((3, 2), (4, 3), (2, 4), {"transA": 1, "transB": 1}),
    ((2, 3), (4, 3), (2, 1), {"transB": 1, "alpha": 0.5, "beta": 2.0}),
    ((3, 2), (3, 4), (1,), {"transA": 1, "alpha": -1.5}),
    ((2, 3), (3, 4), (), {"beta": 0.25}),
    ((2, 3), (3, 4), None, {"alpha": 0.25}),
    ((0, 3), (3, 4), (4,), {}),
    ((2, 0), (0, 4), (4,), {"beta": 3.0}),
]


@pytest.mark.parametrize("opset", [7, 9, 11, 13])
@pytest.mark.parametrize(("a", "b", "c", "attributes"), GEMMS)
def test_a_general_product(a: Any, b: Any, c: Any, attributes: dict[str, Any], opset: int) -> None:
    inputs = [drawn(*a), drawn(*b), *([] if c is None else [drawn(*c)])]
    if opset < 11 and c is None:
        pytest.skip("c was needed before version 11")
    model, values = one("Gemm", *inputs, opset=opset, stored=range(1, len(inputs)), **attributes)
    expected = attributes.get("alpha", 1) * (
        (inputs[0].T if "transA" in attributes else inputs[0])
        @ (inputs[1].T if "transB" in attributes else inputs[1])
    )
    expected = expected + (attributes.get("beta", 1) * inputs[2] if c is not None else 0)
    assert_same(ours(model, values), [expected.astype("f4")])


@pytest.mark.parametrize("opset", [1, 6])
def test_a_general_product_of_the_first_versions(opset: int) -> None:
    a, b = drawn(2, 3), drawn(3, 4)
    for c, broadcast in ((drawn(2, 4), 0), (drawn(4), 1), (drawn(1), 1)):
        given: dict[str, Any] = {"broadcast": broadcast, "expected": [a @ b + c]}
        assert_agrees("Gemm", a, b, c, opset=opset, **given)


@pytest.mark.parametrize("dtype", ["int32", "int64", "float64"])
def test_a_general_product_keeps_its_type(dtype: str) -> None:
    a, b, c = ((10 * drawn(*shape)).astype(dtype) for shape in ((2, 3), (3, 4), (4,)))
    assert_agrees("Gemm", a, b, c, opset=13, expected=[a @ b * 2 + c * 3], alpha=2.0, beta=3.0)
    assert_agrees("Gemm", a, b, opset=13, expected=[a @ b])


@pytest.mark.parametrize("opset", [1, 9, 13])
@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((2, 3), (3, 4)),
        ((3,), (3, 4)),
        ((2, 3), (3,)),
        ((3,), (3,)),
        ((5, 1, 2, 3), (6, 3, 4)),
        ((3,), (5, 3, 4)),
        ((5, 2, 3), (3,)),
        ((0, 3), (3, 2)),
    ],
)
def test_a_product(a: Any, b: Any, opset: int) -> None:
    x, y = drawn(*a), drawn(*b)
    assert_agrees("MatMul", x, y, opset=opset, stored=[1], expected=[np.asarray(x @ y)])
    if opset == 9:
        x, y = (10 * x).astype("i4"), (10 * y).astype("i4")
        assert_agrees("MatMul", x, y, opset=opset, expected=[np.asarray(x @ y)])


@pytest.mark.parametrize("opset", [12, 28])
@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("ij,jk->ik", [(2, 3), (3, 4)]),
        (" i j , j k ", [(2, 3), (3, 4)]),
        ("ba", [(2, 3)]),
        ("...ii->...i", [(2, 3, 3)]),
        ("Ab,bA->A", [(2, 3), (3, 2)]),
        ("aB", [(2, 3)]),
        ("i,i->", [(4,), (4,)]),
        ("bij,bjk,kl->bil", [(5, 2, 3), (5, 3, 4), (4, 2)]),
        ("...ij,...jk", [(5, 2, 3), (1, 3, 4)]),
    ],
)
def test_a_sum_of_products(equation: str, shapes: Any, opset: int) -> None:
    inputs = [drawn(*shape) for shape in shapes]
    expected = np.einsum(equation, *inputs)
    assert_agrees("Einsum", *inputs, opset=opset, equation=equation, expected=[np.asarray(expected)])


@pytest.mark.parametrize("opset", [11, 22])
@pytest.mark.parametrize("shape", [(3, 3), (2, 4, 4), (2, 3, 1, 1)])
def test_determinants(shape: tuple[int, ...], opset: int) -> None:
    model, values = one("Det", drawn(*shape), opset=11)
    assert_agrees("Det", drawn(*shape), opset=opset, expected=runtime(model, values))


def test_a_transposed_weight_gets_its_gradient_in_the_files_layout() -> None:
    x, weight = drawn(2, 3), drawn(4, 3)
    network = imported(one("Gemm", x, weight, drawn(4), opset=13, stored=[1, 2], transB=1)[0])
    network(torch.from_numpy(x)).sum().backward()
    gradient = network.bindings["i1"].grad
    assert gradient is not None
    np.testing.assert_allclose(gradient.numpy(), np.tile(x.sum(0), (4, 1)), rtol=1e-5)
