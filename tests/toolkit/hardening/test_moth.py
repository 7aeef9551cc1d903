from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from mothkit.classifier import Classifier
from mothkit.distance import class_distances
from mothkit.errors import ImageError
from mothkit.events import Event, EventSink, Note, PhaseStarted, StepDone, silent
from mothkit.hardening import inverting, patches
from mothkit.hardening.base import Budget, Hardened
from mothkit.hardening.checkpoint import Checkpoint
from mothkit.hardening.inverting import split
from mothkit.hardening.moth import Moth
from mothkit.hardening.pairs import measure_ease
from mothkit.hardening.profiles import MothConfig
from mothkit.hardening.tints import TintStamp
from mothkit.hardening.training import Batch, Sampler, Stamp, TrainingConfig
from mothkit.images import ImageSet
from mothkit.inversion.config import InversionConfig
from mothkit.inversion.engine import invert
from mothkit.inversion.found import Inverted
from tests.tiny import CLASSES, LEADING, OTHER, SIDE, open_tiny, tiny_images

CPU = torch.device("cpu")
SMALL = MothConfig(
    steps_per_class=10,
    training=TrainingConfig(batch_size=24, learning_rate=0.01),
    warm_up=InversionConfig(steps=20),
    warm_up_images=5,
    inversion=InversionConfig(steps=10, initial_cost=0.02, patience=3, start_margin=0.01),
    refresh=InversionConfig(steps=5, initial_cost=0.02, patience=3, start_margin=0.01),
    inversion_images=8,
    pairs_per_round=2,
    steps_per_round=4,
    stamped=1,
    views=1,
    candidates=3,
)
EASY = replace(SMALL.inversion, success_rate=0.4, steps=20)
SUSPICIOUS = replace(SMALL, scout_images=10, scout=EASY, patch=EASY, patch_share=0.999, patch_looks=1)
ANY_DROP = Budget(max_accuracy_drop=100)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def harden(
    classifier: Classifier,
    images: ImageSet,
    config: MothConfig = SMALL,
    *,
    seed: int = 0,
    budget: Budget = ANY_DROP,
    emit: EventSink = silent,
    checkpoint: Checkpoint | None = None,
) -> Hardened:
    return Moth(config).harden(
        classifier,
        images,
        generator=seeded(seed),
        device=CPU,
        emit=emit,
        budget=budget,
        checkpoint=checkpoint,
    )


def weights(classifier: Classifier | None) -> dict[str, bytes]:
    assert classifier is not None
    return {name: tensor.contiguous().numpy().tobytes() for name, tensor in classifier.state_dict().items()}


def accuracy(classifier: Classifier | None, images: ImageSet) -> float:
    assert classifier is not None
    with torch.no_grad():
        return float(
            (classifier(images.pixels(torch.arange(len(images)))).argmax(1) == images.labels).float().mean()
        )


@pytest.fixture(scope="module")
def images() -> ImageSet:
    return tiny_images(40)


# -- what comes back ------------------------------------------------------------------------------------------


def test_a_hardened_copy_comes_back_and_the_original_is_untouched(
    classifier: Classifier, images: ImageSet
) -> None:
    classifier.train()
    before, pixels = weights(classifier), images.digest
    hardened = harden(classifier, images)
    assert weights(classifier) == before
    assert all(module.training for module in classifier.modules())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in classifier.parameters())
    assert images.digest == pixels
    assert hardened.classifier is not None
    assert not any(module.training for module in hardened.classifier.modules())
    assert weights(hardened.classifier) != before
    assert accuracy(hardened.classifier, tiny_images(40, seed=1)) > 0.95


def test_what_is_reported_belongs_to_the_weights_that_come_back(
    classifier: Classifier, images: ImageSet
) -> None:
    hardened = harden(classifier, images)
    assert (hardened.steps, hardened.cut, hardened.seen) == (30, False, (images.digest,))
    assert [candidate.step for candidate in hardened.candidates][-1] == 30
    assert len(hardened.candidates) == 3
    assert all(candidate.step >= 15 for candidate in hardened.candidates)
    assert hardened.chosen is hardened.candidates[-1]
    state = hardened.classifier.state_dict() if hardened.classifier else {}
    assert all(torch.equal(tensor, state[name]) for name, tensor in hardened.chosen.weights.items())
    details = hardened.details
    assert details["config"]["candidates"] == 3
    assert sum(visits for _, _, visits in details["pairs_visited"]) == 2 * details["rounds"]
    assert details["rounds"] == 7  # 30 steps, 3 of them warm-up, 4 a round
    assert details["mirrored"] is True
    assert all(0 < size < SIDE * SIDE for _, _, size in details["last_mask_l1"])


