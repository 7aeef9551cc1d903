import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mothkit.errors import InputSpecError, ShapeError
from mothkit.inputs import Dimension, InputSpec, fit, load_input_spec, pixel_shape, presets

ROUNDING = 1e-4
positive = st.floats(0.01, 300)
triple = st.lists(positive, min_size=3, max_size=3).map(tuple) | st.tuples(positive)


@st.composite
def specs(draw: st.DrawFn) -> InputSpec:
    channels = draw(st.sampled_from(["rgb", "bgr", "gray"]))
    numbers = st.tuples(positive) if channels == "gray" else triple
    return InputSpec(
        name=draw(st.text(min_size=1, max_size=5)),
        layout=draw(st.sampled_from(["nchw", "nhwc"])),
        channels=channels,
        scale=draw(positive),
        mean=draw(numbers),
        std=draw(numbers),
    )


@settings(deadline=None)
@given(spec=specs(), seed=st.integers(0, 999))
def test_model_space_is_what_numpy_makes_of_the_formula(spec: InputSpec, seed: int) -> None:
    x = torch.rand(2, spec.channel_count or 0, 3, 4, generator=torch.Generator().manual_seed(seed))
    before = x.clone()
    expected = np.moveaxis(x.double().numpy(), 1, -1)  # N, H, W, (R, G, B)
    expected = (expected * spec.scale - np.array(spec.mean)) / np.array(spec.std)
    if spec.channels == "bgr":
        expected = expected[..., ::-1]
    if spec.layout == "nchw":
        expected = np.moveaxis(expected, -1, 1)
    found = spec.to_model(x)
    assert found.is_contiguous()
    np.testing.assert_allclose(found.numpy(), expected, rtol=ROUNDING, atol=ROUNDING)
    assert torch.equal(x, before)


@given(spec=specs())
def test_a_spec_survives_json(spec: InputSpec) -> None:
    assert InputSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


@pytest.mark.parametrize("name", list(presets()))
def test_every_preset_is_described_loads_by_name_and_survives_json(name: str) -> None:
    spec = load_input_spec(name)
    assert spec.name == name
    assert spec.description.endswith(".")
    assert InputSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("unit", 0, 1), ("byte", 0, 255), ("signed", -1, 1), ("mnist", -0.4242, 2.8215)],
)
def test_ranges_of_the_plain_presets(name: str, low: float, high: float) -> None:
    count = 1 if name == "mnist" else 3
    spec = fit(load_input_spec(name), [None, count, 28, 28])
    ends = spec.to_model(torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, count, 1, 1))
    assert ends[0].unique().item() == pytest.approx(low, abs=ROUNDING)
    assert ends[1].unique().item() == pytest.approx(high, abs=ROUNDING)


def test_caffe_takes_its_known_means_off_blue_green_red() -> None:
    found = fit(load_input_spec("caffe"), [1, 3, 224, 224]).to_model(torch.zeros(1, 3, 1, 1))
    assert found.flatten().tolist() == pytest.approx([-103.939, -116.779, -123.68])


