"""Convolutions and their transposes against onnxruntime, or onnx's reference where that lacks the version."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mothkit_converters import UnsupportedOpError
from tests.converters.ops.single import assert_same, imported, one, ours, reference, runtime


def drawn(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(shape).normal(size=shape).astype("f4")


def check(op: str, *inputs: Any, opset: int, **given: Any) -> None:
    model, values = one(op, *inputs, opset=opset, **given)
    judge = runtime if opset >= 7 else reference
    assert_same(ours(model, values), judge(model, values))


CONVOLUTIONS: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((2, 3, 11), (4, 3, 3), {}),
    ((2, 4, 9, 7), (6, 2, 3, 2), {"group": 2, "strides": [2, 3]}),
    ((2, 3, 9, 7), (4, 3, 3, 2), {"pads": [1, 0, 1, 0]}),
    ((2, 3, 9, 7), (4, 3, 3, 2), {"pads": [0, 1, 2, 0], "dilations": [2, 1]}),
    ((1, 2, 5, 6, 7), (3, 2, 2, 3, 1), {"strides": [1, 2, 2], "pads": [1, 1, 0, 0, 1, 0]}),
    ((2, 3, 9, 7), (4, 3, 3, 2), {"auto_pad": "SAME_UPPER", "strides": [2, 3]}),
    ((2, 3, 9, 7), (4, 3, 3, 2), {"auto_pad": "SAME_LOWER", "strides": [2, 2]}),
    ((2, 3, 9, 7), (4, 3, 3, 2), {"auto_pad": "VALID", "kernel_shape": [3, 2]}),
    ((2, 3, 9), (4, 3, 1), {"auto_pad": "SAME_UPPER", "strides": [4]}),
    ((0, 3, 9, 7), (4, 3, 3, 2), {}),
]


@pytest.mark.parametrize("opset", [1, 7, 11, 22])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize(("shape", "kernel", "attributes"), CONVOLUTIONS)
def test_a_convolution(
    shape: tuple[int, ...], kernel: tuple[int, ...], attributes: dict[str, Any], opset: int, biased: bool
) -> None:
    if opset < 7 and (len(shape) != 4 or 0 in shape or "auto_pad" in attributes):
        pytest.skip("the reference pads these in its own way")
    inputs = [drawn(*shape), drawn(*kernel), *([drawn(kernel[0])] if biased else [])]
    check("Conv", *inputs, opset=opset, stored=range(1, len(inputs)), **attributes)


TRANSPOSES: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((2, 3, 5), (3, 4, 3), {"strides": [2]}),
    ((2, 4, 5, 3), (4, 2, 3, 2), {"group": 2, "strides": [2, 3], "pads": [1, 0, 1, 0]}),
    ((2, 3, 5, 4), (3, 2, 3, 2), {"strides": [2, 2], "pads": [0, 1, 2, 0]}),
    ((2, 3, 5, 4), (3, 2, 3, 2), {"strides": [2, 3], "output_padding": [1, 2]}),
    ((2, 3, 5, 4), (3, 2, 3, 2), {"strides": [3, 2], "output_padding": [1, 0], "pads": [0, 0, 2, 1]}),
    ((2, 3, 5, 4), (3, 2, 3, 2), {"dilations": [2, 1], "pads": [1, 0, 1, 1]}),
    ((1, 2, 3, 4, 2), (2, 3, 2, 3, 3), {"strides": [1, 2, 2], "pads": [0, 1, 1, 1, 0, 1]}),
    ((2, 3, 5, 4), (3, 2, 3, 3), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ((2, 3, 5, 4), (3, 2, 3, 3), {"auto_pad": "SAME_LOWER", "strides": [2, 2]}),
    ((2, 3, 5, 4), (3, 2, 3, 3), {"auto_pad": "VALID", "strides": [2, 1]}),
    ((2, 3, 5, 4), (3, 2, 3, 3), {"output_shape": [8, 6], "strides": [2, 2]}),
    ((2, 3, 5, 4), (3, 2, 3, 3), {"output_shape": [12, 9], "strides": [2, 2]}),
    ((2, 3, 5, 4), (3, 2, 3, 3), {"output_shape": [8, 6], "auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ((2, 3, 5, 4), (3, 2, 3, 3), {"output_shape": [8, 6], "auto_pad": "SAME_LOWER", "strides": [2, 2]}),
]


@pytest.mark.parametrize("opset", [7, 11, 22])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize(("shape", "kernel", "attributes"), TRANSPOSES)
def test_a_transposed_convolution(
    shape: tuple[int, ...], kernel: tuple[int, ...], attributes: dict[str, Any], opset: int, biased: bool
) -> None:
    channels = kernel[1] * attributes.get("group", 1)
    inputs = [drawn(*shape), drawn(*kernel), *([drawn(channels)] if biased else [])]
    check("ConvTranspose", *inputs, opset=opset, stored=range(1, len(inputs)), **attributes)


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
def test_a_kernel_of_four_axes_is_refused(op: str) -> None:
    model, _ = one(op, drawn(1, 1, 3, 3, 3, 3), drawn(1, 1, 2, 2, 2, 2), opset=17, kernel_shape=[2] * 4)
    with pytest.raises(UnsupportedOpError, match="4 spatial axes"):
        imported(model)


def test_same_padding_follows_the_size_that_comes() -> None:
    given: dict[str, Any] = {"stored": [1], "auto_pad": "SAME_UPPER", "strides": [2, 2]}
    model, values = one("Conv", drawn(1, 2, 7, 8), drawn(3, 2, 3, 3), opset=17, **given)
    for dim in model.graph.input[0].type.tensor_type.shape.dim:
        dim.Clear()
    network = imported(model)
    for sides in ((7, 8), (8, 8), (9, 5)):
        values["i0"] = drawn(2, 2, *sides)
        assert_same([network(torch.from_numpy(values["i0"])).detach().numpy()], runtime(model, values))


@pytest.mark.parametrize("opset", [19, 22])
@pytest.mark.parametrize("attributes", [{"pads": [1, 0, 1, 0]}, {"pads": [1, 0, 2, 1], "strides": [2, 1]}])
def test_a_deformable_convolution(attributes: dict[str, Any], opset: int) -> None:
    x, weight, bias = drawn(2, 4, 7, 6), drawn(6, 2, 3, 2), drawn(6)
    plain, values = one("Conv", x, weight, bias, opset=19, group=2, **attributes)
    height, width = reference(plain, values)[0].shape[2:]
    offset, mask = drawn(2, 24, height, width), drawn(2, 12, height, width)
    given = {"opset": opset, "stored": [1, 3], "group": 2, "offset_group": 2, **attributes}
    model, values = one("DeformConv", x, weight, offset, bias, mask, **given)
    assert_same(ours(model, values), reference(model, values), atol=1e-4)


@settings(deadline=None, max_examples=25)
@given(
    block=st.lists(st.integers(1, 3), min_size=1, max_size=3),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    begin=st.integers(0, 2),
    end=st.integers(0, 1),
)
def test_columns_to_image_is_the_reverse_of_gathering_blocks(
    block: list[int], stride: int, dilation: int, begin: int, end: int
) -> None:
    rank = len(block)
    sides = [5, 7, 6][:rank]
    counts = [
        (side + begin + end - (k - 1) * dilation - 1) // stride + 1
        for side, k in zip(sides, block, strict=True)
    ]
    x = drawn(2, 3 * int(np.prod(block)), int(np.prod(counts)))
    attributes = {"strides": [stride] * rank, "dilations": [dilation] * rank}
    given = attributes | {"pads": [begin] * rank + [end] * rank}
    model, values = one("Col2Im", x, np.array(sides), np.array(block), opset=18, stored=[1, 2], **given)
    found = ours(model, values)[0]
    # <columns, blocks(z)> = <image(columns), z>, blocks cut by a convolution with unit kernels
    z = torch.randn(2, 3, *sides, requires_grad=True, dtype=torch.float64)
    unit = torch.eye(int(np.prod(block)), dtype=torch.float64).reshape(-1, 1, *block)
    convolve = [torch.conv1d, torch.conv2d, torch.conv3d][rank - 1]
    full = torch.nn.functional.pad(z, [begin, end] * rank).flatten(0, 1).unsqueeze(1)
    cut = convolve(full, unit, None, [stride] * rank, 0, [dilation] * rank)
    (cut.reshape(x.shape) * torch.from_numpy(x)).sum().backward()
    assert z.grad is not None
    np.testing.assert_allclose(found, z.grad.numpy(), rtol=1e-4, atol=1e-5)


def test_a_transposed_convolution_that_onnxruntime_makes_smaller_is_refused() -> None:
    given: dict[str, Any] = {"auto_pad": "SAME_UPPER", "strides": [2, 2], "stored": [1]}
    model, values = one("ConvTranspose", drawn(1, 3, 5, 4), drawn(3, 2, 1, 1), opset=11, **given)
    assert runtime(model, values)[0].shape == (1, 2, 9, 7)  # [10, 8] by ONNX's rules
    with pytest.raises(UnsupportedOpError, match=r"\[1, 1\] do not reach"):
        ours(model, values)
