"""Resize and Upsample against onnxruntime, which knows every version from 7 on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mothkit_converters import UnsupportedOpError
from tests.converters.ops.single import (
    Array,
    assert_agrees,
    assert_same,
    imported,
    one,
    ours,
    reference,
    runtime,
)

TRANSFORMS = [
    "half_pixel",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
]  # no ties but for dyadic scales
ROUNDINGS = ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]
SCALES = [0.3, 0.5, 0.6, 1.0, 1.4, 1.5, 2.0, 2.5, 3.0, 4.0]


def drawn(*shape: int) -> Array:
    return np.random.default_rng(shape).normal(size=shape).astype("f4")


def floats(*numbers: float) -> Array:
    return np.array(numbers, dtype="f4")


def check(x: Array, *more: Array | None, opset: int = 19, op: str = "Resize", **given: Any) -> None:
    more = tuple(floats() if values is None and opset < 13 else values for values in more)
    stored = [place for place, values in enumerate(more, start=1) if values is not None]
    model, values = one(op, x, *more, opset=opset, stored=stored, **given)
    assert_same(ours(model, values), runtime(model, values))


@settings(deadline=None, max_examples=150)
@given(data=st.data(), mode=st.sampled_from(["nearest", "linear", "cubic"]))
def test_a_resize(data: st.DataObject, mode: str) -> None:
    def drawn_from(choices: Sequence[Any]) -> Any:
        return data.draw(st.sampled_from(choices))

    rank = {"nearest": drawn_from([2, 3, 4, 5]), "linear": drawn_from([3, 4, 5]), "cubic": 4}[mode]
    shape = data.draw(st.lists(st.integers(1, 7), min_size=rank, max_size=rank))
    axes = drawn_from([[0, 1], [-1, -2]]) if mode == "nearest" else [*range(2, rank)]
    attributes: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": drawn_from(TRANSFORMS)}
    if mode == "nearest":
        attributes["nearest_mode"] = drawn_from(ROUNDINGS)
    else:
        attributes["antialias"] = drawn_from([0, 1])
    if mode == "cubic":
        attributes |= {"cubic_coeff_a": drawn_from([-0.5, -0.75]), "exclude_outside": drawn_from([0, 1])}
    lengths = [shape[axis] for axis in axes]
    if drawn_from([True, False]):
        numbers = [None, None, np.array([drawn_from(range(1, 12)) for _ in axes])]
    else:
        scales = floats(*(drawn_from(SCALES) for _ in axes))
        counts = [int(np.float32(n) * scale) for n, scale in zip(lengths, scales, strict=True)]
        assume(all(counts))
        exact = np.allclose(counts, lengths * scales)
        assume(exact or attributes["coordinate_transformation_mode"] != "align_corners")
        kept = [count == n for count, n in zip(counts, lengths, strict=True)]
        assume(exact or not (any(kept) if attributes.get("antialias") else all(kept)))
        numbers = [None, scales]
    check(drawn(*shape), *numbers, axes=axes, **attributes)


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_ties_are_broken_as_in_onnxruntime(rounding: str) -> None:
    for before, after in ((7, 2), (7, 38), (11, 26), (13, 8), (10, 24), (9, 6), (5, 10)):
        for transform in (*TRANSFORMS, "half_pixel_symmetric"):
            given = {"coordinate_transformation_mode": transform, "nearest_mode": rounding}
            check(np.arange(before, dtype="f4"), None, None, np.array([after]), **given)


@pytest.mark.parametrize("opset", [11, 13, 18, 19])
@pytest.mark.parametrize("transform", [*TRANSFORMS, "half_pixel_symmetric"])
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_a_resize_of_every_version(mode: str, transform: str, opset: int) -> None:
    if transform == "half_pixel_symmetric" and opset < 19:
        pytest.skip("new in version 19")
    x, given = drawn(2, 3, 4, 5), {"mode": mode, "coordinate_transformation_mode": transform}
    check(x, None, None, np.array([2, 3, 7, 3]), opset=opset, **given)
    check(x, None, floats(1, 1, 1.5, 1.6), opset=opset, **given)


def test_the_rule_for_nearest_neighbours_of_version_11() -> None:
    x, given = drawn(2, 3, 4, 5), {"coordinate_transformation_mode": "tf_half_pixel_for_nn"}
    for rounding in ROUNDINGS:
        check(x, None, floats(1, 1, 2.5, 0.6), opset=11, nearest_mode=rounding, **given)


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("extrapolation", [0.0, 7.5])
def test_a_part_is_cut_out_and_resized(mode: str, extrapolation: float) -> None:
    given: dict[str, Any] = {"coordinate_transformation_mode": "tf_crop_and_resize", "mode": mode}
    given |= {"extrapolation_value": extrapolation, "exclude_outside": int(mode == "cubic")}
    x = drawn(2, 3, 6, 5)
    roi = floats(0, 0, 0.2, -0.2, 1, 1, 0.8, 1.3)
    check(x, roi, None, np.array([2, 3, 4, 9]), opset=11, **given)
    check(x, roi, floats(1, 1, 0.5, 2), opset=13, **given)
    check(x, floats(0.2, -0.2, 0.8, 1.3), None, np.array([4, 1]), axes=[2, 3], **given)


@pytest.mark.parametrize("policy", ["not_larger", "not_smaller"])
@pytest.mark.parametrize("sizes", [[7, 9], [3, 20], [9, 4]])
def test_the_aspect_ratio_is_kept(policy: str, sizes: list[int]) -> None:
    for mode in ("nearest", "linear"):
        given = {"axes": [3, 2], "keep_aspect_ratio_policy": policy, "mode": mode}
        check(drawn(2, 3, 4, 5), None, None, np.array(sizes), opset=18, **given)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int32"])
def test_other_types(dtype: str) -> None:
    x = np.random.default_rng(1).integers(0, 99, (2, 3, 4, 5)).astype(dtype)
    check(x, None, floats(1, 1, 2, 3))
    check(x, None, floats(1, 1, 1.3, 0.7), mode="linear")


def test_types_that_no_two_agree_on_are_refused() -> None:
    x = np.ones((1, 1, 4, 4), dtype="u1")
    for more in ({"mode": "cubic"}, {"mode": "linear", "antialias": 1}):
        model, values = one("Resize", x, None, floats(1, 1, 0.5, 0.5), opset=19, stored=[2], **more)
        with pytest.raises(UnsupportedOpError, match="uint8, expected floats"):
            ours(model, values)


def test_scales_that_two_read_differently_are_refused() -> None:
    given = {"mode": "linear", "coordinate_transformation_mode": "align_corners"}
    model, values = one(
        "Resize", drawn(1, 1, 2, 4), None, floats(1, 1, 0.6, 0.6), opset=19, stored=[2], **given
    )
    assert not np.allclose(runtime(model, values)[0], reference(model, values)[0])
    with pytest.raises(UnsupportedOpError, match=r"at node 'o0' .* no whole length"):
        ours(model, values)


@pytest.mark.parametrize("given", [{"mode": "lanczos"}, {"nearest_mode": "simple"}, {"antialias": 1}])
def test_settings_that_no_version_has_are_refused(given: dict[str, Any]) -> None:
    model, _ = one("Resize", drawn(1, 1, 2, 2), None, floats(1, 1, 2, 2), opset=19, stored=[2], **given)
    with pytest.raises(UnsupportedOpError, match=r"lanczos|simple|antialias"):
        imported(model)


def test_sizes_may_be_computed() -> None:
    x, sizes = drawn(2, 3, 4, 5), np.array([2, 3, 9, 7])
    model, values = one("Resize", x, None, None, sizes, opset=19, mode="linear")
    assert_same(ours(model, values), runtime(model, values))


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("scales", [(1.0, 1.0, 2.0, 3.0), (1.0, 1.0, 1.5, 2.4)])
def test_upsampling(mode: str, scales: tuple[float, ...]) -> None:
    x = drawn(2, 3, 4, 5)
    check(x, floats(*scales), op="Upsample", opset=9, mode=mode)
    check(x, op="Upsample", opset=7, mode=mode, scales=scales)
    model, values = one("Upsample", x, opset=7, mode=mode, scales=scales)
    given: dict[str, Any] = {"height_scale": scales[2], "width_scale": scales[3]}
    given["mode"] = "bilinear" if mode == "linear" else mode
    assert_agrees("Upsample", x, opset=1, expected=runtime(model, values), **given)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("scales", [(1, 1, 2, 3), (1, 1, 1.5, 0.7), (1, 1, 0.5, 0.3)])
def test_a_resize_of_version_10(mode: str, scales: tuple[float, ...]) -> None:
    check(drawn(2, 3, 4, 5), floats(*scales), opset=10, mode=mode)


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("transform", ["half_pixel", "asymmetric", "align_corners"])
def test_a_resize_has_the_gradient_of_what_it_computes(mode: str, transform: str) -> None:
    given = {"mode": mode, "coordinate_transformation_mode": transform}
    model, _ = one(
        "Resize", drawn(1, 2, 3, 4), None, None, np.array([1, 2, 5, 3]), opset=19, stored=[3], **given
    )
    x = torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(imported(model), x, atol=1e-4)