def test_imagenet_is_torchvisions() -> None:
    from torchvision.transforms.functional import normalize

    x = torch.rand(2, 3, 4, 4)
    expected = normalize(x, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    assert torch.allclose(fit(load_input_spec("imagenet"), [1, 3, 4, 4]).to_model(x), expected)


def test_colours_keep_their_numbers_when_the_order_is_overridden() -> None:
    x = torch.rand(1, 3, 2, 2)
    rgb = load_input_spec("cifar10", layout="nchw", channels="rgb").to_model(x)
    bgr = load_input_spec("cifar10", layout="nchw", channels="bgr").to_model(x)
    assert torch.equal(rgb.flip(1), bgr)


@given(spec=specs())
def test_gradients_reach_the_pixels(spec: InputSpec) -> None:
    x = torch.rand(1, spec.channel_count or 0, 2, 2, requires_grad=True)
    spec.to_model(x).sum().backward()
    expected = (spec.scale / torch.tensor(spec.std)).view(-1, 1, 1).expand_as(x[0])
    assert x.grad is not None
    assert torch.allclose(x.grad[0], expected, rtol=ROUNDING)


@pytest.mark.parametrize(
    ("name", "shape", "layout", "channels", "pixels"),
    [
        ("unit", [1, 3, 32, 32], "nchw", "rgb", (3, 32, 32)),
        ("unit", ["batch", 224, 200, 3], "nhwc", "rgb", (3, 224, 200)),
        ("unit", [None, 1, 28, 28], "nchw", "gray", (1, 28, 28)),
        ("byte", [-1, 28, 28, 1], "nhwc", "gray", (1, 28, 28)),
        ("caffe", [None, 3, None, "w"], "nchw", "bgr", (3, None, None)),
        ("imagenet", [0, None, None, 3], "nhwc", "rgb", (3, None, None)),
        ("cifar10", [1, 3, 5, 1], "nchw", "rgb", (3, 5, 1)),  # three colours settle it
        ("mnist", [1, 3, 5, 1], "nhwc", "gray", (1, 3, 5)),
    ],
)
def test_layout_and_channels_follow_from_the_models_input(
    name: str, shape: list[Dimension], layout: str, channels: str, pixels: tuple[int | None, ...]
) -> None:
    spec = fit(load_input_spec(name), shape)
    assert (spec.layout, spec.channels) == (layout, channels)
    assert pixel_shape(load_input_spec(name), shape) == pixels
    assert fit(spec, shape) == spec


@pytest.mark.parametrize(
    ("spec", "shape", "message"),
    [
        (InputSpec(name="a"), [1, 3, 32, 3], r"\[1, 3, 32, 3\] for a: it could be either; say --layout"),
        (InputSpec(name="a"), [1, 4, 32, 32], r"no dimension of 1 or 3 channels"),
        (InputSpec(name="a"), [None] * 4, r"cannot tell the layout of the model's input \[\?, \?, \?, \?\]"),
        (InputSpec(name="a"), [1, 10], r"2 dimensions \[1, 10\], expected 4"),
        (InputSpec(name="a", layout="nchw"), [1, None, 8, 8], "say --channels rgb, bgr or gray"),
        (InputSpec(name="a", layout="nchw"), [1, 4, 8, 8], "has 4 channels, not 1 or 3"),
        (InputSpec(name="a", layout="nhwc"), [1, 3, 32, 32], r"\(nhwc\) has 32 channels"),
        (InputSpec(name="a", layout="nchw", channels="rgb"), [1, 1, 8, 8], r"a makes 3 channels.*has 1"),
        (InputSpec(name="a", layout="nchw", channels="gray"), [1, 3, 8, 8], r"a makes 1 channels.*has 3"),
        (presets()["imagenet"], [1, 1, 28, 28], "no dimension of 3 channels"),
    ],
)
def test_contradictions_with_the_model_are_refused(
    spec: InputSpec, shape: list[Dimension], message: str
) -> None:
    with pytest.raises(InputSpecError, match=message):
        fit(spec, shape)


def test_fit_checks_what_was_given_and_keeps_it() -> None:
    spec = fit(load_input_spec("unit", layout="nchw", channels="bgr"), [1, None, 8, 8])
    assert (spec.layout, spec.channels) == ("nchw", "bgr")


def test_an_open_spec_makes_no_input() -> None:
    with pytest.raises(InputSpecError, match="fit the spec"):
        load_input_spec("unit").to_model(torch.rand(1, 3, 4, 4))


@pytest.mark.parametrize(
    "x", [torch.rand(1, 1, 4, 4), torch.rand(3, 4, 4), torch.zeros(1, 3, 4, 4, dtype=torch.uint8)]
)
def test_pixels_of_another_shape_or_type_are_refused(x: torch.Tensor) -> None:
    with pytest.raises(ShapeError, match=r"expected float \[N, 3, H, W\]"):
        load_input_spec("unit", layout="nchw", channels="rgb").to_model(x)


def test_toml_and_json_files_say_the_same(tmp_path: Path) -> None:
    toml, parsed = tmp_path / "a.toml", tmp_path / "a.json"
    toml.write_text('name = "mine"\nscale = 255\nchannels = "bgr"\nmean = [1, 2, 3.5]\nstd = 2\n')
    parsed.write_text('{"name": "mine", "scale": 255, "channels": "bgr", "mean": [1, 2, 3.5], "std": [2]}')
    spec = load_input_spec(str(toml), layout="nhwc")
    assert spec == load_input_spec(str(parsed), layout="nhwc")
    assert spec == InputSpec(
        name="mine", layout="nhwc", channels="bgr", scale=255, mean=(1, 2, 3.5), std=(2,)
    )


def test_a_file_without_a_name_is_called_by_its_own(tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text("scale = 2")
    assert load_input_spec(str(tmp_path / "p.toml")).name == "p.toml"


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(InputSpecError) as caught:
        load_input_spec("imagnet")
    assert all(name in str(caught.value) for name in presets())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.toml", b"scale = ", "cannot be read"),
        ("a.json", b"{", "cannot be read"),
        ("a.json", b"[" * 100_000, "cannot be read"),
        ("a.json", b"\xff\xfe", "cannot be read"),
        ("a.json", b"[1]", "holds a list"),
        ("a.yaml", b"scale: 1", r"ends in \.toml or \.json"),
        ("a.toml", b"#" * (1 << 21), "no preprocessing"),
        ("a.toml", b"size = 3", "unknown keys size; known are name, layout"),
        ("a.toml", b"name = 3", "name is 3, not text"),
        ("a.toml", b"scale = 0", "scale is 0, not a number above 0"),
        ("a.toml", b"scale = true", "scale is True"),
        ("a.toml", b"scale = nan", "scale is nan"),
        ("a.json", b'{"scale": 1' + b"0" * 400 + b"}", "scale is 1000"),
        ("a.toml", b"std = [1, 0, 1]", "every value must be above 0"),
        ("a.toml", b"std = inf", "std is inf"),
        ("a.toml", b"mean = [1, 2]", "not one number or three"),
        ("a.toml", b'mean = ["1"]', "not one number or three"),
        ("a.json", b'{"mean": null}', "not one number or three"),
        ("a.toml", b'layout = "chw"', "layout is 'chw', not one of nchw, nhwc"),
        ("a.toml", b'channels = ["rgb"]', "not one of rgb, bgr, gray"),
        ("a.toml", b'channels = "gray"\nmean = [1, 2, 3]', "channels is gray, but mean"),
    ],
)
def test_bad_files_are_refused_by_name(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputSpecError, match=rf"a\.(toml|json|yaml).*{message}"):
        load_input_spec(str(tmp_path / name))


