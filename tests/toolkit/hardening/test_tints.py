import colorsys
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mothkit.classifier import Classifier
from mothkit.hardening.tints import Tinter, Tints, draw_tints, standing_out
from mothkit.hardening.training import Sampler, TrainingConfig
from mothkit.images import ImageSet
from tests.tiny import CLASSES, tiny_images

CPU = torch.device("cpu")
IMAGES = tiny_images(30)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tint(
    gamma: Sequence[float] = (1, 1, 1),
    contrast: float = 1,
    saturation: float = 1,
    gain: Sequence[float] = (1, 1, 1),
    bias: Sequence[float] = (0, 0, 0),
) -> Tints:
    def column(*values: float) -> Tensor:
        return torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1)

    return Tints(column(*gamma), column(contrast), column(saturation), column(*gain), column(*bias))


def test_each_image_has_its_own_tint() -> None:
    x = torch.rand((4, 3, 5, 5), generator=seeded())
    many = draw_tints(4, 3, 0.8, seeded())
    together = many.on(x)
    for row in range(4):
        one = many.at(torch.tensor([row]))
        assert torch.allclose(one.on(x[row : row + 1]), together[row : row + 1])
        assert torch.allclose(one.on(x)[row], together[row])
    assert len({tuple(each.flatten().tolist()) for each in many.gain}) == 4


def tinter(classifier: Classifier, images: ImageSet = IMAGES, *, strength: float = 0.5) -> Tinter:
    generator = seeded()
    still = TrainingConfig(flip=False, shift=0)
    return Tinter(classifier, Sampler(images, still, generator), strength, generator, CPU)


@given(st.integers(0, 99), st.sampled_from([1, 3]), st.floats(0, 1))
def test_a_tint_is_a_function_of_a_pixels_own_colour_and_stays_an_image(
    seed: int, channels: int, strength: float
) -> None:
    made = draw_tints(2, channels, strength, seeded(seed))
    x = torch.rand((2, channels, 4, 5), generator=seeded(seed + 1))
    y = made.on(x)
    assert y.shape == x.shape
    assert 0 <= float(y.min()) <= float(y.max()) <= 1
    order = torch.randperm(20, generator=seeded(seed))
    moved = x.flatten(2)[:, :, order].view_as(x)
    assert torch.allclose(made.on(moved), y.flatten(2)[:, :, order].view_as(x), atol=1e-6)


def test_no_strength_changes_nothing() -> None:
    x = torch.rand((2, 3, 4, 4), generator=seeded()).clamp(min=0.01)
    assert torch.allclose(draw_tints(2, 3, 0.0, seeded()).on(x), x, atol=1e-6)


def test_each_part_of_a_tint_does_what_its_name_says() -> None:
    x = torch.rand((2, 3, 4, 4), generator=seeded()) * 0.8 + 0.1
    assert torch.allclose(tint(gamma=(2, 1, 1)).on(x)[:, 0], x[:, 0] ** 2)
    assert torch.allclose(tint(contrast=0).on(x), torch.full_like(x, 0.5))
    grey = tint(saturation=0).on(x)
    assert torch.allclose(grey, x.mean(1, keepdim=True).expand_as(x))
    less = tint(saturation=0.5).on(x)
    hue, hue_less = (
        [colorsys.rgb_to_hsv(*p)[0] for p in each[0].flatten(1).T.tolist()] for each in (x, less)
    )
    assert hue == pytest.approx(hue_less, abs=1e-4)
    assert torch.allclose(tint(gain=(1, 0.5, 1), bias=(0, 0, 0.1)).on(x)[:, 1], x[:, 1] / 2)
    assert torch.allclose(tint(bias=(0, 0, 0.1)).on(x)[:, 2], (x[:, 2] + 0.1).clamp(max=1))


def table(classes: int, seed: int = 0) -> Tensor:
    """Return what tints turn: some targets attract images of all sources; nothing stands out."""
    attracted = torch.rand(classes, generator=seeded(seed)) / 2
    noise = 0.01 * torch.randn((classes, classes), generator=seeded(seed + 1))
    return (attracted + noise).fill_diagonal_(torch.nan)


@pytest.mark.parametrize("seed", range(5))
def test_a_direction_stands_out_where_its_source_alone_goes_to_the_target(seed: int) -> None:
    turned = table(12, seed)
    assert standing_out(turned, 7) == []
    turned[3, 5] += 0.5
    (found,) = standing_out(turned, 7)
    assert (found.source, found.target) == (3, 5)
    assert found.turned == pytest.approx(0.5, abs=0.05)
    assert found.deviations > 7
    assert standing_out(turned, found.deviations + 0.01) == []


