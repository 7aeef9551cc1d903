"""Unique and NonMaxSuppression."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.converters.ops.single import assert_agrees, assert_same, one, ours, runtime

GENERATOR = np.random.default_rng(0)


@pytest.mark.parametrize("sorted_", [0, 1])
@pytest.mark.parametrize("outputs", [1, 2, 3, 4])
def test_unique_elements(sorted_: int, outputs: int) -> None:
    for x in (np.array([[2, 1, 1], [3, 4, 3]], np.float32), np.array([5, -1, 5])):
        expected = runtime(*one("Unique", x, opset=11, sorted=sorted_, outputs=outputs))
        for opset in (11, 28):
            assert_agrees("Unique", x, opset=opset, sorted=sorted_, outputs=outputs, expected=expected)


@pytest.mark.parametrize("sorted_", [0, 1])
@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_unique_parts(sorted_: int, axis: int) -> None:
    x = GENERATOR.integers(0, 2, (4, 3, 2) if axis == 0 else (2, 2, 5) if axis in (2, -1) else (2, 6, 2))
    model, values = one("Unique", x.astype(np.float32), opset=11, axis=axis, sorted=sorted_, outputs=4)
    assert_same(ours(model, values), runtime(model, values))


def drawn(count: int, *, centred: bool) -> Any:
    """Boxes [2, count, 4] that overlap, some of them flipped or empty, and coarse scores [2, 3, count]."""
    corners = GENERATOR.uniform(0, 2, (2, count, 4)).astype(np.float32)
    corners[:, :3] = corners[:, 3:6]
    corners[:, 6, 2:] = 0 if centred else corners[:, 6, :2]
    scores = GENERATOR.integers(0, 6, (2, 3, count)).astype(np.float32) / 5
    return corners, scores


def number(value: float | None, dtype: Any, shape: tuple[int, ...]) -> Any:
    return None if value is None else np.full(shape, value, dtype)


@pytest.mark.parametrize("opset", [10, 11])
@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize(
    ("most", "overlap", "least"), [(3, 0.3, 0.25), (20, 0.0, None), (20, 0.5, 0.6), (0, 0.5, 0.5)]
)
@pytest.mark.parametrize("shape", [(), (1,)])
def test_boxes_are_kept_as_onnxruntime_keeps_them(
    opset: int, centred: bool, most: int, overlap: float, least: float | None, shape: tuple[int, ...]
) -> None:
    boxes, scores = drawn(15, centred=centred)
    limits = [
        number(most, np.int64, shape),
        number(overlap, np.float32, shape),
        number(least, np.float32, shape),
    ]
    given = [boxes, scores, *limits][: 4 if least is None else 5]
    for stored in ((), tuple(range(2, len(given)))):
        model, values = one(
            "NonMaxSuppression", *given, opset=opset, stored=stored, center_point_box=int(centred)
        )
        assert_same(ours(model, values), runtime(model, values))


def test_no_box_is_kept_without_a_number() -> None:
    model, values = one("NonMaxSuppression", *drawn(8, centred=False), opset=11)
    assert_same(ours(model, values), runtime(model, values))
