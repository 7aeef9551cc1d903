import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mothkit.classifier import Classifier
from mothkit.hardening.selection import Candidate, DropEstimator, best_of, hard_view, mirroring_is_safe
from mothkit.images import ImageSet
from tests.tiny import tiny_images

CPU = torch.device("cpu")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Side(nn.Module):
    """Class 0 where the left half is the brighter one, else class 1."""

    def forward(self, x: Tensor) -> Tensor:
        half = x.shape[3] // 2
        return torch.stack([x[..., :half].mean((1, 2, 3)), x[..., half:].mean((1, 2, 3))], dim=1)


def halves(count: int, *, both: bool) -> ImageSet:
    """Images of which one half is bright: the left one in class 0, the right one in class 1."""
    y = np.arange(count) % 2 if both else np.zeros(count, dtype=np.int64)
    x = np.full((count, 8, 8, 3), 20, dtype=np.uint8)
    for image, label in zip(x, y, strict=True):
        image[:, :4] = 220 if label == 0 else 20
        image[:, 4:] = 20 if label == 0 else 220
    return ImageSet.from_arrays(x, y, ("left", "right"), layout="nhwc")


# -- hard views -----------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    count=st.integers(1, 3),
    channels=st.sampled_from([1, 3]),
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    mirror=st.booleans(),
)
def test_a_hard_view_keeps_shape_and_range_and_leaves_its_image_alone(
    seed: int, count: int, channels: int, height: int, width: int, mirror: bool
) -> None:
    x = torch.rand(count, channels, height, width, generator=seeded(seed))
    before = x.clone()
    view = hard_view(x, seeded(seed), mirror=mirror)
    assert view.shape == x.shape
    assert 0 <= view.min() <= view.max() <= 1
    assert torch.equal(x, before)
    assert torch.equal(view, hard_view(x, seeded(seed), mirror=mirror))


def test_every_image_has_a_view_of_its_own() -> None:
    x = torch.rand(1, 3, 16, 16).expand(20, -1, -1, -1)
    views = hard_view(x, seeded(), mirror=True)
    assert len({view.numpy().tobytes() for view in views}) == 20
    assert not torch.equal(views, hard_view(x, seeded(1), mirror=True))


@pytest.mark.parametrize("mirror", [False, True])
def test_only_mirroring_changes_sides(mirror: bool) -> None:
    images = halves(400, both=False)
    views = hard_view(images.pixels(torch.arange(400)), seeded(), mirror=mirror)
    turned = Side()(views).argmax(1).float().mean()
    if mirror:
        assert 0.4 < turned < 0.6
    else:
        assert turned == 0


def test_views_stay_upright_and_recognisable() -> None:
    """The top stays the top, and a view is nearer to its own image than to another."""
    x = torch.zeros(200, 1, 16, 16)
    x[:, :, :8] = 0.8
    views = hard_view(x, seeded(), mirror=True)
    assert (views[:, :, :6].mean((1, 2, 3)) > views[:, :, 10:].mean((1, 2, 3))).all()


def test_a_square_of_a_quarter_side_is_cut_out() -> None:
    view = hard_view(torch.zeros(50, 3, 16, 16), seeded(), mirror=False)
    gray = (view == 0.5).all(1).sum((1, 2))
    assert (gray == 16).all()


# -- whether images may be mirrored ---------------------------------------------------------------------------


def test_mirroring_is_safe_where_sides_mean_nothing(classifier: Classifier) -> None:
    assert mirroring_is_safe(classifier, tiny_images(20), CPU)


def test_mirroring_is_not_safe_where_it_changes_the_class() -> None:
    assert not mirroring_is_safe(Side(), halves(20, both=True), CPU)  # type: ignore[arg-type]


def test_one_class_that_mirroring_destroys_is_enough() -> None:
    """Over all images most are right either way; the one class is lost wholly."""
    assert not mirroring_is_safe(Side(), halves(2, both=False), CPU)  # type: ignore[arg-type]


# -- the estimate ---------------------------------------------------------------------------------------------


def estimator(classifier: Classifier, seed: int = 0, views: int = 3) -> DropEstimator:
    return DropEstimator(classifier, tiny_images(30), views=views, mirror=True, seed=seed, device=CPU)


def test_the_same_classifier_loses_exactly_nothing(classifier: Classifier) -> None:
    judge = estimator(classifier)
    assert judge.drop(classifier) == 0
    assert judge.drop(copy.deepcopy(classifier)) == 0
    assert min(judge.before) > 0.9


def test_the_drop_is_in_points_of_accuracy_on_the_same_views(classifier: Classifier) -> None:
    broken = copy.deepcopy(classifier)
    with torch.no_grad():
        broken.network.tensor("fc.bias")[0] = 1e6  # says class 0 to everything: a third is right
    judge = estimator(classifier)
    assert judge.drop(broken) == pytest.approx(100 * (min(judge.before) - 1 / 3))
    assert estimator(broken).drop(classifier) == pytest.approx(-judge.drop(broken))


def test_the_estimate_depends_on_its_seed_only(classifier: Classifier) -> None:
    noisy = copy.deepcopy(classifier)
    with torch.no_grad():
        noisy.network.tensor("fc.bias")[0] = 2.8  # some views are lost
    accuracies = [estimator(noisy, seed).before for seed in (1, 1, 2)]
    assert accuracies[0] == accuracies[1]
    assert accuracies[0][0] == accuracies[2][0]  # plain images are the same whatever the seed
    assert accuracies[0][1] != accuracies[2][1]


def test_the_smaller_of_plain_and_hard_drop_is_the_estimate(classifier: Classifier) -> None:
    noisy = copy.deepcopy(classifier)
    with torch.no_grad():
        noisy.network.tensor("fc.bias")[0] = 2.8
    judge = estimator(classifier)
    plain, hard = (then - now for then, now in zip(judge.before, estimator(noisy).before, strict=True))
    assert plain != hard
    assert judge.drop(noisy) == pytest.approx(100 * min(plain, hard))


# -- the choice -----------------------------------------------------------------------------------------------


def test_the_latest_candidate_within_the_bound_is_taken() -> None:
    tried = [Candidate(step, drop, {}) for step, drop in ((10, 0.2), (30, 1.0), (20, -3.0), (40, 1.1))]
    best = best_of(tried, 1.0)
    assert best is not None
    assert best.step == 30
    worse = best_of(tried, 2.0)
    assert worse is not None
    assert worse.step == 40


def test_none_is_taken_if_none_fits() -> None:
    assert best_of([Candidate(1, 0.5, {})], 0.0) is None
    assert best_of([Candidate(1, float("nan"), {})], 100.0) is None
    assert best_of([], 1.0) is None
