"""The filters against hand calculations; beside ImageMagick itself they stand in test_filters_wand.py."""

import colorsys
import math

import pytest
import torch

from mothkit.errors import ConfigError, ShapeError
from mothkit.triggers.filters import (
    FILTERS,
    FilterTrigger,
    auto_gamma,
    colortone,
    modulate,
    sigmoidal_contrast,
    vignette,
)


def pixel(*rgb: float) -> torch.Tensor:
    return torch.tensor(rgb, dtype=torch.float64).view(1, 3, 1, 1)


@pytest.mark.parametrize("name", FILTERS)
def test_a_filter_keeps_shape_range_and_the_caller_s_image_and_changes_the_picture(name: str) -> None:
    x = torch.rand(3, 3, 12, 10, generator=torch.Generator().manual_seed(1))
    before = x.clone()
    once = FilterTrigger(name).stamp(x)
    assert torch.equal(x, before)
    assert once.shape == x.shape
    assert 0 <= once.min() <= once.max() <= 1
    assert (once - x).abs().mean() > 0.05
    assert torch.allclose(FilterTrigger(name).stamp(x[1:2]), once[1:2])  # each image by itself


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_black_and_white_images_stay_finite(name: str, value: float) -> None:
    assert FilterTrigger(name).stamp(torch.full((1, 3, 4, 4), value)).isfinite().all()


@pytest.mark.parametrize("rgb", [(0.2, 0.4, 0.3), (0.9, 0.1, 0.1), (0.5, 0.5, 0.5), (0.0, 0.0, 0.4)])
def test_modulate_multiplies_lightness_and_saturation_of_hls(rgb: tuple[float, float, float]) -> None:
    hue, lightness, saturation = colorsys.rgb_to_hls(*rgb)
    wanted = colorsys.hls_to_rgb(hue, lightness * 1.2, saturation * 0.5)
    assert modulate(pixel(*rgb), 120, 50).flatten().tolist() == pytest.approx(wanted, abs=1e-6)


def test_automatic_gamma_takes_the_mean_to_one_half() -> None:
    flat = auto_gamma(torch.full((1, 3, 2, 2), 0.25, dtype=torch.float64))
    assert flat.flatten().tolist() == pytest.approx([0.5] * 12)


def test_sigmoidal_contrast_keeps_both_ends_and_the_middle_and_steepens() -> None:
    ends = sigmoidal_contrast(torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64))
    assert ends.tolist() == pytest.approx([0, 0.5, 1])
    a, b = (1 / (1 + math.exp(-1.5))), 1 / (1 + math.exp(1.5))
    wanted = (1 / (1 + math.exp(0.75)) - b) / (a - b)
    assert float(sigmoidal_contrast(torch.tensor(0.25))) == pytest.approx(wanted, abs=1e-6)


def test_a_tone_goes_to_dark_or_to_light_pixels() -> None:
    red = (255, 0, 0)
    assert colortone(pixel(1, 1, 1), red, dark=True).flatten().tolist() == [1, 1, 1]
    assert colortone(pixel(0, 0, 0), red, dark=True).flatten().tolist() == pytest.approx([0.5, 0, 0])
    assert colortone(pixel(1, 1, 1), red, dark=False).flatten().tolist() == pytest.approx([1, 0.5, 0.5])


def test_a_vignette_leaves_the_middle_and_darkens_the_corners_by_their_distance() -> None:
    x = torch.ones(1, 3, 41, 41, dtype=torch.float64)
    dark = vignette(x, None, (0, 0, 0))[0, 0]
    assert dark[20, 20] == 1
    radius = (1.5 * 41 - 1) / 2
    assert float(dark[20, 0]) == pytest.approx(1 - 20 / radius)
    assert float(dark[0, 0]) == pytest.approx(1 - math.hypot(20, 20) / radius)


def test_lomo_keeps_of_red_and_green_only_whether_they_are_above_one_half() -> None:
    x = torch.rand(1, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    middle = FilterTrigger("lomo").stamp(x)[0, :, 4, 4]
    assert middle[:2].tolist() == (x[0, :2, 4, 4] > 0.5).float().tolist()
    assert float(middle[2]) == pytest.approx(float(x[0, 2, 4, 4]))


def test_what_is_no_filter_or_no_colour_image_is_refused() -> None:
    with pytest.raises(ConfigError, match="filter is 'sepia', not one of gotham, kelvin"):
        FilterTrigger("sepia")
    with pytest.raises(ShapeError, match="three colours"):
        FilterTrigger("lomo").stamp(torch.zeros(1, 1, 4, 4))
