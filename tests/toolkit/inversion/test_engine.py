"""The smallest triggers of these models are known by hand.

``Pixel`` says class 1 where one channel of one pixel is above one half, so a trigger must lift that pixel. For an
image with value v there, a pattern of 1 needs a mask of more than (0.5 - v) / (1 - v), and nothing elsewhere.
"""

from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mothkit.errors import ConfigError, ShapeError
from mothkit.events import Event, StepDone
from mothkit.inversion import search
from mothkit.inversion.config import InversionConfig, InversionTask
from mothkit.inversion.engine import frozen, invert
from mothkit.inversion.found import Inverted
from mothkit.inversion.plan import Plan
from mothkit.inversion.search import falling, hardest
from mothkit.inversion.shapes import draw_shifts, in_cells, shifted
from mothkit.inversion.state import State
from mothkit.triggers.patch import blend

CPU = torch.device("cpu")
ROW, COLUMN, SIDE = 2, 3, 6
TOLERANCE = 0.03  # pixels of mask above the analytic minimum


class Pixel(nn.Module):
    """Class 1 where channel 0 of one pixel is above ``threshold``."""

    def __init__(self, row: int = ROW, column: int = COLUMN, threshold: float = 0.5) -> None:
        super().__init__()
        self.row, self.column, self.threshold = row, column, threshold

    def forward(self, x: Tensor) -> Tensor:
        score = 20 * (x[:, 0, self.row, self.column] - self.threshold)
        return torch.stack([torch.zeros_like(score), score], dim=1)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pool(count: int, value: float = 0.0, *, channels: int = 3) -> Tensor:
    """Noise everywhere but at the pixel that counts."""
    x = torch.rand(count, channels, SIDE, SIDE, generator=seeded(9))
    x[:, 0, ROW, COLUMN] = value
    return x


def task(first: int, last: int, target: int = 1) -> InversionTask:
    return InversionTask(torch.arange(first, last), target)


def run(model: nn.Module, x: Tensor, tasks: list[InversionTask], seed: int = 0, **numbers: Any) -> Inverted:
    config = InversionConfig(**({"steps": 400} | numbers))
    return invert(model, x, tasks, config, generator=seeded(seed), device=CPU)


def convolution(seed: int = 0) -> nn.Module:
    """A random network with batch normalisation and dropout; 3 classes."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = (
            nn.Conv2d(3, 8, 3),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Flatten(),
            nn.Linear(128, 3),
        )
        return nn.Sequential(*layers).eval()


# -- the smallest trigger -------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_the_smallest_trigger_is_found_at_its_place_and_size(channels: int) -> None:
    found = run(Pixel(), pool(40, channels=channels), [task(0, 40)])
    assert found.found.tolist() == [True]
    assert found.success_rate.tolist() == [1.0]
    mask, pattern = found.masks[0, 0], found.patterns[0]
    assert divmod(int(mask.argmax()), SIDE) == (ROW, COLUMN)
    assert 0.5 < float(mask[ROW, COLUMN]) < 0.5 + TOLERANCE
    assert 0.5 < float(found.mask_l1) < 0.5 + TOLERANCE
    assert float(found.mask_l1) == pytest.approx(float(mask.sum()), abs=1e-6)
    assert float(mask[ROW, COLUMN] * pattern[0, ROW, COLUMN]) > 0.5


@pytest.mark.parametrize(("success_rate", "minimum"), [(0.9, (0.5 - 0.25) / 0.75), (0.95, 0.5)])
def test_a_trigger_need_not_work_on_more_images_than_asked(success_rate: float, minimum: float) -> None:
    x = pool(20, 0.25)
    x[:2, 0, ROW, COLUMN] = 0  # these two, a tenth, need the larger mask
    found = run(Pixel(), x, [task(0, 20)], success_rate=success_rate)
    assert minimum < float(found.mask_l1) < minimum + TOLERANCE
    assert float(found.success_rate) == pytest.approx(0.9 if success_rate == 0.9 else 1.0)


def test_images_that_need_not_turn_do_not_pull(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trigger goes as if the hardest tenth were not there."""
    monkeypatch.setattr(search, "_SPARE_AFTER", 0.0)
    x, start = pool(20, 0.4), (torch.full((1, 1, SIDE, SIDE), 0.3), torch.full((1, 3, SIDE, SIDE), 0.4))
    x[:2, 0, ROW, COLUMN] = 0  # the hardest
    config = InversionConfig(steps=5, success_rate=1.0)

    def moved(first: int, spare: float) -> Tensor:
        config_ = replace(config, spare=spare)
        tasks = [task(first, 20)]
        return invert(Pixel(), x, tasks, config_, generator=seeded(), device=CPU, start=start).masks

    assert torch.allclose(moved(0, 0.1), moved(2, 0.0), atol=1e-5)
    assert not torch.allclose(moved(0, 0.0), moved(2, 0.0), atol=1e-3)


