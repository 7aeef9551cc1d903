import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageOps

from mothkit.augment import augment
from mothkit.errors import ConfigError, ShapeError


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    count=st.integers(1, 4),
    channels=st.sampled_from([1, 3]),
    height=st.integers(3, 7),
    width=st.integers(3, 7),
    shift=st.integers(0, 2),
    flip=st.booleans(),
    edge=st.booleans(),
)
def test_each_image_is_some_shift_of_itself_or_its_mirror(
    seed: int, count: int, channels: int, height: int, width: int, shift: int, flip: bool, edge: bool
) -> None:
    x = torch.rand(count, channels, height, width, generator=seeded(seed))
    before = x.clone()
    moved = augment(x, seeded(seed), shift=shift, flip=flip, padding="edge" if edge else "zeros")
    assert torch.equal(x, before)  # the caller's tensor is left alone
    assert moved.shape == x.shape
    assert moved.dtype == x.dtype
    mode = "replicate" if edge else "constant"
    padded = torch.nn.functional.pad(x, (shift,) * 4, mode=mode)
    for image, result in zip(padded, moved, strict=True):
        windows = [
            image[:, top : top + height, left : left + width]
            for top in range(2 * shift + 1)
            for left in range(2 * shift + 1)
        ]
        assert any(torch.equal(result, w) or (flip and torch.equal(result, w.flip(2))) for w in windows)


def test_pillow_agrees_on_what_a_flip_and_a_shift_are() -> None:
    x = torch.randint(1, 256, (1, 1, 5, 6), generator=seeded()).float()
    picture = Image.fromarray(x[0, 0].byte().numpy())
    wide = ImageOps.expand(picture, 2)
    choices = set()
    for side in (wide, ImageOps.mirror(wide)):
        for dy in range(-2, 3):
            for dx in range(-2, 3):
                choices.add(ImageChops.offset(side, dx, dy).crop((2, 2, 8, 7)).tobytes())
    drawn = {augment(x, seeded(s), shift=2)[0, 0].byte().numpy().tobytes() for s in range(400)}
    assert drawn == choices  # every one of the 50 is drawn, and none else


def test_same_generator_state_same_images_and_another_state_others() -> None:
    x = torch.rand(16, 3, 8, 8)
    assert torch.equal(augment(x, seeded(3)), augment(x, seeded(3)))
    assert not torch.equal(augment(x, seeded(3)), augment(x, seeded(4)))


def test_images_are_moved_one_by_one() -> None:
    moved = augment(torch.rand(1, 3, 8, 8).repeat(64, 1, 1, 1), seeded())
    assert len({image.numpy().tobytes() for image in moved}) > 30


def test_no_shift_and_no_flip_is_a_copy() -> None:
    x = torch.rand(2, 3, 4, 4)
    moved = augment(x, seeded(), shift=0, flip=False)
    assert torch.equal(moved, x)
    moved.zero_()
    assert x.any()


def test_zero_padding_hides_even_what_is_not_a_number() -> None:
    x = torch.full((64, 1, 2, 2), float("nan"))
    moved = augment(x, seeded(), shift=1, flip=False)
    assert (moved == 0).any()


def test_gradients_flow_back() -> None:
    x = torch.rand(4, 3, 6, 6, requires_grad=True)
    augment(x, seeded(), shift=2).sum().backward()
    assert x.grad is not None
    assert set(x.grad.unique().tolist()) <= {0.0, 1.0}


def test_no_images_stay_no_images() -> None:
    assert augment(torch.rand(0, 3, 8, 8), seeded()).shape == (0, 3, 8, 8)


@pytest.mark.parametrize("shift", [-1, 4, 100])
def test_a_shift_out_of_range_is_refused(shift: int) -> None:
    with pytest.raises(ConfigError, match=rf"shift is {shift}, not in 0\.\.3"):
        augment(torch.rand(1, 3, 4, 8), seeded(), shift=shift)


@pytest.mark.parametrize("x", [torch.rand(3, 8, 8), torch.zeros(1, 3, 8, 8, dtype=torch.uint8)])
def test_what_is_no_float_batch_is_refused(x: torch.Tensor) -> None:
    with pytest.raises(ShapeError, match=r"float \[N, C, H, W\]"):
        augment(x, seeded())


def test_an_unknown_padding_is_refused() -> None:
    with pytest.raises(ConfigError, match="padding is 'mirror'"):
        augment(torch.rand(1, 3, 8, 8), seeded(), padding="mirror")  # type: ignore[arg-type]
