"""Activations and softmax at every version."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.converters.ops.single import Array, assert_agrees, imported, kinds, one, versions

SETTINGS: dict[str, list[dict[str, float]]] = {
    "Celu": [{}, {"alpha": 2.0}],
    "Elu": [{}, {"alpha": 2.0}],
    "HardSigmoid": [{}, {"alpha": 0.3, "beta": 0.1}],
    "LeakyRelu": [{}, {"alpha": 0.3}],
    "Selu": [{}, {"alpha": 2.0, "gamma": 3.0}],
    "Shrink": [{}, {"lambd": 1.5, "bias": 0.5}, {"lambd": 1.5, "bias": 1.5}],
    "Swish": [{}, {"alpha": 0.5}],
    "ThresholdedRelu": [{}, {"alpha": 2.0}],
}
PLAIN = ("HardSwish", "Mish")
SOFT = ("Softmax", "LogSoftmax", "Hardmax")


def drawn(*shape: int, kind: str = "float32") -> Array:
    return np.random.default_rng(len(shape)).normal(scale=3, size=shape).astype(kind)


@pytest.mark.parametrize(("op", "version"), versions(*SETTINGS, *PLAIN))
def test_an_activation_agrees_with_onnxs_reference(op: str, version: int) -> None:
    for kind in kinds(op, version):
        if kind.startswith("uint"):
            continue  # below
        for settings in SETTINGS.get(op, [{}]):
            x = drawn(2, 3, 5, kind=kind)
            assert_agrees(op, x, opset=version, expected=_expected(op, version, x, settings), **settings)
            assert_agrees(op, x[:0], opset=version, **settings)


def _expected(op: str, version: int, x: Array, settings: dict[str, float]) -> list[Array] | None:
    """Return what the reference gets wrong, None for the rest."""
    if op == "Selu" and version == 1 and not settings:
        return [(1.0507 * np.where(x > 0, x, 1.6732 * np.expm1(x))).astype(x.dtype)]
    if op == "Mish":
        return [(x * np.tanh(np.log1p(np.exp(x)))).astype(x.dtype)]
    if op == "Shrink" and x.dtype.kind == "i":
        bias, lambd = settings.get("bias", 0.0), settings.get("lambd", 0.5)
        return [np.where(x < -lambd, x + bias, np.where(x > lambd, x - bias, 0)).astype(x.dtype)]
    return None


def test_a_threshold_lets_through_what_is_above_it_alone() -> None:
    x = np.array([np.nan, np.inf, 1, 2], "f4")
    assert_agrees("ThresholdedRelu", x, opset=22, expected=[np.array([0, np.inf, 0, 2], "f4")])


@pytest.mark.parametrize("kind", ["uint8", "uint16", "uint32", "uint64"])
def test_shrinking_what_has_no_sign(kind: str) -> None:
    x = np.array([0, 1, 2, 200], kind)
    assert_agrees("Shrink", x, opset=9, expected=[np.array([0, 0, 1, 199], kind)], lambd=1.5, bias=1.0)


def test_gelu_and_swiglu() -> None:
    x = drawn(2, 3, 5)
    assert_agrees("Gelu", x, opset=20)
    assert_agrees("Gelu", x, opset=20, approximate="tanh")
    for settings in ({}, {"alpha": 0.5}):
        gate, sigmoid = (
            drawn(2, 3, 5) + 1,
            1 / (1 + np.exp(-settings.get("alpha", 1.0) * (drawn(2, 3, 5) + 1))),
        )
        assert_agrees("SwiGLU", gate, x, opset=28, expected=[gate * sigmoid * x], **settings)


@pytest.mark.parametrize(("op", "version"), [entry for entry in versions("PRelu") if entry[1] >= 7])
def test_prelu_broadcasts_its_slope(op: str, version: int) -> None:
    for kind in kinds(op, version):
        for shape in [(3, 1, 1), (5,), (1,), (), (2, 3, 4, 5)]:
            slope = np.asarray(drawn(*shape, kind=kind))
            x = drawn(2, 3, 4, 5) if kind == "float32" else np.abs(drawn(2, 3, 4, 5)).astype(kind)
            x = -x if kind[0] in "fi" else x
            assert_agrees(op, x, slope, opset=version, expected=[np.where(x < 0, slope * x, x)])


@pytest.mark.parametrize("version", [1, 6])
@pytest.mark.parametrize("shape", [(3,), (1,), ()])
def test_oldest_prelu_has_a_slope_per_channel(version: int, shape: tuple[int, ...]) -> None:
    x, slope = drawn(3, 3, 4, 3), np.asarray(drawn(*shape))
    spread = slope.reshape(-1, 1, 1)
    assert_agrees("PRelu", x, slope, opset=version, expected=[np.where(x < 0, spread * x, x)])
    assert_agrees(
        "PRelu",
        x[:, :, 0, 0],
        slope,
        opset=version,
        stored=[1],
        expected=[np.where(x[:, :, 0, 0] < 0, slope * x[:, :, 0, 0], x[:, :, 0, 0])],
    )


def test_the_slope_of_the_oldest_prelu_is_trained() -> None:
    x = drawn(2, 3, 4, 5)
    bound = imported(one("PRelu", x, np.ones(3, "f4"), opset=6, stored=[1])[0])
    bound(torch.from_numpy(x)).sum().backward()
    gradient = bound.bindings["i1"].grad
    assert gradient is not None
    np.testing.assert_allclose(gradient, np.minimum(x, 0).sum((0, 2, 3)), rtol=1e-5)


@pytest.mark.parametrize("kind", ["float32", "float64"])
@pytest.mark.parametrize(("op", "version"), versions(*SOFT))
def test_softmax_along_one_axis_or_from_it_on(op: str, version: int, kind: str) -> None:
    x = drawn(2, 3, 4, 5, kind=kind)
    for axis in [0, 1, 3, *([-1, -2] if version >= 11 else [])]:
        flat = x.reshape(int(np.prod(x.shape[:axis])), -1) if version < 13 else x
        expected = _soft(op, flat, 1 if version < 13 else axis).reshape(x.shape)
        assert_agrees(op, x, opset=version, expected=[expected], axis=axis)
    default = _soft(op, x.reshape(2, -1), 1).reshape(x.shape) if version < 13 else _soft(op, x, -1)
    assert_agrees(op, x, opset=version, expected=[default])


def _soft(op: str, x: Array, axis: int) -> Array:
    if op == "Hardmax":
        places = np.expand_dims(x.argmax(axis), axis)
        return (
            np.arange(x.shape[axis]).reshape([-1 if i == axis % x.ndim else 1 for i in range(x.ndim)])
            == places
        ).astype(x.dtype)
    shifted = x - x.max(axis, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(axis, keepdims=True))
    return logs if op == "LogSoftmax" else np.exp(logs)


def test_hardmax_takes_the_first_of_equals() -> None:
    assert_agrees("Hardmax", np.array([[3, 1, 3], [0, 0, 0]], "f4"), opset=13)
    assert_agrees("Hardmax", np.array([[3, 1, 3], [0, 0, 0]], "f4"), opset=1)


def test_softmax_of_large_numbers_stays_finite() -> None:
    x = np.array([[1e4, 1e4 - 1, -1e4]], "f4")
    wanted = {"Softmax": [0.731059, 0.268941, 0], "LogSoftmax": [-0.313262, -1.313262, -20000.3132]}
    for op, expected in wanted.items():
        for version in (1, 13):
            assert_agrees(op, x, opset=version, expected=[np.array([expected], "f4")])
