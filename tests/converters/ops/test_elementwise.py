"""Functions of one tensor, at every version and in every dtype."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx import defs

from tests.converters.ops.single import assert_agrees, imported, kinds, one, ours, versions

RANGES = {
    "Acos": (-1, 1),
    "Acosh": (1, 5),
    "Asin": (-1, 1),
    "Atanh": (-0.9, 0.9),
    "Log": (0.1, 5),
    "Reciprocal": (0.5, 5),
    "Sqrt": (0, 5),
}
OPS = (
    *("Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Cos", "Cosh", "Erf", "Exp", "Floor"),
    *("Log", "Neg", "Not", "Reciprocal", "Relu", "Round", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus"),
    *("Softsign", "Sqrt", "Tan", "Tanh", "IsNaN", "BitwiseNot", "Identity"),
)


def drawn(kind: str, shape: tuple[int, ...], low: float = -5, high: float = 5) -> np.ndarray:
    """Return numbers between the bounds; unsigned ones are drawn over their whole range."""
    generator = np.random.default_rng(sum(shape))
    dtype = np.dtype(kind)
    if dtype.kind == "u":
        return generator.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    return generator.uniform(low, high, shape).astype(dtype)


@pytest.mark.parametrize(("op", "version"), versions(*OPS))
def test_a_function_of_one_tensor_agrees_with_onnxs_reference(op: str, version: int) -> None:
    for kind in kinds(op, version):
        if op == "Erf" and "int" in kind:
            continue  # the reference returns float64; see below
        for shape in [(2, 3, 5), (0, 3), *([()] if op != "Softsign" else [])]:  # of which it makes no array
            assert_agrees(op, drawn(kind, shape, *RANGES.get(op, ())), opset=version)


def test_erf_keeps_integers_before_version_13() -> None:
    x = np.array([-3, -1, 0, 1, 4], "int32")
    expected = torch.erf(torch.from_numpy(x)).numpy().astype("int32")  # cut as any cast is
    assert_agrees("Erf", x, opset=9, expected=[expected])


@pytest.mark.parametrize("op", ["Abs", "Ceil", "Floor", "Log", "Round", "Sigmoid", "Sqrt", "Tanh", "Sign"])
def test_what_is_no_number_stays_none(op: str) -> None:
    x = np.array([np.nan, np.inf, 0.0, 0.5, 1.5, 2.5], "float32")
    with np.errstate(all="ignore"):
        assert_agrees(op, x, opset=22)


@pytest.mark.parametrize(("op", "version"), versions(*OPS))
def test_consumed_inputs_say_nothing(op: str, version: int) -> None:
    if "consumed_inputs" not in defs.get_schema(op, max_inclusive_version=version).attributes:
        return
    x = drawn("float32", (2, 3), *RANGES.get(op, ()))
    plain, said = (one(op, x, opset=version, **given) for given in ({}, {"consumed_inputs": [0]}))
    np.testing.assert_array_equal(ours(*said)[0], ours(*plain)[0])


def test_the_halves_are_rounded_to_even() -> None:
    model, values = one("Round", np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5], "float64"), opset=22)
    assert ours(model, values)[0].tolist() == [-2, -2, 0, 0, 2, 2]


def test_a_module_says_what_it_computes() -> None:
    model, _ = one("Abs", np.zeros(2, "float32"), opset=13)
    assert "abs" in repr(imported(model))
