"""Pad: modes, ranks, element types, and where its numbers come from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mothkit_converters import UnsupportedOpError
from mothkit_converters.ops.padding import pad
from tests.converters.ops.single import assert_agrees, assert_same, imported, one, ours, runtime


def ints(*numbers: int) -> Any:
    return np.array(numbers, dtype=np.int64)


X = np.random.default_rng(0).normal(size=(2, 3, 5, 4)).astype(np.float32)
PADS = (0, 2, 1, 3, 1, 0, 4, 2)
MODES = ["constant", "reflect", "edge"]


def padded(x: Any, pads: tuple[int, ...], mode: str, **more: Any) -> Any:
    return np.pad(x, list(zip(pads[: x.ndim], pads[x.ndim :], strict=True)), mode, **more)  # type: ignore[call-overload]


@pytest.mark.parametrize("mode", MODES)
def test_pads_were_attributes(mode: str) -> None:
    pads = [0, 1, 2, 3, 1, 0, 1, 2]
    expected = [padded(X, tuple(pads), mode)]
    assert_agrees("Pad", X, opset=2, mode=mode, pads=pads, expected=expected)
    assert_agrees("Pad", X, opset=1, mode=mode, paddings=pads, expected=expected)


def test_the_value_was_an_attribute() -> None:
    expected = [padded(X, PADS, "constant", constant_values=1.5)]
    assert_agrees("Pad", X, opset=2, pads=list(PADS), value=1.5, expected=expected)
    assert_agrees("Pad", X, opset=1, paddings=list(PADS), value=1.5, expected=expected)


@pytest.mark.parametrize("opset", [11, 13, 18, 19, 21, 23, 24, 25])
@pytest.mark.parametrize("stored", [(), (1,), (1, 2)])
def test_pads_and_value_are_inputs(opset: int, stored: tuple[int, ...]) -> None:
    for value in (np.array(0.3, np.float32), np.array([0.3], np.float32)):
        expected = [padded(X, PADS, "constant", constant_values=0.3)]
        assert_agrees("Pad", X, ints(*PADS), value, opset=opset, stored=stored, expected=expected)


@pytest.mark.parametrize("opset", [11, 13, 18, 19, 21, 23, 24, 25])
@pytest.mark.parametrize("mode", [*MODES, "wrap"])
def test_modes(opset: int, mode: str) -> None:
    if mode == "wrap" and opset < 19:
        with pytest.raises(UnsupportedOpError, match="its mode 'wrap' is none of constant, reflect, edge"):
            imported(one("Pad", X, ints(*PADS), opset=opset, mode=mode)[0])
        return
    assert_agrees("Pad", X, ints(*PADS), opset=opset, mode=mode, expected=[padded(X, PADS, mode)])


@pytest.mark.parametrize("opset", [18, 19, 25])
@pytest.mark.parametrize("mode", MODES)
def test_axes_say_which_the_pads_are_for(opset: int, mode: str) -> None:
    expected = [padded(X, (0, 1, 0, 2, 0, 3, 0, 1), mode)]
    for stored in ((), (1, 3)):
        given = (X, ints(2, 1, 1, 3), None, ints(-1, 1))
        assert_agrees("Pad", *given, opset=opset, mode=mode, stored=stored, expected=expected)


@pytest.mark.parametrize("dtype", [np.float64, np.int8, np.int64, np.uint8, np.bool_])
@pytest.mark.parametrize("mode", MODES)
def test_element_types(dtype: Any, mode: str) -> None:
    x = (X[0, 0] > 0).astype(dtype)
    assert_agrees("Pad", x, ints(1, 0, 2, 1), opset=13, mode=mode, expected=[padded(x, (1, 0, 2, 1), mode)])
    if mode == "constant":
        single = np.array(1, dtype)
        expected = [padded(x, (1, 0, 2, 1), mode, constant_values=single)]
        for stored in ((), (1, 2)):
            assert_agrees("Pad", x, ints(1, 0, 2, 1), single, opset=13, stored=stored, expected=expected)


def test_large_integers_are_kept() -> None:
    value = np.array(2**60 + 1)
    for stored in ((), (1, 2)):
        assert_agrees("Pad", np.arange(3), ints(1, 0), value, opset=13, stored=stored)


@settings(deadline=None, max_examples=60)
@given(
    before=st.integers(0, 9),
    after=st.integers(0, 9),
    size=st.integers(1, 5),
    mode=st.sampled_from([*MODES, "wrap"]),
)
def test_any_number_of_its_own_elements_is_added_as_numpy_does(
    before: int, after: int, size: int, mode: str
) -> None:
    x = np.arange(2.0 * size).reshape(2, size)
    expected = padded(x, (0, before, 0, after), mode)
    found = pad(torch.from_numpy(x), [0, before, 0, after], mode=mode)
    np.testing.assert_array_equal(found.numpy(), expected)


@pytest.mark.parametrize("mode", [*MODES, "wrap"])
@pytest.mark.parametrize("pads", [(-1, 2), (1, -2), (-1, -2), (0, -3)])
def test_negative_pads_take_elements_off_as_onnxruntime_does(mode: str, pads: tuple[int, int]) -> None:
    model, values = one("Pad", X, ints(0, 0, pads[0], 0, 0, 0, pads[1], 0), opset=19, mode=mode)
    assert_same(ours(model, values), runtime(model, values))


def test_gradients_reach_the_tensor_and_a_computed_value() -> None:
    x, value = torch.ones(2, 3, requires_grad=True), torch.tensor(2.0, requires_grad=True)
    pad(x, [0, 1, 0, 1], value).sum().backward()
    assert x.grad is not None and value.grad is not None
    assert (x.grad.sum().item(), value.grad.item()) == (6, 4)
    x.grad = None
    pad(x, [0, 1, 0, 1], mode="edge").sum().backward()
    assert x.grad.tolist() == [[2, 1, 2], [2, 1, 2]]
