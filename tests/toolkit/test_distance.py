import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mothkit.classifier import Classifier
from mothkit.distance import Direction, Distance, Distances, all_directions, class_distances, gather
from mothkit.errors import ConfigError, ImageError
from mothkit.events import Event, PhaseStarted, StepDone
from mothkit.inversion.config import InversionConfig
from mothkit.matrix.draws import Measured, Sampling, plan_draws
from mothkit.triggers.patch import Trigger, stamp
from tests.tiny import SIDE, open_tiny, tiny_images, write_tiny

CPU = torch.device("cpu")
QUICK = InversionConfig(steps=40, initial_cost=0.02, patience=3)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    return open_tiny(write_tiny(tmp_path_factory.mktemp("model") / "tiny.onnx"))


def measured(classifier: Classifier, directions: Sequence[Direction], **given: object) -> Distances:
    arguments = {"config": QUICK, "generator": torch.Generator().manual_seed(0), "device": CPU} | given
    return class_distances(classifier, tiny_images(30), directions, **arguments)  # type: ignore[arg-type]


def entry(source: int, target: int, size: float, *, found: bool = True) -> Distance:
    trigger = Trigger(torch.zeros(1, 2, 2), torch.zeros(3, 2, 2))
    return Distance(source, target, size, size / 12, found, 0.95, 10, trigger)


def test_a_distance_is_that_of_a_trigger_which_works_on_the_images_of_its_source(
    classifier: Classifier,
) -> None:
    directions = [(2, 0), (0, 1), (2, 1)]
    distances = measured(classifier, directions)
    assert [(e.source_class, e.target_class) for e in distances.entries] == directions
    images = tiny_images(30)
    for each in distances.entries:
        assert each.found
        assert each.images == 30
        assert each.class_distance == pytest.approx(float(each.trigger.mask.sum()) * 3, rel=1e-5)
        assert each.share == pytest.approx(each.class_distance / (3 * SIDE * SIDE))
        x = stamp(images.pixels(images.labels == each.source_class), each.trigger)
        with torch.no_grad():
            rate = float((classifier(x).argmax(1) == each.target_class).float().mean())
        assert each.success_rate == pytest.approx(rate)
        assert rate >= 0.9
    assert distances.failed == ()
    assert distances.mean == pytest.approx(sum(e.class_distance for e in distances.entries) / 3)


def test_repeated_directions_give_every_entry_an_error(classifier: Classifier) -> None:
    distances = measured(classifier, [(0, 1), (1, 2)], sampling=Sampling(repeats=3, images_per_class=12))
    logs = [torch.tensor(e.sizes).log() for e in distances.entries]
    relative = math.sqrt(sum(float(each.var()) for each in logs) / 2)  # equally many draws of both
    for each in distances.entries:
        assert len(each.sizes) == len(set(each.sizes)) == 3  # other images and starts each time
        assert each.class_distance == pytest.approx(sum(each.sizes) / 3)
        assert each.error == pytest.approx(each.class_distance * relative / math.sqrt(3), rel=1e-4)
        assert each.trigger.class_distance == pytest.approx(min(each.sizes), rel=1e-5)
    told = distances.to_dict()
    assert told["relative_deviation"] == pytest.approx(relative, rel=1e-4)
    assert told["degrees_of_freedom"] == 4
    low, high = told["mean_interval95"]  # type: ignore[misc]
    assert low < told["mean"] < high
    assert told["interval_covers"] == "draws"


def test_the_smallest_of_several_draws_is_a_distance_where_it_is_asked_for(classifier: Classifier) -> None:
    sampling = Sampling(repeats=3, repeat_pairs=None, images_per_class=12)
    smallest = replace(sampling, smallest=True)
    directions: list[Direction] = [(0, 1), (1, 2)]
    for each in measured(classifier, directions, sampling=smallest).entries:
        assert len(each.sizes) == 3
        assert each.class_distance == min(each.sizes)
    draws = plan_draws(directions, smallest, seed=0)
    trigger = Trigger(torch.full((1, 2, 2), 0.5), torch.zeros(3, 2, 2))
    found = [Measured(draw, 7.0 - k, True, 0.9, 12, None, trigger) for k, draw in enumerate(draws[:5])]
    cut = gather(
        directions, found, smallest
    )  # the last direction lacks a draw: it would look larger than it is
    assert [(e.direction, e.class_distance) for e in cut.entries] == [(draws[0].direction, 15.0)]
    assert cut.missing == (1, 0)
    assert len(gather(directions, found, sampling).entries) == 2


def test_a_trigger_from_all_classes_works_on_all_of_them(classifier: Classifier) -> None:
    distances = measured(classifier, [(None, 2), (0, 1)])
    assert [e.name for e in distances.entries] == ["0-1"]
    (universal,) = distances.universal
    assert universal.found
    assert universal.images == 60
    images = tiny_images(30)
    x = stamp(images.pixels(images.labels != 2), universal.trigger)
    with torch.no_grad():
        rate = float((classifier(x).argmax(1) == 2).float().mean())
    assert universal.success_rate == pytest.approx(rate)
    assert distances.mean == distances.entries[0].class_distance  # the row has a mean of its own
    assert distances.to_dict()["universal"]["mean"] == universal.class_distance  # type: ignore[index]


def test_success_is_told_on_images_that_the_trigger_was_not_made_on(classifier: Classifier) -> None:
    (entry,) = measured(classifier, [(0, 1)], sampling=Sampling(images_per_class=12)).entries
    assert entry.held_out is not None
    assert entry.held_out.count == 18
    images = tiny_images(30)
    x = stamp(images.pixels(images.labels == 0), entry.trigger)
    with torch.no_grad():
        hits = int((classifier(x).argmax(1) == 1).sum())
    assert hits == entry.held_out.hits + round(12 * entry.success_rate)