def test_the_hardest_are_counted_among_valid_images_alone() -> None:
    losses = torch.tensor([[5.0, 1.0, 4.0, 2.0, 3.0], [9.0, 1.0, 2.0, 8.0, 7.0]])
    valid = torch.tensor([[True] * 5, [True, True, True, False, False]])
    spared = hardest(losses, valid, torch.tensor([0.4, 0.4]))
    assert spared.tolist() == [[True, False, True, False, False], [True, False, False, False, False]]
    assert not hardest(losses, valid, torch.zeros(2)).any()


def test_the_learning_rate_falls_to_a_tenth_once_a_search_settles() -> None:
    done = torch.tensor([0.0, 0.5, 0.75, 1.0])
    assert falling(done, 0.5).tolist() == pytest.approx([1.0, 1.0, 0.55, 0.1])
    assert falling(done, 1.0).tolist() == [1.0] * 4


def test_tasks_with_different_images_and_counts_each_find_their_own() -> None:
    """The shorter tasks must not go on shrinking while the longer one works through its images."""
    x = torch.cat([pool(3, 0.0), pool(100, 0.25), pool(35, 0.4)])
    found = run(Pixel(), x, [task(0, 3), task(3, 103), task(103, 138)])
    assert found.found.all()
    for size, value in zip(found.mask_l1.tolist(), (0.0, 0.25, 0.4), strict=True):
        assert (0.5 - value) / (1 - value) < size < (0.5 - value) / (1 - value) + TOLERANCE
    assert [len(loss) for loss in found.loss_end] == [3, 100, 35]


def test_a_short_task_moves_as_it_would_alone() -> None:
    """One pass of the long task has four updates, one of the short task has one."""
    x, start = pool(103), (torch.full((2, 1, SIDE, SIDE), 0.5), torch.full((2, 3, SIDE, SIDE), 0.5))
    alone = (start[0][:1], start[1][:1])
    config = InversionConfig(steps=5, success_rate=1.0, initial_cost=0.1)
    both = invert(Pixel(), x, [task(0, 3), task(3, 103)], config, generator=seeded(), device=CPU, start=start)
    one = invert(Pixel(), x, [task(0, 3)], config, generator=seeded(), device=CPU, start=alone)
    assert not one.found.any()
    assert torch.allclose(both.masks[0], one.masks[0], atol=1e-5)
    assert torch.allclose(both.patterns[0], one.patterns[0], atol=1e-5)


def test_an_impossible_target_is_reported_as_not_found() -> None:
    found = run(Pixel(threshold=1.5), pool(10), [task(0, 10), task(0, 10, target=0)], steps=40)
    assert found.found.tolist() == [False, True]
    assert found.success_rate.tolist() == [0.0, 1.0]
    assert float(found.mask_l1[0]) == pytest.approx(float(found.masks[0].sum()))  # the last one tried
    assert found.trigger(0).mask_l1 > 0


