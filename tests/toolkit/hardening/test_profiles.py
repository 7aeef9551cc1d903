from dataclasses import replace

import pytest

from mothkit.errors import ConfigError
from mothkit.hardening.profiles import DEFAULT, PAPER, PROFILES, MothConfig
from mothkit.hardening.training import TrainingConfig


def test_both_profiles_have_their_names() -> None:
    assert {"default": DEFAULT, "paper": PAPER} == PROFILES


def test_the_papers_profile_has_the_papers_budgets() -> None:
    assert (PAPER.pairs_per_round, PAPER.steps_per_round, PAPER.inversions_per_round) == (1, 3, 3)
    assert (PAPER.warm_up.steps, PAPER.inversion.steps, PAPER.refresh.steps) == (500, 200, 50)
    assert (PAPER.warm_up.success_rate, PAPER.inversion.success_rate) == (0.99, 0.9)
    assert (PAPER.warm_up_images, PAPER.warm_up_stamped, PAPER.stamped) == (10, 0.5, 1)
    assert (PAPER.exploration, PAPER.ease_fades_over, PAPER.epochs) == (0.3, 1000, 2)
    assert (PAPER.training.batch_size, PAPER.training.momentum, PAPER.training.distillation) == (128, 0.9, 0)
    assert PAPER.training.schedule == "constant"


def test_steps_go_by_classes_or_by_epochs_and_leave_room_for_a_round() -> None:
    assert replace(DEFAULT, steps_per_class=40).total_steps(images=9999, classes=10) == 400
    by_epochs = replace(DEFAULT, steps_per_class=0, epochs=2, training=TrainingConfig(batch_size=128))
    assert by_epochs.total_steps(images=48_000, classes=10) == 750
    assert by_epochs.total_steps(images=129, classes=2) == max(3, 2 + DEFAULT.steps_per_round)
    short = replace(DEFAULT, steps_per_class=1, steps_per_round=5, inversions_per_round=1)
    assert short.total_steps(images=100, classes=4) == 9  # a warm-up step a class, and one round


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"warm_up_images": 0}, "warm_up_images is 0, not at least 1"),
        ({"inversion_images": 0}, "inversion_images is 0"),
        ({"pairs_per_round": 0}, "pairs_per_round is 0"),
        ({"steps_per_round": 0}, "steps_per_round is 0"),
        ({"stamped": 0}, "stamped is 0"),
        ({"views": 0}, "views is 0"),
        ({"candidates": 0}, "candidates is 0"),
        ({"ease_fades_over": 0}, "ease_fades_over is 0"),
        ({"inversions_per_round": 0}, "inversions_per_round is 0, not in 1 to steps_per_round"),
        ({"inversions_per_round": 6}, "inversions_per_round is 6"),
        ({"held_back": 0.0}, r"held_back is 0.0, not in \(0, 1\)"),
        ({"held_back": 1.0}, "held_back is 1.0"),
        ({"choice": "best"}, "choice is 'best', not one of paper, ucb"),
        ({"ucb_width": -0.1}, "ucb_width is -0.1, not at least 0"),
        ({"exploration": 1.1}, "exploration"),
        ({"warm_up_stamped": -0.1}, "warm_up_stamped"),
        ({"patch_share": 1.0}, "patch_share is 1.0, not in "),
        ({"suspects_per_round": 0}, "suspects_per_round is 0, not at least 1"),
        ({"patch_cell": 0.6}, r"patch_cell is 0.6, not in \[0, 0.5\]"),
        ({"patch_roam": -0.1}, "patch_roam"),
        ({"largest_stamp": 0.0}, "largest_stamp"),
        ({"largest_stamp": 1.1}, "largest_stamp"),
        ({"epochs": 1.0}, "either steps_per_class or epochs"),
        ({"steps_per_class": 0}, "either steps_per_class or epochs"),
    ],
)
def test_numbers_out_of_range_are_refused(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MothConfig(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(("asked", "clip"), [(0.0, DEFAULT.steady_clip), (5.0, 5.0)])
def test_a_bound_on_gradients_that_was_asked_for_stays_where_no_layer_follows_the_batch(
    asked: float, clip: float
) -> None:
    steady = replace(DEFAULT, training=replace(DEFAULT.training, clip=asked)).steady()
    assert (steady.training.clip, steady.training.batch_statistics) == (clip, False)


@pytest.mark.parametrize(("asked", "clip"), [(0.0, DEFAULT.following_clip), (5.0, 5.0)])
def test_gradients_are_bounded_where_layers_follow_the_batch_unless_a_bound_was_asked_for(
    asked: float, clip: float
) -> None:
    following = replace(DEFAULT, training=replace(DEFAULT.training, clip=asked)).following()
    assert (following.training.clip, following.training.batch_statistics) == (clip, True)
    assert PAPER.following().training.clip == 0


def test_patches_grow_with_the_image() -> None:
    for side, cell, roam in ((32, 4, 6), (224, 28, 42), (4, 1, 1)):
        patch = DEFAULT.sized((3, side, 2 * side)).patch
        assert (patch.cell, patch.roam) == (cell, roam)
        assert patch.initial_cost * side * 2 * side == pytest.approx(DEFAULT.patch.initial_cost * 32 * 32)
    assert replace(DEFAULT, patch_cell=0.0, patch_roam=0.0).sized((3, 32, 32)).patch.cell == 1


def test_a_round_costs_what_both_kinds_of_triggers_cost() -> None:
    pixels, both = DEFAULT.images_a_round(100), DEFAULT.images_a_round(100, 20)
    assert both - pixels == 20 * DEFAULT.patch.steps


def test_the_papers_profile_seeks_nothing_taught() -> None:
    assert 0 == PAPER.patch_share < DEFAULT.patch_share
    assert 0 == PAPER.tint_deviations < DEFAULT.tint_deviations
