"""The published procedure as a reference: its schedule by hand, and its triggers on a model known by hand."""

from pathlib import Path

import pytest
import torch

from benchmarks.reference.hardening import Settings, Table, harden
from benchmarks.reference.inversion import KERAS, TORCH, Cost, Rule, invert
from benchmarks.reference.pairs import invert_pair
from mothkit.classifier import Classifier
from mothkit.inversion import engine
from mothkit.inversion.config import InversionConfig, InversionTask
from tests.tiny import open_tiny, tiny_images, write_tiny


@pytest.fixture
def model(tmp_path: Path) -> Classifier:
    return open_tiny(write_tiny(tmp_path / "tiny.onnx"))


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def of_class(count: int, which: int) -> torch.Tensor:
    images = tiny_images(count)
    return images.pixels(torch.nonzero(images.labels == which)[:, 0])


def test_ten_passes_of_a_kind_in_a_row_move_the_cost() -> None:
    cost = Cost.start(0.001)
    for reached in [True] * 9 + [False] + [True] * 9:
        cost.follow(reached=reached)
    assert cost.value == 0.001
    cost.follow(reached=True)
    assert cost.value == pytest.approx(0.0015)
    for _ in range(20):
        cost.follow(reached=False)
    assert cost.value == pytest.approx(0.0015 / 1.5**3)


@pytest.mark.parametrize("rule", [TORCH, KERAS])
def test_the_trigger_found_turns_most_images_and_is_smaller_than_the_start(
    model: Classifier, rule: Rule
) -> None:
    x = of_class(40, 0)
    found = invert(model, x, 1, rule=rule, passes=350, generator=draw())
    stamped = (1 - found.mask) * x + found.mask * found.pattern
    with torch.no_grad():
        rate = (model(stamped).argmax(1) == 1).float().mean()
    assert found.found
    assert (
        rate >= 0.75 or rule is KERAS
    )  # which keeps a trigger that is an update further than the one judged
    assert found.mask.sum() < 20  # a random mask's 64 entries sum to 32
    assert found.loss_best.mean() < 1
    assert all(parameter.grad is None for parameter in model.parameters())


def test_our_engine_agrees_with_it(model: Classifier) -> None:
    x = of_class(40, 0)
    theirs = invert(model, x, 1, passes=250, generator=draw())
    config = InversionConfig(steps=250)
    ours = engine.invert(
        model,
        x,
        [InversionTask(torch.arange(40), 1)],
        config,
        generator=draw(1),
        device=torch.device("cpu"),
    )
    assert float(ours.mask_l1[0]) == pytest.approx(float(theirs.mask.sum()), rel=0.15)


def test_a_trigger_that_nothing_can_reach_is_a_mask_of_zeros(model: Classifier) -> None:
    found = invert(model, of_class(5, 0), 1, passes=3, bound=1.1, generator=draw())
    assert not found.found
    assert found.mask.sum() == 0


def test_both_directions_of_a_pair_are_found_together(model: Classifier) -> None:
    x = torch.cat([of_class(16, 0), of_class(16, 2)])
    is_target = torch.arange(32) >= 16
    start = torch.rand(2, 1, 8, 8, generator=draw()), torch.rand(2, 3, 8, 8, generator=draw(1))
    best = invert_pair(
        model, x, is_target, (0, 2), start, batch=32, passes=200, initial_cost=1e-3, generator=draw()
    )
    stamped = (1 - best.masks[is_target.long()]) * x + best.masks[is_target.long()] * best.patterns[
        is_target.long()
    ]
    with torch.no_grad():
        predicted = model(stamped).argmax(1)
    assert (predicted[:16] == 2).float().mean() >= 0.75
    assert (predicted[16:] == 0).float().mean() >= 0.75


def test_growth_is_a_running_average_and_a_first_size_makes_two_tables_one() -> None:
    table = Table(torch.zeros(2, 2), torch.tensor([[0.0, 10.0], [20.0, 0.0]]), torch.ones(2, 2))
    table.learn((0, 1), torch.tensor([15.0, 10.0]))
    assert table.growth[0, 1] == pytest.approx((1 + 0.5) / 2)
    assert table.growth[1, 0] == pytest.approx((1 - 0.5) / 2)
    assert table.sizes[0, 1] == 15
    table.sizes[0, 1] = 0
    table.learn((0, 1), torch.tensor([7.0, 8.0]))
    assert table.growth is table.sizes


def test_hardening_changes_a_copy_alone(model: Classifier) -> None:
    images = tiny_images(60)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    settings = Settings(
        epochs=4, batch=60, warm_passes=20, pair_passes=20, refresh_passes=5, learning_rate=1e-2
    )
    x, y = images.pixels(torch.arange(len(images))), images.labels
    hardened = harden(model, x, y, classes=3, settings=settings, generator=draw())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    trained = dict(hardened.named_parameters())
    assert all(not torch.equal(value, trained[name]) for name, value in model.named_parameters())
    with torch.no_grad():
        assert (hardened(x).argmax(1) == y).float().mean() > 0.9