# -- what is reported -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_rates_losses_and_sizes_are_those_of_the_reported_trigger(seed: int) -> None:
    model, x = convolution(seed), torch.rand(60, 3, SIDE, SIDE, generator=seeded(seed))
    tasks = [InversionTask(torch.randperm(60, generator=seeded(k))[: 15 * k], k % 3) for k in (1, 2, 3, 4)]
    found = run(model, x, tasks, seed, steps=60, images_per_update=7)
    assert found.found.any()
    for k, each in enumerate(tasks):
        mask, pattern = found.masks[k], found.patterns[k]
        assert 0 <= mask.min() <= mask.max() <= 1
        assert 0 <= pattern.min() <= pattern.max() <= 1
        with torch.no_grad():
            logits = torch.cat(
                [model((1 - mask) * x[i : i + 1] + mask * pattern) for i in each.indices.tolist()]
            )
        hits = sum(int(row.argmax()) == each.target_class for row in logits)
        assert float(found.success_rate[k]) == pytest.approx(hits / len(each.indices))
        assert bool(found.found[k]) == (hits / len(each.indices) >= 0.9)
        wanted = cross_entropy(logits, torch.full((len(logits),), each.target_class), reduction="none")
        assert torch.allclose(found.loss_end[k], wanted, atol=1e-4)
        assert float(found.mask_l1[k]) == pytest.approx(float(mask.sum()), rel=1e-5)
        assert torch.equal(found.trigger(k).mask, mask)


def test_losses_at_the_start_are_those_of_the_start() -> None:
    model, x = convolution(), torch.rand(20, 3, SIDE, SIDE, generator=seeded())
    mask, pattern = torch.rand(1, 1, SIDE, SIDE), torch.rand(1, 3, SIDE, SIDE)
    config = InversionConfig(steps=3, start_margin=0.2)
    found = invert(model, x, [task(0, 20, 2)], config, generator=seeded(), device=CPU, start=(mask, pattern))
    mask, pattern = mask.clamp(0.2, 0.8), pattern.clamp(0.2, 0.8)
    with torch.no_grad():
        logits = model((1 - mask) * x + mask * pattern)
    wanted = cross_entropy(logits, torch.full((20,), 2), reduction="none")
    assert torch.allclose(found.loss_start[0], wanted, atol=1e-4)


def test_a_warm_start_goes_on_from_where_it_was() -> None:
    mask, pattern = torch.full((1, 1, SIDE, SIDE), 0.001), torch.ones(1, 3, SIDE, SIDE)
    mask[0, 0, ROW, COLUMN] = 0.55
    size, before = float(mask.sum()), mask.clone()
    config = InversionConfig(steps=10)
    given = {"generator": seeded(), "device": CPU, "start": (mask, pattern)}
    found = invert(Pixel(), pool(20), [task(0, 20)], config, cost=torch.tensor([0.7]), **given)
    assert found.found.all()
    assert 0.5 < float(found.mask_l1) <= size
    assert float(found.cost) in (pytest.approx(0.7), pytest.approx(0.7 * 1.5), pytest.approx(0.7 / 1.5**1.5))
    assert torch.equal(mask, before)


def test_a_start_at_the_flat_end_of_tanh_can_move_again_with_a_margin() -> None:
    start = (torch.zeros(1, 1, SIDE, SIDE), torch.zeros(1, 3, SIDE, SIDE))
    for margin, wanted in ((0.0, False), (0.01, True)):
        config = InversionConfig(steps=30, start_margin=margin, initial_cost=1e-4)
        found = invert(Pixel(), pool(10), [task(0, 10)], config, generator=seeded(), device=CPU, start=start)
        assert found.found.tolist() == [wanted]


# -- repeatable, in any grouping ------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others() -> None:
    model, x = convolution(), torch.rand(30, 3, SIDE, SIDE, generator=seeded())
    tasks = [task(0, 30, 0), task(5, 20, 1)]
    one, two, other = (run(model, x, tasks, seed, steps=25) for seed in (4, 4, 5))
    for each in fields(Inverted):
        a, b = getattr(one, each.name), getattr(two, each.name)
        assert all(torch.equal(p, q) for p, q in zip(a, b, strict=True))
    assert not torch.equal(one.masks, other.masks)


