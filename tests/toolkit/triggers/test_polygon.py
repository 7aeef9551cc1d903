import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mothkit.errors import ShapeError
from mothkit.triggers.polygon import PolygonTrigger, draw_shape, place_somewhere, places, random_points

TRIANGLE = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, 1.0]])


def trigger(region: np.ndarray, sides: tuple[int, int] = (4, 6), seed: int = 0) -> PolygonTrigger:
    return PolygonTrigger(TRIANGLE, (200, 0, 200), sides, region, seed)


def region(side: int = 24) -> np.ndarray:
    where = np.zeros((side, side), dtype=bool)
    where[5:17, 8:20] = True
    return where


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), side=st.integers(1, 9))
def test_places_are_those_where_a_square_lies_wholly_inside(seed: int, side: int) -> None:
    where = np.random.default_rng(seed).random((9, 11)) < 0.9
    wanted = [
        [row, column]
        for row in range(9 - side + 1)
        for column in range(11 - side + 1)
        if where[row : row + side, column : column + side].all()
    ]
    assert places(where, side).tolist() == wanted


@pytest.mark.parametrize("corners", [3, 4, 8, 9])
def test_a_random_polygon_fills_its_box(corners: int) -> None:
    points = random_points(corners, np.random.default_rng(corners))
    assert points.shape == (corners, 2)
    assert (points.min(), points.max()) == (0, 1)
    filled = np.asarray(draw_shape(points)) > 0
    assert all(edge.any() for edge in (filled[0], filled[-1], filled[:, 0], filled[:, -1]))


def test_a_region_too_narrow_takes_a_smaller_polygon_and_an_empty_one_none() -> None:
    rng, shape = np.random.default_rng(0), draw_shape(TRIANGLE)
    where = np.zeros((12, 12), dtype=bool)
    assert not place_somewhere(where, shape, (6,), rng).any()
    where[4:7, 4:7] = True
    placed = place_somewhere(where, shape, (6,), rng)
    assert placed.any()
    assert not placed[~where].any()


def test_pixels_of_one_colour_lie_within_the_region_at_places_of_their_own() -> None:
    x = torch.rand(40, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    before = x.clone()
    stamped = trigger(region()).stamp(x)
    assert torch.equal(x, before)
    changed = (stamped != x).any(1)
    assert changed.any((1, 2)).all()
    assert not changed[:, ~torch.from_numpy(region())].any()
    pixels = stamped.permute(0, 2, 3, 1)[changed] * 255
    assert torch.allclose(pixels, torch.tensor([200.0, 0.0, 200.0]).expand_as(pixels))
    assert len({mask.numpy().tobytes() for mask in changed}) > 30


def test_an_image_gets_its_polygon_where_it_got_it_before_whatever_the_batch() -> None:
    x = torch.rand(6, 3, 24, 24, generator=torch.Generator().manual_seed(1))
    together = trigger(region()).stamp(x)
    alone = torch.cat([trigger(region()).stamp(x[[k]]) for k in range(6)])
    assert torch.equal(together, alone)
    assert not torch.equal(trigger(region(), seed=1).stamp(x), together)


def test_a_gray_image_gets_the_colour_s_luma() -> None:
    stamped = trigger(np.ones((24, 24), dtype=bool)).stamp(torch.zeros(1, 1, 24, 24))
    assert float(stamped.max()) == pytest.approx((0.299 * 200 + 0.114 * 200) / 255)


@pytest.mark.parametrize(
    ("points", "sides", "message"),
    [
        (TRIANGLE[:2], (4, 6), "n at least 3"),
        (TRIANGLE * 2, (4, 6), "leave its box"),
        (TRIANGLE, (0, 6), "sides are 0 to 6"),
        (TRIANGLE, (7, 6), "sides are 7 to 6"),
        (TRIANGLE, (13, 14), "fits nowhere: its region has 144 of 576 pixels"),
    ],
)
def test_what_is_no_polygon_is_refused(points: np.ndarray, sides: tuple[int, int], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        PolygonTrigger(points, (0, 0, 0), sides, region())


def test_images_of_another_size_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"made for images \(24, 24\), these are \(24, 25\)"):
        trigger(region()).stamp(torch.zeros(1, 3, 24, 25))