@pytest.mark.parametrize("candidates", [1, 2, 5])
def test_weights_are_judged_as_often_as_asked_over_the_last_half(
    classifier: Classifier, images: ImageSet, candidates: int
) -> None:
    hardened = harden(classifier, images, replace(SMALL, candidates=candidates, steps_per_round=1))
    steps = [candidate.step for candidate in hardened.candidates]
    assert steps == {1: [30], 2: [15, 30], 5: [15, 19, 23, 27, 30]}[candidates]


def test_phases_and_steps_are_told(classifier: Classifier, images: ImageSet) -> None:
    told: list[Event] = []
    harden(classifier, images, emit=told.append)
    phases = [event.name for event in told if isinstance(event, PhaseStarted)]
    assert phases == ["prepare", "warm-up: universal triggers", "harden pairs"]
    after = told[told.index(PhaseStarted("harden pairs", 30)) + 1 :]
    assert [event.step for event in after if isinstance(event, StepDone)] == [7, 11, 15, 19, 23, 27, 30]
    assert not any(isinstance(event, Note) for event in told)


def test_the_weights_of_the_chosen_candidate_come_back_not_the_last_ones(
    classifier: Classifier, images: ImageSet
) -> None:
    chosen_early = 0
    for learning_rate in (0.3, 0.5, 1.0):  # too fast: later weights may well be worse
        training = replace(SMALL.training, learning_rate=learning_rate, schedule="constant", distillation=0.0)
        config = replace(SMALL, candidates=5, training=training)
        lowest = min(candidate.accuracy_drop for candidate in harden(classifier, images, config).candidates)
        bound = Budget(max_accuracy_drop=max(lowest, 0))
        hardened = harden(classifier, images, config, budget=bound)
        fitting = [c for c in hardened.candidates if c.accuracy_drop <= bound.max_accuracy_drop]
        assert hardened.chosen is fitting[-1]
        assert hardened.classifier is not None
        for name, tensor in hardened.classifier.state_dict().items():
            assert torch.equal(tensor, fitting[-1].weights[name])
        chosen_early += hardened.chosen is not hardened.candidates[-1]
    assert chosen_early > 0


# -- the same seed, the same weights --------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(
    classifier: Classifier, images: ImageSet
) -> None:
    one, two, other = (weights(harden(classifier, images, seed=seed).classifier) for seed in (1, 1, 2))
    assert one == two
    assert one != other


class Stopped(Exception):  # noqa: N818 - as KeyboardInterrupt
    """Stands for Ctrl-C."""


def stop_at(step: int) -> EventSink:
    def emit(event: Event) -> None:
        if isinstance(event, StepDone) and event.total == 30 and event.step >= step:
            raise Stopped

    return emit


@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        replace(SMALL, inversions_per_round=4),
        replace(SMALL, carry_cost=True, choice="ucb"),
        replace(SUSPICIOUS, tint_deviations=0.01, tint_strength=1.0),
    ],
    ids=["once a round", "refreshed", "carried cost, ucb", "suspects"],
)
@pytest.mark.parametrize("step", [7, 23])
def test_an_interrupted_run_goes_on_to_the_same_weights(
    classifier: Classifier, images: ImageSet, tmp_path: Path, config: MothConfig, step: int
) -> None:
    wanted = harden(classifier, images, config)
    path = tmp_path / "run.checkpoint"
    with pytest.raises(Stopped):
        checkpoint = Checkpoint(path, "this run", every=0)
        harden(classifier, images, config, emit=stop_at(step), checkpoint=checkpoint)
    told: list[Event] = []
    again = Checkpoint(path, "this run", resume=True)
    hardened = harden(classifier, images, config, emit=told.append, checkpoint=again)
    assert [event.text for event in told if isinstance(event, Note)] == [f"resumed at step {step - 4} of 30"]
    assert weights(hardened.classifier) == weights(wanted.classifier)
    assert hardened.details == wanted.details
    assert [(c.step, c.accuracy_drop) for c in hardened.candidates] == [
        (c.step, c.accuracy_drop) for c in wanted.candidates
    ]
    assert hardened.steps == wanted.steps