@pytest.mark.parametrize("images_per_forward", [1, 40, 64, 1000])
def test_triggers_are_found_however_many_share_a_forward_pass(images_per_forward: int) -> None:
    largest = 0

    class Counting(Pixel):
        def forward(self, x: Tensor) -> Tensor:
            nonlocal largest
            largest = max(largest, len(x))
            return super().forward(x)

    x = torch.cat([pool(20, 0.0), pool(20, 0.25), pool(20, 0.4)])
    tasks = [task(40, 60), task(0, 20), task(20, 40)]
    found = run(Counting(), x, tasks, steps=300, images_per_forward=images_per_forward)
    assert found.found.all()
    for size, value in zip(found.mask_l1.tolist(), (0.4, 0.0, 0.25), strict=True):
        assert (0.5 - value) / (1 - value) < size < (0.5 - value) / (1 - value) + 0.1
    assert largest == {1: 20, 40: 40, 64: 60, 1000: 60}[images_per_forward]


def test_progress_is_told_every_tenth_step_and_reaches_its_total() -> None:
    told: list[Event] = []
    config = InversionConfig(steps=25, images_per_forward=1)
    invert(Pixel(), pool(4), [task(0, 4)] * 2, config, generator=seeded(), device=CPU, emit=told.append)
    assert all(isinstance(event, StepDone) and event.total == 50 for event in told)
    assert [event.step for event in told if isinstance(event, StepDone)] == [10, 20, 25, 35, 45, 50]


# -- nothing of the caller's changes --------------------------------------------------------------------------


def everything(model: nn.Module) -> list[object]:
    flags = [module.training for module in model.modules()]
    wanted = [parameter.requires_grad for parameter in model.parameters()]
    gradients = [parameter.grad for parameter in model.parameters()]
    return [
        flags,
        wanted,
        gradients,
        {name: t.clone().numpy().tobytes() for name, t in model.state_dict().items()},
    ]


def mixed_modes() -> nn.Module:
    model = convolution().train()
    model[3].eval()
    model[0].weight.requires_grad_(False)
    return model


def test_the_model_and_the_pool_are_left_as_they_were() -> None:
    model, x = mixed_modes(), torch.rand(20, 3, SIDE, SIDE, generator=seeded())
    before, pixels = everything(model), x.clone()
    run(model, x, [task(0, 20)], steps=12)
    assert everything(model) == before
    assert torch.equal(x, pixels)


def test_inversion_sees_frozen_statistics_and_no_dropout() -> None:
    trained = convolution().train()
    x = torch.rand(20, 3, SIDE, SIDE, generator=seeded())
    one, two = (run(model, x, [task(0, 20)], steps=12) for model in (trained, convolution().eval()))
    assert torch.equal(one.masks, two.masks)


def test_the_model_is_left_as_it_was_when_the_work_is_broken_off() -> None:
    model = mixed_modes()
    before = everything(model)

    def stop(_event: Event) -> None:
        raise KeyboardInterrupt

    x = torch.rand(20, 3, SIDE, SIDE, generator=seeded())
    with pytest.raises(KeyboardInterrupt):
        invert(model, x, [task(0, 20)], InversionConfig(), generator=seeded(), device=CPU, emit=stop)
    assert everything(model) == before
    with pytest.raises(RuntimeError), frozen(model) as cold:
        assert not any(module.training for module in cold.modules())
        assert not any(parameter.requires_grad for parameter in cold.parameters())
        raise RuntimeError
    assert everything(model) == before


def test_a_pass_keeps_no_graph_of_the_passes_before() -> None:
    tasks = search.Tasks.pack([task(0, 10)], CPU)
    state = State.start(torch.rand(1, 4, SIDE, SIDE), torch.tensor([1e-3]))
    after = search._step(Pixel(), pool(10), tasks, state, InversionConfig(), Plan(64, "float32"), seeded())
    assert not any(getattr(each, f.name).requires_grad for each in (state, after) for f in fields(State))


# -- refusals -------------------------------------------------------------------------------------------------


def test_no_tasks_are_refused() -> None:
    with pytest.raises(ConfigError, match="no triggers to invert"):
        run(Pixel(), pool(4), [])


def run_from(**given: Any) -> Inverted:
    config = InversionConfig(steps=1)
    return invert(Pixel(), pool(4), [task(0, 4)] * 2, config, generator=seeded(), device=CPU, **given)