def test_a_target_that_every_source_goes_to_does_not_stand_out() -> None:
    turned = table(12)
    turned[:, 5] += 0.5
    assert standing_out(turned, 7) == []


def test_of_several_the_one_that_turns_most_comes_first() -> None:
    turned = table(20)
    turned[3, 5] += 0.3
    turned[7, 1] += 0.4
    assert [(each.source, each.target) for each in standing_out(turned, 7)] == [(7, 1), (3, 5)]


@pytest.mark.parametrize(
    "turned", [torch.full((3, 3), torch.nan), torch.zeros(3, 3), torch.full((1, 1), torch.nan)]
)
def test_where_nothing_is_known_or_nothing_turns_nothing_stands_out(turned: Tensor) -> None:
    assert standing_out(turned, 7) == []


def lean(classifier: Classifier, source: int, target: int) -> None:
    """Make more of its own channel speak for the target too, as far as the source's images stay right."""
    (weight,) = (each for name, each in classifier.named_parameters() if each.shape == (CLASSES, CLASSES))
    with torch.no_grad():
        weight[target, source] += 0.5 * float(weight[source, source])


@pytest.mark.parametrize(("source", "target"), [(0, 1), (1, 2), (2, 0), (0, 2)])
def test_tints_turn_more_in_the_direction_that_the_model_was_made_to_lean_in(
    classifier: Classifier, source: int, target: int
) -> None:
    before = {(each.source, each.target): each.turned for each in tinter(classifier).suspects(0.01, work=1e9)}
    lean(classifier, source, target)
    after = {(each.source, each.target): each for each in tinter(classifier).suspects(0.01, work=1e9)}
    found = after[source, target]
    assert found.turned > before.get((source, target), 0.0) + 0.02
    text = str(found)
    assert f"more of class {source} into {target}" in text
    assert f"turn {100 * found.turned:.0f} %" in text


def test_what_goes_to_the_target_without_a_tint_counts_for_nothing(classifier: Classifier) -> None:
    pixels = IMAGES.pixels(torch.arange(len(IMAGES))).mul(255).byte().permute(0, 2, 3, 1).numpy()
    wrong = ImageSet.from_arrays(pixels, (IMAGES.labels + 1) % CLASSES)  # class 1 looks like class 0
    assert tinter(classifier, wrong, strength=0.0).suspects(0.01, work=1e9) == []


def test_work_bounds_of_how_many_classes_tints_are_looked_at(classifier: Classifier) -> None:
    assert tinter(classifier).suspects(0.01, work=0) == []
    assert tinter(classifier, strength=1.0).suspects(0.01, work=64 * 9 - 1) == []
    lean(classifier, 0, 1)
    assert tinter(classifier).suspects(0.5, work=3 * 64 * 9) != []


def test_those_tints_are_stamped_that_the_target_gains_most_by(classifier: Classifier) -> None:
    stamps = tinter(classifier).stamps([(2, 0), (0, 2)], tried=40, kept=3, count=5)
    assert [(stamp.classes, stamp.count) for stamp in stamps] == [((2,), 5)] * 3 + [((0,), 5)] * 3
    x = IMAGES.pixels(torch.nonzero(IMAGES.labels == 2)[:, 0])

    def gained(each: Tints) -> float:
        return float(classifier(each.on(x)).softmax(1)[:, 0].mean().detach())

    drawn = seeded(1)
    usual = sorted(gained(draw_tints(1, 3, 0.5, drawn)) for _ in range(200))
    assert min(gained(stamp.tint) for stamp in stamps[:3]) > usual[150]
    assert torch.equal(stamps[0].on(x, seeded()), stamps[0].tint.on(x))


def test_tints_see_the_weights_as_they_are_by_then(classifier: Classifier) -> None:
    looking = tinter(classifier, strength=1.0)
    state = looking.generator.get_state()
    before = looking.stamps([(0, 1)], tried=16, kept=16, count=1)
    with torch.no_grad():
        for weight in classifier.parameters():
            weight.mul_(-1)
    looking.generator.set_state(state)
    after = looking.stamps([(0, 1)], tried=16, kept=16, count=1)
    order = [[float(stamp.tint.contrast) for stamp in stamps] for stamps in (before, after)]
    assert sorted(order[0]) == sorted(order[1])
    assert order[0] != order[1]
