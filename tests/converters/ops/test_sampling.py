"""Images read at computed points, and pools over regions, against onnxruntime or onnx's reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from mothkit_converters import UnsupportedOpError
from tests.converters.ops.single import Array, assert_same, imported, one, ours, reference, runtime


def drawn(*shape: int) -> Array:
    return np.random.default_rng(shape).uniform(-1.3, 1.3, shape).astype("f4")


def check(op: str, *inputs: Array, opset: int, **given: Any) -> None:
    model, values = one(op, *inputs, opset=opset, **given)
    assert_same(ours(model, values), runtime(model, values))


@pytest.mark.parametrize("corners", [0, 1])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize(
    ("opset", "mode"), [(16, "bilinear"), (16, "nearest"), (16, "bicubic"), (20, "cubic")]
)
def test_an_image_read_at_points(opset: int, mode: str, padding: str, corners: int) -> None:
    given = {"mode": mode, "padding_mode": padding, "align_corners": corners}
    check("GridSample", drawn(2, 3, 4, 5), drawn(2, 6, 7, 2), opset=opset, **given)


@pytest.mark.parametrize("mode", ["linear", "nearest"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("opset", [20, 22])
def test_a_volume_read_at_points(opset: int, padding: str, mode: str) -> None:
    given = {"mode": mode, "padding_mode": padding}
    model, values = one("GridSample", drawn(2, 3, 4, 5, 6), drawn(2, 3, 4, 2, 3), opset=opset, **given)
    older, _ = one("GridSample", *values.values(), opset=20, **given)
    assert_same(ours(model, values), runtime(older, values))


def test_the_modes_by_default() -> None:
    x, grid = drawn(2, 3, 4, 5), drawn(2, 6, 7, 2)
    check("GridSample", x, grid, opset=16)
    check("GridSample", x, grid, opset=20)


@pytest.mark.parametrize("corners", [0, 1])
@pytest.mark.parametrize(("theta", "size"), [((2, 2, 3), (2, 3, 4, 5)), ((2, 3, 4), (2, 3, 4, 5, 6))])
@pytest.mark.parametrize("stored", [(), (1,)])
def test_the_points_of_an_affine_map(theta: Any, size: Any, corners: int, stored: Any) -> None:
    inputs = drawn(*theta), np.array(size)
    model, values = one("AffineGrid", *inputs, opset=20, stored=stored, align_corners=corners)
    assert_same(ours(model, values), reference(model, values))


REGIONS = np.array([[0.3, 1, 5, 6], [2, 2, 2.2, 2.1], [-3, -2, 7, 20], [1, 1, 9, 8]], "f4")


@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize(
    ("opset", "given"), [(10, {}), (16, {}), (16, {"coordinate_transformation_mode": "output_half_pixel"})]
)
def test_means_over_regions(opset: int, given: dict[str, Any], ratio: int) -> None:
    given |= {"output_height": 3, "output_width": 2, "spatial_scale": 0.7, "sampling_ratio": ratio}
    check("RoiAlign", drawn(2, 3, 9, 11), REGIONS, np.array([0, 1, 1, 0]), opset=opset, **given)


def test_maxima_over_regions() -> None:
    regions = np.concatenate([np.array([[0], [1], [1], [0]], "f4"), REGIONS], 1)
    check("MaxRoiPool", drawn(2, 3, 9, 11), regions, opset=7, pooled_shape=[3, 2], spatial_scale=0.7)


def test_maxima_that_onnxruntime_calls_wrong_are_refused() -> None:
    model, _ = one("RoiAlign", drawn(2, 3, 9, 11), REGIONS, np.array([0, 1, 1, 0]), opset=16, mode="max")
    with pytest.raises(UnsupportedOpError, match="mode is max"):
        imported(model)


def test_points_have_gradients() -> None:
    model, _ = one("GridSample", drawn(1, 2, 4, 5), drawn(1, 3, 2, 2), opset=20, stored=[0])
    grid = torch.rand(1, 3, 2, 2, requires_grad=True)
    network = imported(model)
    network(grid).square().sum().backward()
    assert grid.grad is not None
    assert grid.grad.any()
    assert network.bindings["i0"].grad is not None
