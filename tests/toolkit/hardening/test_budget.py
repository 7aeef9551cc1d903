"""Time budgets, by a clock that runs as work is done: so many seconds for an image forward and back."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mothkit.classifier import Classifier
from mothkit.events import Event, EventSink, Note, StepDone, silent
from mothkit.hardening import inverting
from mothkit.hardening.base import Budget, Defence, Hardened
from mothkit.hardening.checkpoint import Checkpoint
from mothkit.hardening.moth import Moth
from mothkit.hardening.pairwise import Pairwise
from mothkit.hardening.planning import Extent
from mothkit.hardening.profiles import MothConfig
from mothkit.hardening.selection import DropEstimator
from mothkit.hardening.training import Batch, Trainer, TrainingConfig
from mothkit.hardening.universal import Universal
from mothkit.inversion.config import InversionConfig, InversionTask
from mothkit.inversion.engine import invert
from mothkit.inversion.found import Inverted
from tests.tiny import tiny_images

IMAGES = tiny_images(40)
SMALL = MothConfig(
    steps_per_class=20,
    training=TrainingConfig(batch_size=24, learning_rate=0.01),
    warm_up=InversionConfig(steps=8),
    warm_up_images=30,
    inversion=InversionConfig(steps=4, initial_cost=0.02, patience=3, start_margin=0.01),
    inversion_images=8,
    pairs_per_round=2,
    steps_per_round=4,
    stamped=1,
    views=1,
    candidates=3,
)
PER_IMAGE, JUDGING = 1e-3, 0.05
PROBE = 3 * 32 * 5 * PER_IMAGE
LEAST = 32 * 2 * PER_IMAGE  # one class, 32 images, a quarter of the steps
ROUND = (4 * 8 * 4 + 2 * 24 * 4) * PER_IMAGE


@dataclass
class Machine:
    """Where time passes by work alone; ``pace`` tells how much slower than usual it is by then."""

    time: float = 100.0
    pace: Callable[[float], float] = lambda _: 1.0

    def now(self) -> float:
        return self.time

    def work(self, images: float) -> None:
        self.time += images * PER_IMAGE * self.pace(self.time)

    def judge(self) -> None:
        self.time += JUDGING * self.pace(self.time)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine, step, drop, look = Machine(), Trainer.step, DropEstimator.drop, DropEstimator.__init__

    def inverts(
        model: Classifier, pool: object, tasks: list[InversionTask], config: InversionConfig, **given: object
    ) -> Inverted:
        machine.work(config.steps * sum(len(task.indices) for task in tasks))
        return invert(model, pool, tasks, config, **given)  # type: ignore[arg-type]

    def steps(self: Trainer, batch: Batch) -> float:
        machine.work(2 * len(batch.x))
        return step(self, batch)

    def drops(self: DropEstimator, classifier: Classifier) -> float:
        machine.judge()
        return drop(self, classifier)

    def looks(self: DropEstimator, *args: object, **given: object) -> None:
        machine.judge()
        look(self, *args, **given)  # type: ignore[arg-type]

    monkeypatch.setattr(inverting, "invert", inverts)
    monkeypatch.setattr(Trainer, "step", steps)
    monkeypatch.setattr(DropEstimator, "drop", drops)
    monkeypatch.setattr(DropEstimator, "__init__", looks)
    return machine


def harden(
    classifier: Classifier,
    machine: Machine,
    seconds: float | None = None,
    *,
    steps: int | None = None,
    method: Defence | None = None,
    emit: EventSink = silent,
    checkpoint: Checkpoint | None = None,
) -> Hardened:
    return (method or Moth(SMALL)).harden(
        classifier,
        IMAGES,
        generator=torch.Generator().manual_seed(0),
        device=torch.device("cpu"),
        emit=emit,
        budget=Budget(steps=steps, seconds=seconds, max_accuracy_drop=100, now=machine.now),
        checkpoint=checkpoint,
    )


def weights(hardened: Hardened) -> dict[str, bytes]:
    assert hardened.classifier is not None
    state = hardened.classifier.state_dict()
    return {name: tensor.contiguous().numpy().tobytes() for name, tensor in state.items()}


def notes() -> tuple[list[str], EventSink]:
    told: list[str] = []

    def emit(event: Event) -> None:
        if isinstance(event, Note):
            told.append(event.text)

    return told, emit


# -- what fits ------------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(
    targets=st.integers(1, 1000),
    images=st.integers(1, 9000),
    steps=st.integers(1, 500),
    work=st.floats(0, 1e10),
)
def test_what_is_left_of_a_warm_up_fits_or_is_the_least(
    targets: int, images: int, steps: int, work: float
) -> None:
    whole = Extent(targets, images, steps)
    part = whole.within(work)
    least = Extent(1, min(32, images), -(-steps // 4))
    assert part.work <= max(work, least.work)
    assert (part == whole) is (whole.work <= work or whole == least)
    assert 1 <= part.targets <= targets
    assert least.images <= part.images <= images
    assert least.steps <= part.steps <= steps
    if part.targets < targets:  # classes are the last to go
        assert (part.images, part.steps) == (least.images, least.steps)
    if part.steps < steps:
        assert part.images == least.images


# -- plans ----------------------------------------------------------------------------------------------------


def test_time_enough_changes_nothing(classifier: Classifier, machine: Machine) -> None:
    told, emit = notes()
    assert weights(harden(classifier, machine, 1e6, emit=emit)) == weights(harden(classifier, machine))
    assert told == []


def test_planned_steps_fill_the_time_and_the_step_count_repeats_them(
    classifier: Classifier, machine: Machine
) -> None:
    told, emit = notes()
    began = machine.time
    planned = harden(classifier, machine, 6.5, emit=emit)
    assert 0.8 * 6.5 < machine.time - began <= 6.5
    assert not planned.cut
    assert planned.steps < SMALL.total_steps(len(IMAGES), 3)
    assert told == [
        f"the time budget allows {planned.steps} training steps; --steps {planned.steps} repeats them"
    ]
    assert weights(harden(classifier, machine, steps=planned.steps)) == weights(planned)


@pytest.mark.parametrize("method", [Moth(SMALL), Pairwise(SMALL), Universal(SMALL)])
@pytest.mark.parametrize("seconds", [1e-9, 1.0, 3.0])
def test_no_budget_is_overrun_by_more_than_the_least_piece(
    classifier: Classifier, machine: Machine, method: Defence, seconds: float
) -> None:
    began = machine.time
    hardened = harden(classifier, machine, seconds, method=method)
    least = PROBE + LEAST + 2 * 24 * PER_IMAGE + 2 * JUDGING
    assert machine.time - began <= max(seconds, least)
    if seconds >= least:
        assert hardened.steps > 0
        assert hardened.classifier is not None
        assert hardened.chosen is not None


def test_a_short_time_cuts_the_warm_up_and_says_so(classifier: Classifier, machine: Machine) -> None:
    told, emit = notes()
    hardened = harden(classifier, machine, 1.0, emit=emit)
    assert told[0] == (
        "the time budget allows universal triggers of 1 of 3 classes, made on 32 of 60 images in 2 of 8 steps"
    )
    assert hardened.details["warm_up"] == {"targets": 1, "images": 32, "steps": 2}
    assert not any("--steps" in note for note in told)  # another warm-up cannot be repeated by their number


def test_where_time_is_up_before_the_first_step_there_is_no_result(
    classifier: Classifier, machine: Machine
) -> None:
    hardened = harden(classifier, machine, 1e-9)
    assert (hardened.classifier, hardened.chosen, hardened.candidates) == (None, None, ())
    assert (hardened.cut, hardened.steps) == (True, 0)


def test_a_machine_that_slows_down_gets_fewer_steps_and_ends_its_schedule(
    classifier: Classifier, machine: Machine
) -> None:
    began = machine.time
    machine.pace = lambda now: 1.0 if now < began + 3 else 3.0
    told, emit = notes()
    hardened = harden(classifier, machine, 7.0, emit=emit)
    assert machine.time - began <= 7 + 3 * ROUND
    assert hardened.cut
    assert hardened.details["planned_steps"] == hardened.steps  # so the learning rate fell to its end
    assert "rounds take longer than was planned" in told[-1]
    assert hardened.candidates[-1].step == hardened.steps
    assert hardened.classifier is not None


# -- sittings -------------------------------------------------------------------------------------------------


class Stopped(Exception):  # noqa: N818 - as KeyboardInterrupt
    """Stands for Ctrl-C."""


def stop_after(rounds: int) -> EventSink:
    seen = 0

    def emit(event: Event) -> None:
        nonlocal seen
        if isinstance(event, StepDone) and "pairs" in event.detail:
            seen += 1
            if seen > rounds:
                raise Stopped

    return emit


@pytest.mark.parametrize("seconds", [3.0, 6.5])
def test_an_interrupted_run_goes_on_to_the_same_weights_within_its_budget(
    classifier: Classifier, machine: Machine, tmp_path: Path, seconds: float
) -> None:
    """At 3 s the warm-up is cut too."""
    wanted = harden(classifier, machine, seconds)
    path = tmp_path / "run.checkpoint"
    with pytest.raises(Stopped):
        checkpoint = Checkpoint(path, "this run", every=0)
        harden(classifier, machine, seconds, emit=stop_after(1), checkpoint=checkpoint)
    machine.time = 5000.0  # another day
    again = harden(classifier, machine, seconds, checkpoint=Checkpoint(path, "this run", resume=True))
    assert weights(again) == weights(wanted)
    assert again.details == wanted.details
    assert again.cut == wanted.cut


def test_time_of_earlier_sittings_is_spent(classifier: Classifier, machine: Machine, tmp_path: Path) -> None:
    path = tmp_path / "run.checkpoint"
    began = machine.time
    with pytest.raises(Stopped):
        harden(classifier, machine, 6.5, emit=stop_after(4), checkpoint=Checkpoint(path, "a", every=0))
    first = machine.time - began
    machine.time = began = 5000.0
    machine.pace = lambda _: 10.0
    hardened = harden(classifier, machine, 6.5, checkpoint=Checkpoint(path, "a", resume=True))
    assert hardened.cut
    assert machine.time - began <= 6.5 - first + 10 * (2 * ROUND + JUDGING)
    machine.time, machine.pace = 0.0, lambda _: 1.0
    anew = harden(classifier, machine, first / 2, checkpoint=Checkpoint(path, "a", resume=True))
    assert anew.steps == hardened.steps  # all of that time was spent before
