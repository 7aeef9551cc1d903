"""Activations that were written out: put together where they mean the same, and only there."""

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
SCALARS = {"half": 0.5, "one": 1.0, "root": 2**0.5, "inverse": 0.5**0.5, "two": 2.0}


def graph(body: str) -> str:
    return f'<ir_version: 8, opset_import: ["" : 17]> g (float[N, 6] x) => (float[N, 6] y) {{ {body} }}'


def saved(save: Save, body: str) -> Path:
    return save(
        graph(body),
        {k: np.asarray(v, "f4") for k, v in SCALARS.items() if f"{k})" in body or f"({k}" in body},
    )


def operators(path: Path) -> list[str]:
    return [node.op_type for node in canonicalise(read_source(path), ["y"]).model.graph.node]


SILU = ["s = Sigmoid(x) y = Mul(x, s)", "s = Sigmoid(x) y = Mul(s, x)"]
GELU = [
    "d = Div(x, root) e = Erf(d) a = Add(e, one) m = Mul(x, a) y = Mul(m, half)",
    "d = Mul(x, inverse) e = Erf(d) a = Add(one, e) h = Mul(half, x) y = Mul(h, a)",
    "d = Mul(inverse, x) e = Erf(d) a = Add(e, one) h = Div(x, two) y = Mul(a, h)",
]
OTHERS = [
    "s = Sigmoid(x) t = Mul(x, half) y = Mul(t, s)",
    "s = Sigmoid(x) r = Relu(x) y = Mul(r, s)",
    "d = Div(x, two) e = Erf(d) a = Add(e, one) m = Mul(x, a) y = Mul(m, half)",
    "d = Div(x, root) e = Erf(d) a = Add(e, half) m = Mul(x, a) y = Mul(m, half)",
    "d = Div(x, root) e = Erf(d) a = Add(e, one) r = Relu(x) m = Mul(r, a) y = Mul(m, half)",
]


@pytest.mark.parametrize("body", [*SILU, *GELU, *OTHERS])
def test_the_values_are_those_of_onnxruntime(save: Save, run: Run, body: str) -> None:
    path = saved(save, body)
    x = np.random.default_rng(0).normal(size=(5, 6)).astype("f4")
    np.testing.assert_allclose(
        to_torch(path)(torch.from_numpy(x)).numpy(), run(path, x)[0], rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("body", [*SILU, *GELU])
def test_an_activation_that_was_written_out_is_one_operator(save: Save, body: str) -> None:
    assert operators(saved(save, body)) == ["QuickGelu" if body in SILU else "Gelu"]


@pytest.mark.parametrize("body", OTHERS)
def test_what_only_looks_like_one_stays(save: Save, body: str) -> None:
    assert not {"QuickGelu", "Gelu"} & set(operators(saved(save, body)))


def test_a_value_within_can_still_be_asked_for(save: Save, run: Run) -> None:
    path = saved(save, GELU[0])
    x = np.random.default_rng(0).normal(size=(5, 6)).astype("f4")
    found = to_torch(path, outputs=["a", "y"])(torch.from_numpy(x))
    for tensor, expected in zip(found, run(path, x, values=["a", "y"]), strict=True):
        np.testing.assert_allclose(tensor.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_a_scalar_that_is_trained_elsewhere_is_none(save: Save) -> None:
    path = saved(
        save, "p = PRelu(x, half) " + GELU[0].replace("Mul(x, a)", "Mul(p, a)").replace("Div(x", "Div(p")
    )
    assert "Gelu" not in operators(path)
    assert to_torch(path).ties["half"].role is Role.WEIGHT


def test_products_of_products_are_not_followed_without_end(save: Save, run: Run) -> None:
    squares = "".join(f"x{i + 1} = Mul(x{i}, x{i}) " for i in range(40)).replace("x0", "x")
    path = saved(save, squares + "y = Neg(x40)")
    x = np.array([[1, -1, 0, 0.5, 1 - 1e-7, 2]], "f4")
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(to_torch(path)(torch.from_numpy(x)).numpy(), run(path, x)[0], rtol=1e-5)