def test_a_grey_model_cannot_have_three_means() -> None:
    with pytest.raises(InputSpecError, match="channels is gray, but mean"):
        load_input_spec("cifar10", channels="gray")


def test_presets_cannot_be_changed() -> None:
    table: Any = presets()
    with pytest.raises(TypeError):
        table["unit"] = table["byte"]


@given(seed=st.integers(0, 999), gray=st.booleans())
def test_stretching_brings_each_image_to_0_and_1(seed: int, gray: bool) -> None:
    x = torch.rand(3, 1 if gray else 3, 4, 5, generator=torch.Generator().manual_seed(seed))
    found = fit(load_input_spec("minmax"), [None, x.shape[1], 4, 5]).to_model(x).numpy()
    expected = np.stack([(image - image.min()) / (image.max() - image.min()) for image in x.numpy()])
    np.testing.assert_allclose(found, expected, atol=ROUNDING)


def test_an_image_of_one_value_is_stretched_to_0_and_gives_finite_gradients() -> None:
    x = torch.full((2, 3, 4, 4), 0.7)
    x[1, 0, 0, 0] = 0.2
    x.requires_grad_()
    found = fit(load_input_spec("minmax"), [None, 3, 4, 4]).to_model(x)
    assert not found[0].any()
    (found**2).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_stretching_comes_before_scale_mean_and_std() -> None:
    spec = InputSpec(name="a", layout="nchw", channels="gray", per_image=True, scale=255, mean=(5,), std=(2,))
    found = spec.to_model(torch.tensor([0.2, 0.6]).view(1, 1, 1, 2))
    assert found.flatten().tolist() == pytest.approx([-2.5, 125])


@pytest.mark.parametrize("value", [1, "yes", None])
def test_stretching_is_asked_for_by_true_or_false(value: object) -> None:
    with pytest.raises(InputSpecError, match=r"per_image is .* not true or false"):
        InputSpec.from_dict({"per_image": value})
