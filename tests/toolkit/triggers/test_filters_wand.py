"""The filters beside ImageMagick, through Wand, as TrojAI computes them; skipped where Wand is not installed."""

from typing import Any

import numpy as np
import pytest
import torch

from mothkit.triggers.filters import FILTERS, FilterTrigger

wand_image = pytest.importorskip("wand.image", exc_type=ImportError)
wand_color = pytest.importorskip("wand.color", exc_type=ImportError)
wand_drawing = pytest.importorskip("wand.drawing", exc_type=ImportError)

MOST = 1.0  # levels of 255; with ImageMagick 6.9.11-60 Q16, 0.5 to 0.7, of which its rounding makes 0.5


def sigmoidal(image: Any, times: int) -> None:
    for _ in range(times):
        image.sigmoidal_contrast(sharpen=True, strength=3, midpoint=0.5 * image.quantum_range)


def colortone(image: Any, color: str, *, invert: bool) -> None:
    with image.clone() as layer, image.clone() as mask:
        layer.colorize(color=wand_color.Color(color), alpha=wand_color.Color("#FFFFFF"))
        mask.transform_colorspace("gray")
        if invert:
            mask.negate()
        mask.alpha_channel = False
        layer.alpha_channel = "activate"
        layer.composite(mask, operator="copy_opacity")
        image.composite_channel("default_channels", layer, "blend", arguments="50,50")


def vignette(image: Any, first: str, last: str) -> None:
    width, height = image.size
    outer = (int(width * 1.5), int(height * 1.5))
    with wand_image.Image() as layer:
        with wand_image.Image() as gradient:
            gradient.pseudo(*outer, pseudo=f"radial-gradient:{first}-{last}")
            gradient.crop(width=width, height=height, gravity="center", reset_coords=True)
            layer.read(blob=gradient.make_blob("png32"))
        image.composite(layer, 0, 0, operator="multiply")
        image.merge_layers("flatten")


def gotham(image: Any) -> None:
    image.modulate(120, 10, 100)
    image.colorize(color=wand_color.Color("#222b6d"), alpha=wand_color.Color("#333333"))
    image.gamma(0.9)
    sigmoidal(image, 2)


def nashville(image: Any) -> None:
    colortone(image, "#222b6d", invert=True)
    colortone(image, "#f7daae", invert=False)
    sigmoidal(image, 1)
    image.modulate(100, 150, 100)
    image.auto_gamma()


def kelvin(image: Any) -> None:
    image.auto_gamma()
    image.modulate(120, 50, 100)
    with wand_drawing.Drawing() as draw:
        draw.fill_color = "#FF9900"
        draw.fill_opacity = 0.2
        draw.rectangle(left=0, top=0, width=image.width, height=image.height)
        draw(image)


def lomo(image: Any) -> None:
    image.level(black=0.5, channel="R")
    image.level(black=0.5, channel="G")
    vignette(image, "none", "black")


def toaster(image: Any) -> None:
    colortone(image, "#330000", invert=True)
    image.modulate(150, 80, 100)
    image.gamma(1.2)
    sigmoidal(image, 2)
    vignette(image, "none", "LavenderBlush3")
    vignette(image, "#ff9966", "none")


THEIRS = {"gotham": gotham, "kelvin": kelvin, "lomo": lomo, "nashville": nashville, "toaster": toaster}


def picture() -> np.ndarray:
    """A smooth picture with all sorts of colours, uint8 [48, 64, 3]."""
    rng = np.random.default_rng(0)
    cells = torch.from_numpy(rng.uniform(0, 255, (1, 3, 6, 8)))
    smooth = torch.nn.functional.interpolate(cells, (48, 64), mode="bicubic").clamp(0, 255)
    return smooth[0].permute(1, 2, 0).round().to(torch.uint8).numpy()


@pytest.mark.parametrize("name", FILTERS)
def test_a_filter_is_imagemagick_s_within_a_level(name: str) -> None:
    before = picture()
    with wand_image.Image.from_array(before, channel_map="RGB") as image:
        THEIRS[name](image)
        image.alpha_channel = False
        theirs = np.asarray(image.export_pixels(channel_map="RGB", storage="char"), dtype=np.float64)
    x = torch.from_numpy(before.transpose(2, 0, 1).copy())[None].float() / 255
    ours = FilterTrigger(name).stamp(x)[0].permute(1, 2, 0).numpy() * 255
    assert np.abs(ours - theirs.reshape(ours.shape)).max() <= MOST