@pytest.mark.parametrize(("count", "height"), [(1, SIDE), (3, SIDE), (2, SIDE - 1)])
def test_a_start_that_does_not_fit_is_refused(count: int, height: int) -> None:
    shape = rf"shape \({count}, 4, {height}, 6\), expected \(2, 4, 6, 6\): mask, then colours"
    with pytest.raises(ShapeError, match=shape):
        run_from(start=(torch.zeros(count, 1, height, SIDE), torch.zeros(count, 3, height, SIDE)))


@pytest.mark.parametrize("count", [1, 3])
def test_costs_of_another_count_are_refused(count: int) -> None:
    with pytest.raises(ShapeError, match=rf"start costs have shape \({count},\), expected \(2,\)"):
        run_from(cost=torch.ones(count))


# -- triggers that come and go --------------------------------------------------------------------------------


class Counted(nn.Module):
    """A model that counts the images it is asked about."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.images, self.largest = model, 0, 0

    def forward(self, x: Tensor) -> Tensor:
        self.images, self.largest = self.images + len(x), max(self.largest, len(x))
        return self.model(x)


def test_tasks_wait_until_there_is_room_and_each_is_found() -> None:
    x = torch.cat([pool(10, value) for value in (0.0, 0.1, 0.2, 0.3, 0.4)])
    tasks = [task(10 * k, 10 * k + 10) for k in range(5)]
    model = Counted(Pixel())
    config = InversionConfig(steps=300, images_per_forward=20, stall=60)
    found = invert(model, x, tasks, config, generator=seeded(), device=CPU)
    smallest = [(0.5 - value) / (1 - value) for value in (0.0, 0.1, 0.2, 0.3, 0.4)]
    assert bool(found.found.all())
    assert model.largest <= 20
    for size, least in zip(found.mask_l1.tolist(), smallest, strict=True):
        assert least <= size <= least + 0.1


def test_a_search_without_news_ends_early_and_no_worse() -> None:
    x, config = pool(32), {"steps": 1200, "control": "updates", "initial_cost": 0.02}
    whole, cut = Counted(Pixel()), Counted(Pixel())
    long, short = run(whole, x, [task(0, 32)], **config), run(cut, x, [task(0, 32)], stall=80, **config)
    assert cut.images < 0.7 * whole.images
    assert float(short.mask_l1) <= 1.1 * float(long.mask_l1)


class EitherPixel(nn.Module):
    """Class 1 where one pixel is above 0.6 or another above 0.2; the gradient sees only the one that is ahead."""

    def forward(self, x: Tensor) -> Tensor:
        score = 20 * torch.maximum(x[:, 0, ROW, COLUMN] - 0.6, x[:, 0, 0, 0] - 0.2)
        return torch.stack([torch.zeros_like(score), score], dim=1)


def test_the_smallest_of_several_starts_goes_on() -> None:
    x, events = pool(16), list[Event]()
    x[:, 0, 0, 0] = 0
    config = InversionConfig(steps=240, control="updates", initial_cost=0.02, restart_noise=0)

    def sizes(starts: int) -> Tensor:
        several = replace(config, starts=starts)
        found = invert(
            EitherPixel(), x, [task(0, 16)] * 8, several, generator=seeded(), device=CPU, emit=events.append
        )
        assert found.found.all()
        return found.mask_l1

    assert float(sizes(1).max()) > 0.5  # some starts lead to the larger trigger
    events.clear()
    assert float(sizes(6).max()) < 0.25
    steps = [event.step for event in events if isinstance(event, StepDone)]
    assert steps == sorted(steps)
    assert steps[-1] == 8 * (6 * 40 + 200)


def test_a_search_of_one_step_has_one_start() -> None:
    found = run(Pixel(), pool(4), [task(0, 4)], steps=1, starts=3)
    assert torch.equal(found.masks, run(Pixel(), pool(4), [task(0, 4)], steps=1).masks)


@pytest.mark.parametrize("seed", range(3))
def test_a_cost_that_follows_every_update_needs_fewer_steps(seed: int) -> None:
    network, x, tasks = convolution(seed), pool(64), [task(0, 64, t) for t in range(3)]
    slow = run(network, x, tasks, seed, steps=60)
    fast = run(network, x, tasks, seed, steps=60, control="updates", initial_cost=0.02, restart_noise=0.0)
    assert bool(fast.found.all())
    assert bool((fast.success_rate >= 0.9 - 1e-6).all())
    assert float(fast.mask_l1.sum()) < float(slow.mask_l1.sum())


def test_the_linear_loss_is_what_exchanged_arguments_of_cross_entropy_give() -> None:
    scores, wanted = torch.randn(50, 7, generator=seeded()), torch.arange(50) % 7
    label = torch.nn.functional.one_hot(wanted, 7).clamp(1e-7, 1 - 1e-7)
    exchanged = -(scores.softmax(1) * label.log()).sum(1)
    found = search._pull(scores, wanted, "linear")
    torch.testing.assert_close(found, exchanged, rtol=1e-4, atol=1e-4)


def test_progress_reaches_its_end_whatever_ends_early() -> None:
    events: list[Event] = []
    config = InversionConfig(steps=200, stall=20, images_per_forward=20)
    tasks = [task(0, 10), task(10, 20), task(20, 30)]
    invert(Pixel(), pool(30), tasks, config, generator=seeded(), device=CPU, emit=events.append)
    steps = [event.step for event in events if isinstance(event, StepDone)]
    assert steps == sorted(steps)
    assert steps[-1] == 600


class BrightSomewhere(nn.Module):
    """Class 1 where channel 0 of one pixel, wherever it is, is above one half, and where that of ``Pixel`` is."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = weight  # of the brightest pixel; the pixel at its place counts 1

    def forward(self, x: Tensor) -> Tensor:
        anywhere = x[:, 0].flatten(1).max(1).values
        score = 20 * (torch.maximum(self.weight * anywhere, x[:, 0, ROW, COLUMN]) - 0.5)
        return torch.stack([torch.zeros_like(score), score], dim=1)


