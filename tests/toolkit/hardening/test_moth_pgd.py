"""MOTH on models that were trained against PGD."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mothkit.classifier import Classifier
from mothkit.events import Event, EventSink, StepDone, silent
from mothkit.hardening import inverting
from mothkit.hardening.base import Budget, Hardened
from mothkit.hardening.checkpoint import Checkpoint
from mothkit.hardening.moth import Moth
from mothkit.hardening.profiles import MothConfig
from mothkit.hardening.training import Batch, Sampler, Stamp, Trainer, TrainingConfig
from mothkit.inversion.config import InversionConfig
from mothkit.inversion.engine import invert
from mothkit.inversion.found import Inverted
from mothkit.triggers.patch import blend
from tests.tiny import tiny_images

EPS = 0.1
CONFIG = MothConfig(
    steps_per_class=4,
    training=TrainingConfig(batch_size=24, learning_rate=0.01),
    warm_up=InversionConfig(steps=4),
    warm_up_images=4,
    inversion=InversionConfig(steps=3, initial_cost=0.02, start_margin=0.01),
    inversion_images=4,
    pairs_per_round=1,
    steps_per_round=4,
    inversions_per_round=1,
    largest_stamp=1.0,
    views=1,
    candidates=1,
    pgd_eps=EPS,
    pgd_steps=3,
    stamped=1,
)
ROUNDING = 1e-6


def harden(
    classifier: Classifier, *, emit: EventSink = silent, checkpoint: Checkpoint | None = None
) -> Hardened:
    return Moth(CONFIG).harden(
        classifier,
        tiny_images(20),
        generator=torch.Generator().manual_seed(0),
        device=torch.device("cpu"),
        emit=emit,
        budget=Budget(max_accuracy_drop=100),
        checkpoint=checkpoint,
    )


def test_all_but_the_stamped_images_of_a_step_are_attacked_and_triggers_see_clean_ones(
    classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[Stamp]] = []
    told: list[int] = []
    pools: set[int] = set()
    step, batch = Trainer.step, Sampler.batch

    def batches(self: Sampler, stamps: list[Stamp]) -> Batch:
        asked.append(list(stamps))
        return batch(self, stamps)

    def steps(self: Trainer, given: Batch) -> float:
        first = 0
        for stamp in asked[-1]:
            rows = slice(first, first + stamp.count)
            wanted = blend(given.unstamped[rows], stamp.mask, stamp.pattern).clamp(0, 1)
            assert torch.equal(given.x[rows], wanted)  # the clean image, stamped
            assert set(given.y[rows].tolist()) <= set(stamp.classes)
            first += stamp.count
        assert given.stamped == first
        moved = (given.x - given.unstamped)[first:].abs()
        assert moved.max() <= EPS + ROUNDING
        assert (moved.flatten(1).max(1).values > EPS / 2).all()
        told.append(first)
        return step(self, given)

    def inverts(model: Classifier, pool: torch.Tensor, *args: object, **given: object) -> Inverted:
        assert torch.allclose(pool * 255, (pool * 255).round(), atol=1e-3)  # bytes still
        pools.add(len(pool))
        return invert(model, pool, *args, **given)  # type: ignore[arg-type]

    monkeypatch.setattr(Sampler, "batch", batches)
    monkeypatch.setattr(Trainer, "step", steps)
    monkeypatch.setattr(inverting, "invert", inverts)
    harden(classifier)
    assert len(told) == 12
    assert set(told) == {12, 2}  # half of a batch in the warm-up, one a direction after it
    assert pools == {24, 8}


def test_an_interrupted_run_goes_on_to_the_same_weights(classifier: Classifier, tmp_path: Path) -> None:
    class Stopped(Exception):  # noqa: N818 - as KeyboardInterrupt
        """Stands for Ctrl-C."""

    def stop(event: Event) -> None:
        if isinstance(event, StepDone) and event.total == 12 and "pairs" in event.detail and event.step > 7:
            raise Stopped

    wanted = harden(classifier)
    path = tmp_path / "run.checkpoint"
    with pytest.raises(Stopped):
        harden(classifier, emit=stop, checkpoint=Checkpoint(path, "this run", every=0))
    again = harden(classifier, checkpoint=Checkpoint(path, "this run", resume=True))
    assert wanted.classifier is not None
    assert again.classifier is not None
    state = wanted.classifier.state_dict()
    assert all(torch.equal(each, state[name]) for name, each in again.classifier.state_dict().items())


def test_an_attack_makes_a_round_dearer() -> None:
    plain = replace(CONFIG, pgd_eps=0.0)
    assert CONFIG.images_a_round(8) - plain.images_a_round(8) == 3 * 24 * 4
