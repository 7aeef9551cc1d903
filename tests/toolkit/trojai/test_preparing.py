import json
from pathlib import Path

import numpy as np
import pytest

from mothkit.errors import ImageError
from mothkit.opening import OpenModel, Settings, open_model
from mothkit.triggers.file import load_trigger
from mothkit.trojai.gathering import FILLED, Gathered, View, gather
from mothkit.trojai.models import read_model
from mothkit.trojai.preparing import Prepared, prepare_model
from mothkit.trojai.stamping import DRAWN
from tests.toolkit.trojai.folders import FILTER, POLYGON, SEEN, SIDE, pixels_of, write_model, write_round4
from tests.toolkit.trojai.pictures import write_picture

MIDDLE = slice((SIDE - SEEN) // 2, (SIDE + SEEN) // 2)


def opened(prepared: Prepared) -> OpenModel:
    return open_model(prepared.model, Settings(device="cpu"))


def gathered(folder: Path, out: Path, seen: int = SEEN) -> Gathered:
    out.mkdir()
    return gather(read_model(folder), View(classes=5, image_side=SIDE, input_side=seen), out)


def loaded(path: Path) -> tuple[np.ndarray, list[int]]:
    with np.load(path) as held:
        return held["x"], held["y"].tolist()


def test_a_clean_model_comes_with_its_published_images(tmp_path: Path) -> None:
    folder = write_round4(tmp_path / "id-00000000")
    prepared = prepare_model(folder, tmp_path / "work")
    assert prepared.data == str(folder / "clean_example_data")
    assert (prepared.triggers, prepared.notes) == ((), ())
    images = opened(prepared).images(prepared.data)
    assert (images.class_counts, images.shape) == ((2,) * 5, (3, SEEN, SEEN))
    record = json.loads((tmp_path / "work/prepared.json").read_text())
    assert (record["round"], record["resize"], record["data"]) == ("round4", "crop", prepared.data)


def test_more_clean_images_are_drawn_where_that_is_asked_for(tmp_path: Path) -> None:
    folder = write_round4(tmp_path / "id-00000000")
    prepared = prepare_model(folder, tmp_path / "work", drawn=5)
    assert prepared.notes == ("15 clean images were drawn of its signs, as 10 are published",)
    assert opened(prepared).images(prepared.data).class_counts == (5,) * 5
    assert prepare_model(folder, tmp_path / "few", drawn=2).data == str(folder / "clean_example_data")


def test_published_poisoned_examples_are_taken_with_their_true_class(tmp_path: Path) -> None:
    folder = write_round4(tmp_path / "id-00000000", POLYGON, FILTER)
    (folder / "poisoned_example_data").mkdir()
    for trigger, source in ((0, 3), (1, 2)):
        for number in range(3):
            name = f"class_{source}_trigger_{trigger}_example_{number}.png"
            write_picture(folder / "poisoned_example_data" / name, side=SIDE, seed=10 * trigger + number)
    found = gathered(folder, tmp_path / "work")
    assert found.notes == ()
    known = [load_trigger(path, (3, SEEN, SEEN), 5) for path in found.triggers]
    assert [(each.name, each.source_class, each.target_class) for each in known] == [
        ("polygon 0 (published)", 3, 1),
        ("filter 1 (published)", 2, 4),
    ]
    x, y = loaded(tmp_path / "work/trigger_1.npz")
    first = pixels_of(folder / "poisoned_example_data/class_2_trigger_1_example_0.png")
    assert y == [2, 2, 2]
    assert np.array_equal(x[0], first[MIDDLE, MIDDLE])


def test_a_filter_goes_again_on_clean_images_of_its_source(tmp_path: Path) -> None:
    folder = write_round4(tmp_path / "id-00000000", FILTER)
    found = gathered(folder, tmp_path / "work")
    assert found.notes == ("trigger 1 was put on 2 filtered images again",)
    x, y = loaded(tmp_path / "work/trigger_1.npz")
    assert (x.shape, y) == ((2, SEEN, SEEN, 3), [2, 2])
    clean = pixels_of(folder / "clean_example_data/class_2_example_0.png")[MIDDLE, MIDDLE]
    warm = x[0].astype(int)[..., 0].mean() - x[0].astype(int)[..., 2].mean()
    assert warm > 20 + clean[..., 0].mean() - clean[..., 2].mean()  # Kelvin's orange


def test_a_polygon_is_drawn_again_on_signs_of_its_source(tmp_path: Path) -> None:
    folder = write_round4(tmp_path / "id-00000000", POLYGON)
    found = gathered(folder, tmp_path / "work")
    assert found.notes == (f"trigger 0 was put on {DRAWN} drawn images again",)
    x, y = loaded(tmp_path / "work/trigger_0.npz")
    assert y == [3] * DRAWN
    again, _ = loaded(gathered(folder, tmp_path / "again").triggers[0].with_suffix(".npz"))
    assert np.array_equal(x, again)


def test_what_cannot_be_stamped_again_is_told(tmp_path: Path) -> None:
    folder = write_round4(tmp_path / "id-00000000", POLYGON)
    (folder / "trigger_0.png").unlink()
    found = gathered(folder, tmp_path / "work")
    assert found.triggers == ()
    assert found.notes == (
        "trigger 0 is not evaluated: its shape is not published: there is no trigger_0.png",
    )


def write_round11(folder: Path, *triggers: dict[str, object]) -> Path:
    """Write a model of round 11 with one clean image, of class 4."""
    config = {
        "model_architecture": "classification:squeezenet1_1",
        "poisoned": bool(triggers),
        "triggers": list(triggers),
    }
    write_model(folder, {"py/object": "round_config.RoundConfig", "py/state": config | {"number_classes": 5}})
    (folder / "clean-example-data").mkdir()
    write_picture(folder / "clean-example-data/7.png", side=SIDE)
    (folder / "clean-example-data/7.json").write_text("4")
    return folder


def test_signs_are_drawn_for_classes_without_images(tmp_path: Path) -> None:
    folder = write_round11(tmp_path / "id-00000000")
    prepared = prepare_model(folder, tmp_path / "work")
    x, y = loaded(tmp_path / "work/clean.npz")
    assert [y.count(label) for label in range(5)] == [FILLED] * 5
    assert np.array_equal(x[0], pixels_of(folder / "clean-example-data/7.png"))  # no crop in round 11
    red = x[[i for i, label in enumerate(y) if label == 0]].reshape(FILLED, -1, 3).astype(int)
    reddest = (red[..., 0] - red[..., 1:].max(2) > 60).mean(1)
    assert (reddest > 0.1).mean() > 0.8  # where there is no fog
    assert prepared.notes == (f"{5 * FILLED - 1} clean images were drawn of its signs, as 1 are published",)
    assert opened(prepared).images(prepared.data).class_counts == (FILLED,) * 5


def test_without_signs_too_few_images_are_refused(tmp_path: Path) -> None:
    folder = write_round11(tmp_path / "id-00000000")
    for sign in (folder / "foregrounds").iterdir():
        sign.unlink()
    with pytest.raises(ImageError, match="5 of 5 classes have fewer than 2 clean images, and no signs"):
        gathered(folder, tmp_path / "work")


@pytest.mark.parametrize(("second_target", "taken"), [(2, True), (1, False)])
def test_in_round_11_the_target_tells_the_source_unless_two_share_it(
    second_target: int, taken: bool, tmp_path: Path
) -> None:
    kind = "trigger_executor.InstagramTriggerExecutor"
    triggers = [
        {
            "py/object": kind,
            "py/state": {"trigger_id": n, "source_class": s, "target_class": t, "type": "LomoFilterXForm"},
        }
        for n, s, t in ((0, 3, 1), (1, 0, second_target))
    ]
    folder = write_round11(tmp_path / "id-00000000", *triggers)
    (folder / "poisoned-example-data").mkdir()
    write_picture(folder / "poisoned-example-data/1.png", side=SIDE, seed=5)
    (folder / "poisoned-example-data/1.json").write_text("1")
    found = gathered(folder, tmp_path / "work", SIDE)
    x, y = loaded(tmp_path / "work/trigger_0.npz")
    expected = pixels_of(folder / "poisoned-example-data/1.png")
    assert (len(y) == 1 and np.array_equal(x[0], expected)) is taken
    assert set(y) == {3}
    assert len(found.triggers) == 2


def test_in_round_2_two_classes_share_a_trigger(tmp_path: Path) -> None:
    config = {"POISONED": True, "MODEL_ARCHITECTURE": "squeezenetv1_1", "TRIGGERED_CLASSES": [2, 3]}
    more = {"TRIGGER_TARGET_CLASS": 1, "TRIGGER_TYPE": "instagram", "TRIGGER_TYPE_OPTION": "LomoFilterXForm"}
    folder = write_model(tmp_path / "id-00000000", config | more)
    for name, labels in (("clean_example_data", [0, 1, 2, 3, 4] * 2), ("poisoned_example_data", [2, 3, 3])):
        (folder / name).mkdir()
        for number, label in enumerate(labels):
            write_picture(folder / name / f"class_{label}_example_{number}.png", side=SIDE)
    found = gathered(folder, tmp_path / "work")
    assert found.notes == ()
    known = load_trigger(found.triggers[0], (3, SEEN, SEEN), 5)
    assert (known.source_class, known.target_class) == (None, 1)
    assert loaded(tmp_path / "work/trigger_0.npz")[1] == [2, 3, 3]


def test_the_mitigation_round_says_both_labels_of_poisoned_examples(tmp_path: Path) -> None:
    kind = "trigger_executor.InstagramTriggerExecutor"
    triggers = [
        {
            "py/object": kind,
            "py/state": {"trigger_id": n, "source_class": n, "target_class": 4, "type": "LomoFilterXForm"},
        }
        for n in (0, 1)
    ]
    folder = write_round11(tmp_path / "id-00000000", *triggers)
    (folder / "new-poisoned-example-data").mkdir()
    for number, label in enumerate([0, 1, 1]):
        write_picture(folder / f"new-poisoned-example-data/{number}.png", side=SIDE, seed=number)
        both = json.dumps({"clean_label": label, "poisoned_label": 4})
        (folder / f"new-poisoned-example-data/{number}.json").write_text(both)
    gathered(folder, tmp_path / "work", SIDE)
    assert loaded(tmp_path / "work/trigger_0.npz")[1] == [0]
    x, y = loaded(tmp_path / "work/trigger_1.npz")
    assert y == [1, 1]
    assert np.array_equal(x[1], pixels_of(folder / "new-poisoned-example-data/2.png"))