def test_a_trigger_of_cells_is_constant_on_each_and_as_large_as_that_asks() -> None:
    found = run(Pixel(), pool(12), [task(0, 12)], cell=2, steps=600)
    values = torch.cat([found.masks, found.patterns], dim=1)
    assert bool(found.found.all())
    assert torch.allclose(in_cells(values, 2), values, atol=1e-6)
    alone = run(Pixel(), pool(12), [task(0, 12)], steps=600)
    assert float(found.mask_l1) == pytest.approx(
        4 * float(alone.mask_l1), rel=0.1
    )  # a square of four, not one


@pytest.mark.parametrize("control", ["passes", "updates"])
def test_every_reported_trigger_is_made_of_cells(control: str) -> None:
    for steps in (1, 30):
        found = run(
            Pixel(), pool(12), [task(0, 12)], cell=3, steps=steps, control=control, restart_noise=0.01
        )
        values = torch.cat([found.masks, found.patterns], dim=1)
        assert torch.allclose(in_cells(values, 3), values, atol=1e-6)


def test_a_roaming_trigger_works_wherever_it_lies() -> None:
    """A pixel in the right place is cheapest; whoever is moved about needs what works in all places."""
    model, x = BrightSomewhere(0.7), pool(32) * torch.tensor([0.0, 1.0, 1.0]).view(3, 1, 1)
    shifts = draw_shifts((1, 200), 2, seeded(5))
    rates = []
    for roam in (0, 2):
        found = run(model, x, [task(0, 32)], roam=roam, steps=300)
        moved = shifted(torch.cat([found.masks, found.patterns], dim=1), shifts)[0]
        said = model(blend(x[:1].expand(200, -1, -1, -1), moved[:, :1], moved[:, 1:])).argmax(1)
        rates.append(float(said.float().mean()))
    assert rates[0] < 0.5
    assert rates[1] > 0.85


def test_a_roaming_search_is_repeatable() -> None:
    twice = [run(Pixel(), pool(12), [task(0, 12)], roam=1, cell=2, steps=20) for _ in range(2)]
    assert torch.equal(twice[0].masks, twice[1].masks)
    assert torch.equal(twice[0].patterns, twice[1].patterns)