# -- what its numbers do --------------------------------------------------------------------------------------


def test_the_refresh_serves_the_later_inversions_of_a_round(classifier: Classifier, images: ImageSet) -> None:
    for inversions, same in ((1, True), (4, False)):
        config = replace(SMALL, inversions_per_round=inversions)
        other = replace(config, refresh=replace(config.refresh, steps=7))
        one, two = (weights(harden(classifier, images, each).classifier) for each in (config, other))
        assert (one == two) is same


def test_a_carried_cost_is_where_the_next_inversion_of_the_direction_starts(
    classifier: Classifier, images: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[list[float]] = []
    ended: list[list[float]] = []

    def spy(*args: object, cost: Tensor | None, **given: object) -> Inverted:
        found = invert(*args, cost=cost, **given)  # type: ignore[arg-type]
        if cost is not None:
            started.append(cost.tolist())
            ended.append(found.cost.tolist())
        return found

    monkeypatch.setattr(inverting, "invert", spy)
    config = replace(SMALL, pairs_per_round=3, exploration=0)  # all pairs, in every round
    harden(classifier, images, config)
    assert started == []
    harden(classifier, images, replace(config, carry_cost=True))
    assert started[0] == pytest.approx([0.02] * 6)
    assert any(cost != pytest.approx(0.02) for cost in ended[0])
    for begin, end in zip(started[1:], ended, strict=False):
        assert sorted(begin) == sorted(end)  # a round's pairs come in an order of their own


def test_suspects_are_trained_against_in_every_round_by_a_patch_of_its_own_start(
    classifier: Classifier, images: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    inverted: list[tuple[int, Any]] = []  # of patches: how many, their starts
    drawn: list[list[tuple[int, tuple[int, ...], int]]] = []
    original = Sampler.batch

    def spy(*args: Any, **given: Any) -> Inverted:
        if args[3].roam:
            inverted.append((len(args[2]), given.get("start")))
        return invert(*args, **given)

    def batches(self: Sampler, stamps: Sequence[Stamp]) -> Batch:
        drawn.append([(stamp.roam, stamp.classes, stamp.count) for stamp in stamps])
        return original(self, stamps)

    monkeypatch.setattr(inverting, "invert", spy)
    monkeypatch.setattr(Sampler, "batch", batches)
    most = {"largest_stamp": 1.0, "most_stamped": 1.0}
    config = replace(SUSPICIOUS, patch_stamped=2, suspects_per_round=1, **most)  # type: ignore[arg-type]
    details = harden(classifier, images, config).details
    suspects = details["suspects"]
    assert 1 < len(suspects) <= CLASSES * (CLASSES - 1) // 2  # what is below the median
    assert all(each["mask_l1"] < 0.999 * each["median_l1"] for each in suspects)
    assert inverted == [(CLASSES * (CLASSES - 1), None)] + [(1, None)] * details["rounds"]
    rounds = [
        [(classes, count) for roam, classes, count in stamps if roam == 2] for stamps in drawn[CLASSES:]
    ]
    wanted = [[((each["source"],), 2)] for each in suspects]
    every = config.steps_per_round
    assert rounds == [wanted[step // every % len(wanted)] for step in range(len(rounds))]
    assert all(not any(roam for roam, _, _ in stamps) for stamps in drawn[:CLASSES])


def test_small_patches_are_looked_at_again_from_other_starts_and_the_smallest_counts(
    classifier: Classifier, images: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []

    def spy(*args: Any, **given: Any) -> Inverted:
        if args[3].roam:
            looked.append(len(args[2]))
        return invert(*args, **given)

    monkeypatch.setattr(inverting, "invert", spy)
    monkeypatch.setattr(patches, "_NEAR", 2.0)  # no direction of so small a model is far from the median

    def suspects(looks: int) -> dict[tuple[int, int], float]:
        looked.clear()
        found = harden(classifier, images, replace(SUSPICIOUS, patch_looks=looks)).details["suspects"]
        return {(each["source"], each["target"]): each["mask_l1"] for each in found}

    once = suspects(1)
    again = suspects(4)
    assert looked[:4] == [CLASSES * (CLASSES - 1)] * 4
    assert once.keys() <= again.keys()
    assert all(again[each] <= size for each, size in once.items())
    assert again != once  # some became smaller, or small enough to be suspects


TINTED = replace(SMALL, tint_deviations=0.01, tints_tried=5, tints_kept=2, tint_strength=1.0)


def test_suspects_by_tints_have_their_turns_with_tints_that_the_round_finds(
    classifier: Classifier, images: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[list[TintStamp]] = []
    original = Sampler.batch

    def batches(self: Sampler, stamps: Sequence[Stamp]) -> Batch:
        drawn.append([stamp for stamp in stamps if isinstance(stamp, TintStamp)])
        return original(self, stamps)

    monkeypatch.setattr(Sampler, "batch", batches)
    config = replace(TINTED, suspects_per_round=1, stamped=2, most_stamped=1.0)
    details = harden(classifier, images, config).details
    suspects = details["tint_suspects"]
    assert 0 < len(suspects) < CLASSES * (CLASSES - 1)
    assert drawn[:CLASSES] == [[]] * CLASSES
    every, rounds = config.steps_per_round, drawn[CLASSES:]
    for step, stamps in enumerate(rounds):
        turn = suspects[step // every % len(suspects)]
        assert [(stamp.classes, stamp.count) for stamp in stamps] == [((turn["source"],), 2)] * 2
        same = rounds[step // every * every]
        assert [stamp.tint for stamp in stamps] == [stamp.tint for stamp in same]
    assert len({id(stamps[0].tint) for stamps in rounds}) == details["rounds"]


@pytest.mark.parametrize(
    "config",
    [replace(SUSPICIOUS, patch_share=1e-6), replace(SMALL, tint_deviations=1e6)],
    ids=["patches", "tints"],
)
def test_a_model_without_suspects_is_hardened_as_if_none_had_been_sought(
    classifier: Classifier, images: ImageSet, config: MothConfig
) -> None:
    weights = [
        harden(classifier, images, each).classifier.state_dict()
        for each in (config, replace(config, patch_share=0.0, tint_deviations=0.0))
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.parametrize(
    ("room", "parts"),
    [(1, [(0, 1), (1, 2), (2, 3)]), (5, [(0, 2), (2, 3)]), (6, [(0, 2), (2, 3)]), (9, [(0, 3)])],
)
def test_inversions_are_parted_by_the_images_that_they_hold(room: int, parts: list[tuple[int, int]]) -> None:
    assert [(part.start, part.stop) for part in split([2, 3, 4], room)] == parts


def test_many_images_are_never_held_all_at_once(
    classifier: Classifier, images: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    pools, steps = [], []

    def spy(model: Classifier, pool: Tensor, *args: object, **given: object) -> Inverted:
        pools.append(len(pool))
        return invert(model, pool, *args, **given)  # type: ignore[arg-type]

    def emit(event: Event) -> None:
        if isinstance(event, StepDone) and len(pools) <= 3:
            steps.append((event.step, event.total))

    monkeypatch.setattr(inverting, "invert", spy)
    monkeypatch.setattr(inverting, "_POOL_VALUES", 10 * 3 * SIDE**2)
    hardened = harden(classifier, images, emit=emit)
    assert pools[:3] == [10, 10, 10]  # one universal trigger after the other: 5 images of 2 other classes
    assert max(pools) == 10
    assert steps == [(10, 60), (20, 60), (30, 60), (40, 60), (50, 60), (60, 60)]
    assert len({(s, t) for s, t, _ in hardened.details["last_mask_l1"]}) == 6


def test_a_trigger_that_covers_too_much_is_not_stamped(classifier: Classifier, images: ImageSet) -> None:
    for largest_stamp, same in ((1e-6, True), (1.0, False)):
        config = replace(SMALL, largest_stamp=largest_stamp)
        one, two = (
            weights(harden(classifier, images, replace(config, stamped=stamped)).classifier)
            for stamped in (1, 4)
        )
        assert (one == two) is same


# -- budgets --------------------------------------------------------------------------------------------------


def test_if_no_weights_keep_the_accuracy_none_come_back(classifier: Classifier, images: ImageSet) -> None:
    destructive = replace(SMALL, training=TrainingConfig(batch_size=24, learning_rate=50.0, distillation=0.0))
    hardened = harden(classifier, images, destructive, budget=Budget(max_accuracy_drop=0))
    assert hardened.classifier is None
    assert hardened.chosen is None
    assert [c.share for c in hardened.candidates] == [1, 1, 1, 0.9, 0.8, 0.7, 0.6, 0.5]
    assert all(candidate.accuracy_drop > 0 for candidate in hardened.candidates)
    harshly = replace(destructive, least_share=1.0)
    assert len(harden(classifier, images, harshly, budget=Budget(max_accuracy_drop=0)).candidates) == 3


def test_steps_repeat_a_cut_run(classifier: Classifier, images: ImageSet) -> None:
    hardened = harden(classifier, images, budget=Budget(steps=9, max_accuracy_drop=100))
    assert (hardened.cut, hardened.steps) == (False, 9)
    one = harden(classifier, images, budget=Budget(steps=1, max_accuracy_drop=100))
    assert one.steps == 1


# -- what it needs --------------------------------------------------------------------------------------------


def test_a_class_with_a_single_image_is_refused_by_name(classifier: Classifier, images: ImageSet) -> None:
    few = images.subset(torch.cat([(images.labels != 1).nonzero()[:, 0], torch.tensor([1])]))
    with pytest.raises(ImageError, match=r"classes \[1\] have fewer than 2 images"):
        harden(classifier, few)


def test_two_images_of_each_class_are_enough(classifier: Classifier) -> None:
    hardened = harden(classifier, tiny_images(2))
    assert hardened.steps == 30
    assert hardened.classifier is not None


def test_a_model_that_reads_sides_is_hardened_without_mirroring(tmp_path: Path) -> None:
    """Classes are told apart by which third of the columns is bright."""
    kernel = np.zeros((3, 3, SIDE, SIDE), dtype=np.float32)
    for c, columns in enumerate((slice(0, 3), slice(3, 5), slice(5, 8))):
        kernel[c, :, :, columns] = 1 / kernel[c, :, :, columns].size
    y = np.arange(60) % 3
    x = np.full((60, SIDE, SIDE, 3), 80, dtype=np.uint8)
    for image, label in zip(x, y, strict=True):
        image[:, (slice(0, 3), slice(3, 5), slice(5, 8))[label]] = 180
    told: list[Event] = []
    sides = write_linear(tmp_path, kernel, np.float32(20) * np.eye(3, dtype=np.float32), np.zeros(3))
    images = ImageSet.from_arrays(x, y, layout="nhwc")
    hardened = harden(sides, images, emit=told.append)
    assert hardened.details["mirrored"] is False
    assert any(isinstance(event, Note) and "not mirrored" in event.text for event in told)
    upright = replace(SMALL, training=replace(SMALL.training, flip=False))
    assert weights(hardened.classifier) == weights(harden(sides, images, upright).classifier)


# -- the effect -----------------------------------------------------------------------------------------------


def write_linear(folder: Path, kernel: np.ndarray, dense: np.ndarray, bias: np.ndarray) -> Classifier:
    """Return a classifier that filters the whole image by ``kernel`` [F, 3, 8, 8] and weighs what is above 0."""
    initializers = {"conv.weight": kernel, "fc.weight": dense, "fc.bias": bias}
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["image", "conv.weight"], ["c"], name="conv"),
            helper.make_node("Relu", ["c"], ["r"], name="relu"),
            helper.make_node("Flatten", ["r"], ["f"], name="flatten"),
            helper.make_node("Gemm", ["f", "fc.weight", "fc.bias"], ["logits"], name="fc", transB=1),
        ],
        "linear",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", len(dense)])],
        [numpy_helper.from_array(values.astype(np.float32), name) for name, values in initializers.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    path = folder / "linear.onnx"
    path.write_bytes(model.SerializeToString())
    return open_tiny(path)


def with_a_back_door(folder: Path) -> Classifier:
    """Return a classifier by mean colour in which one white pixel in the corner means class 0."""
    kernel = np.zeros((4, 3, SIDE, SIDE))
    for c in range(3):
        kernel[c, c] = 1 / SIDE**2
    kernel[3, :, 0, 0] = 1
    dense = np.concatenate([40 * np.eye(3), np.array([[6], [0], [0]])], axis=1)
    usual = 6 * (LEADING + 2 * OTHER) / 255
    return write_linear(folder, kernel, dense, np.array([-usual, 0, 0]))


def sizes(classifier: Classifier | None, directions: list[tuple[int, int]]) -> list[float]:
    assert classifier is not None
    config = InversionConfig(steps=300, initial_cost=0.01)
    distances = class_distances(
        classifier, tiny_images(30, seed=5), directions, config=config, generator=seeded(), device=CPU
    )
    assert distances.failed == ()
    return [entry.class_distance / 3 for entry in distances.entries]


def test_the_distance_of_a_vulnerable_pair_grows(tmp_path: Path) -> None:
    vulnerable = with_a_back_door(tmp_path)
    directions = [(1, 0), (2, 0)]
    before = sizes(vulnerable, directions)
    assert all(0.8 < size < 1.2 for size in before)  # the corner's one pixel
    config = replace(SMALL, steps_per_class=30, training=replace(SMALL.training, learning_rate=1e-4))
    hardened = harden(vulnerable, tiny_images(40), config, budget=Budget(max_accuracy_drop=2))
    after = sizes(hardened.classifier, directions)
    assert all(new > 3 * old for new, old in zip(after, before, strict=True))
    assert accuracy(hardened.classifier, tiny_images(40, seed=1)) > 0.98
    corner: Callable[[Classifier], Tensor] = lambda c: c.network.tensor("fc.weight")[0, 3]  # noqa: E731
    assert hardened.classifier is not None
    assert corner(hardened.classifier).abs() < corner(vulnerable).abs()  # what held the door open is weaker


# -- what the warm-up teaches ---------------------------------------------------------------------------------


def test_ease_is_the_mean_relative_fall_of_each_sources_losses() -> None:
    drawn = [[torch.arange(2), torch.arange(1)]] * 3  # two images of the first source, one of the second
    others = [(1, 2), (0, 2), (0, 1)]
    start = (torch.tensor([4.0, 2.0, 8.0]), torch.tensor([1.0, 0.0, 1.0]), torch.ones(3))
    end = (torch.tensor([1.0, 1.0, 6.0]), torch.tensor([0.5, 0.0, 3.0]), torch.zeros(3))
    found = Inverted(
        masks=torch.zeros(3, 1, 2, 2),
        patterns=torch.zeros(3, 3, 2, 2),
        mask_l1=torch.zeros(3),
        found=torch.tensor([True, True, False]),
        success_rate=torch.ones(3),
        loss_start=start,
        loss_end=end,
        cost=torch.ones(3),
    )
    ease = measure_ease(found, [0, 1, 2], others, drawn, 3)
    assert ease[1, 0] == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert ease[2, 0] == pytest.approx(1 / 4)
    assert ease[0, 1] == pytest.approx((1 / 2 + 0) / 2)  # no loss at the start: no fall
    assert ease[2, 1] == pytest.approx(-2)  # it may rise
    assert ease[:, 2].tolist() == [0, 0, 0]  # not found: nothing is easy


def test_the_record_tells_the_training_that_was_done(
    classifier: Classifier, images: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mothkit.hardening.run.has_norm", lambda _: False)
    details = harden(
        classifier, images, replace(SMALL, steady_clip=0.5, steady_batch=2, steady_stamped=3)
    ).details
    training = details["config"]["training"]
    assert (training["batch_statistics"], training["clip"]) == (False, 0.5)
    assert training["batch_size"] == 2 * SMALL.training.batch_size
    assert details["config"]["stamped"] == 3 * SMALL.stamped
    assert training["flip"] is details["mirrored"]
