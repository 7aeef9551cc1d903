import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mothkit.errors import ShapeError
from mothkit.triggers.patch import Trigger, blend, stamp

ROUNDING = 1e-6


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    height=st.integers(1, 8),
    width=st.integers(1, 8),
    count=st.integers(1, 4),
    channels=st.sampled_from([1, 3]),
)
def test_a_stamped_pixel_is_the_mixture_that_its_mask_says(
    seed: int, height: int, width: int, count: int, channels: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(1, height, width, generator=generator)
    pattern = torch.rand(channels, height, width, generator=generator)
    x = torch.rand(count, channels, height, width, generator=generator)
    before = [t.clone() for t in (x, mask, pattern)]
    stamped = stamp(x, Trigger(mask, pattern))
    assert stamped.shape == x.shape
    assert all(torch.equal(a, b) for a, b in zip(before, (x, mask, pattern), strict=True))
    for n in range(count):
        for c in range(channels):
            for row in range(height):
                for column in range(width):
                    m = float(mask[0, row, column])
                    wanted = (1 - m) * float(x[n, c, row, column]) + m * float(pattern[c, row, column])
                    assert abs(float(stamped[n, c, row, column]) - wanted) < ROUNDING


def test_an_empty_mask_changes_nothing_and_a_full_mask_everything() -> None:
    x, pattern = torch.rand(2, 3, 4, 4), torch.rand(3, 4, 4)
    assert torch.equal(stamp(x, Trigger(torch.zeros(1, 4, 4), pattern)), x)
    assert torch.equal(stamp(x, Trigger(torch.ones(1, 4, 4), pattern))[1], pattern)


def test_stamping_with_a_hard_mask_twice_is_stamping_once() -> None:
    x, pattern = torch.rand(2, 3, 6, 6), torch.rand(3, 6, 6)
    trigger = Trigger((torch.rand(1, 6, 6) < 0.3).float(), pattern)
    assert torch.equal(stamp(stamp(x, trigger), trigger), stamp(x, trigger))


def test_values_a_rounding_error_outside_are_taken_and_the_image_stays_within_bounds() -> None:
    trigger = Trigger(torch.full((1, 2, 2), 1 + 5e-5), torch.full((3, 2, 2), 1 + 5e-5))
    assert stamp(torch.zeros(1, 3, 2, 2), trigger).max() == 1
    trigger = Trigger(torch.full((1, 2, 2), 1 + 5e-5), torch.full((3, 2, 2), -5e-5))
    assert stamp(torch.ones(1, 3, 2, 2), trigger).min() == 0


def test_the_image_keeps_its_precision() -> None:
    x = torch.rand(1, 1, 2, 2, dtype=torch.float64)
    assert stamp(x, Trigger(torch.ones(1, 2, 2) / 2, torch.ones(1, 2, 2))).dtype == torch.float64


def test_sizes_are_counted_in_pixels_and_over_channels() -> None:
    mask = torch.zeros(1, 4, 5)
    mask[0, 1, 2], mask[0, 3, 4] = 1.0, 0.25
    trigger = Trigger(mask, torch.zeros(3, 4, 5))
    assert trigger.mask_l1 == 1.25
    assert trigger.class_distance == 3.75
    assert Trigger(mask, torch.zeros(1, 4, 5)).class_distance == 1.25


@pytest.mark.parametrize(
    ("mask", "pattern"),
    [((1, 4, 4), (3, 8, 8)), ((3, 4, 4), (3, 4, 4)), ((4, 4), (3, 4, 4)), ((1, 4, 4), (4, 4))],
)
def test_a_mask_that_does_not_cover_its_pattern_is_refused(
    mask: tuple[int, ...], pattern: tuple[int, ...]
) -> None:
    with pytest.raises(ShapeError) as caught:
        Trigger(torch.zeros(mask), torch.zeros(pattern))
    assert f"mask {mask} does not cover pattern {pattern}" in str(caught.value)


@pytest.mark.parametrize("wrong", [-0.01, 1.01, 255.0, float("nan")])
@pytest.mark.parametrize("part", ["mask", "pattern"])
def test_values_outside_0_to_1_are_refused(part: str, wrong: float) -> None:
    mask, pattern = torch.zeros(1, 2, 2), torch.zeros(3, 2, 2)
    (mask if part == "mask" else pattern)[0, 1, 1] = wrong
    with pytest.raises(ShapeError, match=f"{part} has values from .*{wrong:.4g}.*; expected 0 to 1"):
        Trigger(mask, pattern)


def test_a_trigger_for_images_of_another_shape_is_refused() -> None:
    trigger = Trigger(torch.zeros(1, 4, 4), torch.zeros(3, 4, 4))
    with pytest.raises(ShapeError, match=r"made for images \(3, 4, 4\), these are \(1, 4, 4\)"):
        stamp(torch.zeros(2, 1, 4, 4), trigger)  # would broadcast to three channels
    with pytest.raises(ShapeError, match=r"these are \(3, 5, 5\)"):
        stamp(torch.zeros(2, 3, 5, 5), trigger)


def test_blend_broadcasts_many_triggers_over_many_images() -> None:
    x, masks, patterns = torch.rand(2, 5, 3, 4, 4), torch.rand(2, 1, 1, 4, 4), torch.rand(2, 1, 3, 4, 4)
    many = blend(x, masks, patterns)
    for k in range(2):
        one = stamp(x[k], Trigger(masks[k, 0], patterns[k, 0]))
        assert torch.allclose(many[k], one, atol=ROUNDING)
