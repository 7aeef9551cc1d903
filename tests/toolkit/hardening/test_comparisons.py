"""The methods that MOTH is compared with: all pairs, and one trigger a target."""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mothkit.classifier import Classifier
from mothkit.events import Event, StepDone
from mothkit.hardening import inverting
from mothkit.hardening.base import Budget, Defence, Hardened
from mothkit.hardening.checkpoint import Checkpoint
from mothkit.hardening.pairwise import Pairwise
from mothkit.hardening.profiles import MothConfig
from mothkit.hardening.training import Sampler, TrainingConfig
from mothkit.hardening.universal import Universal
from mothkit.inversion.config import InversionConfig, InversionTask
from mothkit.inversion.engine import invert
from mothkit.inversion.found import Inverted
from tests.tiny import tiny_images

SMALL = MothConfig(
    steps_per_class=6,
    training=TrainingConfig(batch_size=24, learning_rate=0.01),
    warm_up=InversionConfig(steps=10),
    warm_up_images=4,
    inversion=InversionConfig(steps=10, initial_cost=0.02, patience=3, start_margin=0.01),
    inversion_images=7,
    pairs_per_round=1,
    steps_per_round=5,
    stamped=1,
    views=1,
    candidates=2,
)
IMAGES = tiny_images(40)


def harden(method: Defence, classifier: Classifier, checkpoint: Checkpoint | None = None) -> Hardened:
    return method.harden(
        classifier,
        IMAGES,
        generator=torch.Generator().manual_seed(0),
        device=torch.device("cpu"),
        emit=lambda _: None,
        budget=Budget(max_accuracy_drop=100),
        checkpoint=checkpoint,
    )


def weights(hardened: Hardened) -> dict[str, bytes]:
    assert hardened.classifier is not None
    return {
        name: each.contiguous().numpy().tobytes() for name, each in hardened.classifier.state_dict().items()
    }


Rounds = list[list[tuple[int, int, Tensor]]]


@pytest.fixture
def inverted(monkeypatch: pytest.MonkeyPatch) -> Rounds:
    """What each inversion was asked for: target, number of images, and the values of a trigger it started from."""
    told: Rounds = []

    def spy(
        model: Classifier, pool: Tensor, tasks: list[InversionTask], *args: object, **given: object
    ) -> Inverted:
        start = given["start"]
        masks = [torch.empty(0)] * len(tasks) if start is None else list(start[0])  # type: ignore[index]
        told.append([(t.target_class, len(t.indices), m) for t, m in zip(tasks, masks, strict=True)])
        return invert(model, pool, tasks, *args, **given)  # type: ignore[arg-type]

    monkeypatch.setattr(inverting, "invert", spy)
    return told


def test_pairwise_inverts_every_direction_in_every_round(classifier: Classifier, inverted: Rounds) -> None:
    hardened = harden(Pairwise(SMALL), classifier)
    rounds = inverted[1:]  # the first is the warm-up
    assert len(rounds) == hardened.details["rounds"] == 3
    for told in rounds:
        assert sorted(target for target, _, _ in told) == [0, 0, 1, 1, 2, 2]
        assert {images for _, images, _ in told} == {7}
    assert hardened.details["pairs_visited"] == [[0, 1, 3], [0, 2, 3], [1, 2, 3]]


def test_universal_inverts_one_trigger_a_target_on_all_other_classes(
    classifier: Classifier, inverted: Rounds
) -> None:
    hardened = harden(Universal(SMALL), classifier)
    assert [[(target, images) for target, images, _ in told] for told in inverted] == [
        [(0, 8), (1, 8), (2, 8)]  # four images of two classes
    ] * 4
    assert hardened.details["pairs_visited"] == [[0, 1, 3], [0, 2, 3], [1, 2, 3]]
    sizes = {(s, t): size for s, t, size in hardened.details["last_mask_l1"]}
    assert len(sizes) == 6
    assert sizes[0, 2] == sizes[1, 2]  # one trigger, whatever the source
    for before, after in itertools.pairwise(inverted[1:]):  # from where the last one stood
        assert all(not torch.equal(b[2], a[2]) for b, a in zip(before, after, strict=True))


@pytest.mark.parametrize("method", [Pairwise(SMALL), Universal(SMALL)], ids=["pairwise", "universal"])
def test_an_interrupted_run_goes_on_to_the_same_weights(
    classifier: Classifier, tmp_path: Path, method: Pairwise | Universal
) -> None:
    class Stopped(Exception):  # noqa: N818 - as KeyboardInterrupt
        """Stands for Ctrl-C."""

    def stop(event: Event) -> None:
        if isinstance(event, StepDone) and event.total == 18 and event.step > 8:
            raise Stopped

    wanted = harden(method, classifier)
    path = tmp_path / "run.checkpoint"
    with pytest.raises(Stopped):
        method.harden(
            classifier,
            IMAGES,
            generator=torch.Generator().manual_seed(0),
            device=torch.device("cpu"),
            emit=stop,
            budget=Budget(max_accuracy_drop=100),
            checkpoint=Checkpoint(path, "this run", every=0),
        )
    again = harden(method, classifier, Checkpoint(path, "this run", resume=True))
    assert weights(again) == weights(wanted)
    assert again.details == wanted.details


def test_a_batch_is_stamped_up_to_its_share(classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    """Universal would stamp 2 images of each of 3 triggers on a batch of 24; 4 of them are allowed here."""
    stamped: list[int] = []
    batch = Sampler.batch

    def spy(self: Sampler, stamps: list[object]) -> object:
        drawn = batch(self, stamps)  # type: ignore[arg-type]
        stamped.append(int((drawn.x != drawn.unstamped).flatten(1).any(1).sum()))
        assert len(drawn.x) == 24
        return drawn

    monkeypatch.setattr(Sampler, "batch", spy)
    config = replace(SMALL, warm_up_stamped=0.0, largest_stamp=1.0)
    harden(Universal(replace(config, most_stamped=4 / 24)), classifier)
    assert max(stamped) == 4
    stamped.clear()
    harden(Universal(config), classifier)
    assert max(stamped) == 6