def test_at_most_the_asked_images_of_a_source_are_used(classifier: Classifier) -> None:
    entries = measured(classifier, [(0, 1), (1, 2)], sampling=Sampling(images_per_class=7)).entries
    assert [each.images for each in entries] == [7, 7]


def test_the_same_seed_measures_the_same_and_leaves_the_model_alone(classifier: Classifier) -> None:
    before = {name: tensor.clone() for name, tensor in classifier.state_dict().items()}
    one, two = (measured(classifier, [(0, 1)]).entries[0] for _ in range(2))
    assert one.to_dict() == two.to_dict()
    assert torch.equal(one.trigger.mask, two.trigger.mask)
    assert all(torch.equal(tensor, before[name]) for name, tensor in classifier.state_dict().items())


def test_a_direction_without_a_trigger_is_listed_and_is_in_no_mean(tmp_path: Path) -> None:
    classifier = open_tiny(write_tiny(tmp_path / "tiny.onnx"))
    with torch.no_grad():
        classifier.network.tensor("fc.bias")[2] = -1e6  # nothing is ever class 2
    distances = measured(classifier, [(0, 1), (0, 2)])
    assert distances.failed == ((0, 2),)
    assert distances.entries[1].success_rate == 0
    assert distances.entries[1].class_distance > 0  # the last one tried
    assert distances.entries[1].smallest is None
    assert distances.mean == distances.entries[0].class_distance
    assert distances.to_dict()["failed"] == [[0, 2]]


def test_there_is_no_mean_where_nothing_was_found() -> None:
    nothing = Distances((entry(0, 1, 7, found=False),))
    assert nothing.mean is None
    assert nothing.to_dict()["mean"] is None
    assert Distances((entry(0, 1, 7),)).growth_over(nothing) is None


def test_growth_is_the_mean_of_ratios_whatever_the_order() -> None:
    before = Distances((entry(0, 1, 10), entry(1, 0, 40)))
    after = Distances((entry(1, 0, 44), entry(0, 1, 30)))
    assert after.growth_over(before) == pytest.approx((2.0 + 0.1) / 2)
    assert before.growth_over(before) == 0


def test_growth_is_over_the_pairs_that_have_a_trigger_both_times() -> None:
    before = Distances((entry(0, 1, 10), entry(1, 0, 40), entry(1, 2, 0, found=False)))
    after = Distances((entry(0, 1, 90, found=False), entry(1, 0, 44), entry(1, 2, 3)))
    assert after.growth_over(before) == pytest.approx(0.1)
    assert after.failed == ((0, 1),)


def test_growth_between_different_directions_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"different directions: \[\(0, 1\)\] and \[\(1, 0\)\]"):
        Distances((entry(1, 0, 4),)).growth_over(Distances((entry(0, 1, 4),)))


def test_growth_over_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="the distance 0-1 was 0 before"):
        Distances((entry(0, 1, 4),)).growth_over(Distances((entry(0, 1, 0),)))


def test_numbers_go_into_json_and_triggers_do_not() -> None:
    written = json.loads(json.dumps(Distances((entry(0, 1, 6),)).to_dict()))
    assert written == {
        "mean": 6,
        "mean_interval95": None,
        "interval_covers": "",
        "relative_deviation": None,
        "degrees_of_freedom": 0,
        "measured": 1,
        "not_measured": 0,
        "failed": [],
        "entries": [
            {
                "source_class": 0,
                "target_class": 1,
                "class_distance": 6,
                "share": 0.5,
                "found": True,
                "error": None,
                "smallest": 6,
                "sizes": [6],
                "failed_draws": 0,
                "success_rate": 0.95,
                "images": 10,
                "held_out": None,
            }
        ],
    }


def test_all_directions_are_all_ordered_pairs() -> None:
    assert all_directions(3) == [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)]


def test_progress_names_its_phase_and_its_steps(classifier: Classifier) -> None:
    told: list[Event] = []
    measured(classifier, [(0, 1)], config=replace(QUICK, steps=12), emit=told.append)
    assert told[0] == PhaseStarted("measure class distance")
    assert [event.step for event in told if isinstance(event, StepDone)] == [10, 12]


@pytest.mark.parametrize("wrong", [(1, 1), (0, 3), (-1, 0)])
def test_a_pair_that_is_none_is_refused(classifier: Classifier, wrong: tuple[int, int]) -> None:
    message = f"the pair {wrong[0]}-{wrong[1]} is not two different classes of 0 to 2"
    with pytest.raises(ConfigError, match=message):
        measured(classifier, [(0, 1), wrong])


def test_no_pairs_and_repeated_pairs_are_refused(classifier: Classifier) -> None:
    with pytest.raises(ConfigError, match="no pairs of classes to measure"):
        measured(classifier, [])
    with pytest.raises(ConfigError, match="the pair 0-1 is asked for twice"):
        measured(classifier, [(0, 1), (1, 2), (0, 1)])


def test_a_source_without_images_is_refused(classifier: Classifier) -> None:
    images = tiny_images(10)
    some = images.subset(images.labels != 1)
    given = {"config": QUICK, "generator": torch.Generator(), "device": CPU}
    with pytest.raises(ImageError, match="has no image of class 1, from which a distance was asked for"):
        class_distances(classifier, some, [(0, 1), (1, 0)], **given)  # type: ignore[arg-type]
    assert len(class_distances(classifier, some, [(0, 1)], **given).entries) == 1  # type: ignore[arg-type]
