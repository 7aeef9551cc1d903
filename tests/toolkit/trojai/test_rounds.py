import json
from pathlib import Path

import pytest
import torch

from mothkit.errors import ImageError, ModelError
from mothkit.images import load_images
from mothkit.trojai.documents import parse_value, read_config, read_metadata, read_truth
from mothkit.trojai.models import find_models, read_model
from mothkit.trojai.rounds import ROUNDS, recognise
from tests.toolkit.trojai.pictures import write_picture

SAMPLES = Path(__file__).resolve().parents[4] / "shared/trojai-samples"
needs_samples = pytest.mark.skipif(not SAMPLES.is_dir(), reason="needs ../shared")

ROUND4 = {
    "py/object": "round_config.RoundConfig",
    "poisoned": True,
    "number_classes": 17,
    "model_architecture": "squeezenetv1_1",
    "trigger_organization": "pair-one2one",
    "triggers": [
        {
            "py/object": "trigger_config.TriggerConfig",
            "trigger_number": 0,
            "source_class": 3,
            "target_class": 7,
            "type": "polygon",
            "color": [200, 0, 200],
            "condition": "spatial",
            "spatial_quadrant": 2,
        },
        {
            "py/object": "trigger_config.TriggerConfig",
            "trigger_number": 1,
            "source_class": 4,
            "target_class": 1,
            "type": "polygon",
            "color": {"py/id": 3},  # 0 the config, 1 the list of triggers, 2 the first of them, 3 its colour
            "condition": "None",
        },
    ],
}


def written(path: Path, document: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def test_round_4_is_read_with_its_references(tmp_path: Path) -> None:
    folder = tmp_path / "models/id-00000003"
    written(folder / "config.json", ROUND4)
    (folder / "ground_truth.csv").write_text("1")
    found = read_model(find_models(tmp_path)[0])
    assert (found.name, found.round) == ("id-00000003", ROUNDS["round4"])
    assert (found.architecture, found.classes, found.poisoned) == ("squeezenet1_1", 17, True)
    first, second = found.backdoors
    assert (first.sources, first.target, first.look, first.condition) == (
        (3,),
        7,
        "rgb(200, 0, 200)",
        "spatial",
    )
    assert (second.sources, second.target, second.look, second.condition) == (
        (4,),
        1,
        "rgb(200, 0, 200)",
        None,
    )
    assert found.missing == ("model.pt", "clean examples")


def test_a_reference_to_anything_but_a_colour_is_unknown(tmp_path: Path) -> None:
    path = written(
        tmp_path / "config.json", {"py/object": "x", "A": [{"color": {"py/id": 0}}, {"py/id": 99}]}
    )
    assert read_config(path)["a"] == [{"color": None}, None]


def test_the_state_form_means_what_the_flat_form_does(tmp_path: Path) -> None:
    state = {key: value for key, value in ROUND4.items() if key != "py/object"}
    triggers = ROUND4["triggers"]
    assert isinstance(triggers, list)
    state["triggers"] = [
        {"py/object": t["py/object"], "py/state": {**t, "color": [0, 200, 0]}} for t in triggers
    ]
    flat = ROUND4 | {"triggers": [{**t, "color": [0, 200, 0]} for t in triggers]}
    wrapped = written(
        tmp_path / "a/config.json", {"py/object": "round_config.RoundConfig", "py/state": state}
    )
    assert read_config(wrapped) == read_config(written(tmp_path / "b/config.json", flat))


def test_upper_case_keys_of_round_2_are_read(tmp_path: Path) -> None:
    config = {
        "POISONED": True,
        "NUMBER_CLASSES": 9,
        "MODEL_ARCHITECTURE": "vgg11bn",
        "TRIGGERED_CLASSES": [2, 5],
        "TRIGGER_TARGET_CLASS": 1,
        "TRIGGER_TYPE": "instagram",
        "TRIGGER_TYPE_OPTION": "GothamFilterXForm",
    }
    written(tmp_path / "config.json", config)
    found = read_model(tmp_path)
    assert found.round == ROUNDS["round2"]
    (backdoor,) = found.backdoors
    assert (backdoor.kind, backdoor.look, backdoor.sources, backdoor.target) == (
        "filter",
        "gotham",
        (2, 5),
        1,
    )


def test_files_that_contradict_each_other_are_told(tmp_path: Path) -> None:
    written(tmp_path / "config.json", ROUND4)
    (tmp_path / "ground_truth.csv").write_text("0\n")
    assert read_model(tmp_path).conflicts == ("ground_truth.csv says clean, config.json says poisoned",)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("None", None),
        ("", None),
        ("TRUE", True),
        ("False", False),
        ("[0 3]", [0, 3]),
        ("[75, 226, 69]", [75, 226, 69]),
        ("[]", []),
        ("12", 12),
        ("0.0627", 0.0627),
        ("3e-4", 3e-4),
        ('{"0": 5 "1": 6}', '{"0": 5 "1": 6}'),
    ],
)
def test_values_of_every_dialect(text: str, value: object) -> None:
    assert parse_value(text) == value


def test_a_table_whose_lines_do_not_fit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "METADATA.csv"
    path.write_text("model_name,poisoned\nid-00000000,True,5\n")
    with pytest.raises(ModelError, match="line 2: has 3 values for 2 columns"):
        read_metadata(path)


@pytest.mark.parametrize(("text", "said"), [("0", False), ("1\n", True), ("1.0", True)])
def test_ground_truth(text: str, said: bool, tmp_path: Path) -> None:
    (tmp_path / "g.csv").write_text(text)
    assert read_truth(tmp_path / "g.csv") is said


def test_other_ground_truths_are_refused(tmp_path: Path) -> None:
    (tmp_path / "g.csv").write_text("2")
    with pytest.raises(ModelError, match="expected 0 or 1"):
        read_truth(tmp_path / "g.csv")


def test_a_round_that_could_be_several_is_left_open() -> None:
    assert recognise({"example_data", "foregrounds", "model.pt"}, {}, {}) is None
    assert recognise({"clean_example_data", "model.pt"}, {}, {}) is None


def test_examples_take_their_labels_from_names(tmp_path: Path) -> None:
    for name in ("class_0_example_0", "class_12_example_3", "class_2_example_0"):
        write_picture(tmp_path / f"{name}.png")
    images = load_images(tmp_path)
    assert images.labels.tolist() == [0, 12, 2]
    assert images.class_names == tuple(map(str, range(13)))


def test_examples_take_their_labels_from_json(tmp_path: Path) -> None:
    for name, label in (("5", 3), ("12", {"clean_label": 1, "poisoned_label": None})):
        write_picture(tmp_path / f"{name}.png")
        written(tmp_path / f"{name}.json", label)
    assert load_images(tmp_path).labels.tolist() == [1, 3]


def test_an_example_without_a_label_is_refused(tmp_path: Path) -> None:
    write_picture(tmp_path / "5.png")
    write_picture(tmp_path / "6.png")
    written(tmp_path / "6.json", 2)
    with pytest.raises(ImageError, match=r"1 of 2 examples have no label, first 5\.png"):
        load_images(tmp_path)


def test_poisoned_examples_are_no_clean_images(tmp_path: Path) -> None:
    write_picture(tmp_path / "class_1_trigger_0_example_2.png")
    with pytest.raises(ImageError, match="carry triggers"):
        load_images(tmp_path)
    poisoned = tmp_path / "poisoned-example-data"
    poisoned.mkdir()
    write_picture(poisoned / "5.png")
    written(poisoned / "5.json", 3)
    with pytest.raises(ImageError, match="carry triggers"):
        load_images(poisoned)


def test_a_table_that_contradicts_the_names_is_refused(tmp_path: Path) -> None:
    write_picture(tmp_path / "class_1_example_0.png")
    (tmp_path / "data.csv").write_text("file,train_label,true_label\nclass_1_example_0.png,0,0\n")
    with pytest.raises(ImageError, match="its name 1"):
        load_images(tmp_path)


def test_each_round_has_its_input() -> None:
    x = torch.tensor([0.2, 0.4, 0.6])[None, :, None, None].expand(1, 3, 2, 2).clone()
    assert ROUNDS["round1"].spec.to_model(x)[0, :, 0, 0].tolist() == pytest.approx([1, 0.5, 0], abs=1e-6)
    assert ROUNDS["round3"].spec.to_model(x)[0, :, 0, 0].tolist() == pytest.approx([0, 0.5, 1], abs=1e-6)
    assert torch.equal(ROUNDS["round4"].spec.to_model(x), x)
    assert [ROUNDS[name].input_side(256) for name in ("round2", "round4", "round11")] == [224, 224, 256]


@needs_samples
def test_real_tables_are_read_whole() -> None:
    round0 = read_metadata(SAMPLES / "round0/round0-METADATA.csv")
    round3 = read_metadata(SAMPLES / "round3/round3-holdout-METADATA.csv")
    assert (len(round0), len(round3)) == (200, 288)
    assert sum(row["poisoned"] is True for row in round3.values()) == 144
    assert {recognise((), {}, row).name for row in round0.values()} == {"round0"}
    assert {recognise((), {}, row).name for row in round3.values()} == {"round3"}


@needs_samples
def test_a_real_model_of_round_11_is_read() -> None:
    found = read_model(SAMPLES / "round11-id-00000002")
    assert (found.round, found.architecture, found.classes) == (ROUNDS["round11"], "mobilenet_v2", 118)
    assert (found.poisoned, found.backdoors, found.missing) == (False, (), ("model.pt",))
    assert len(load_images(SAMPLES / "round11-id-00000002/clean-example-data")) == 20


@needs_samples
def test_real_examples_of_round_1_are_read() -> None:
    images = load_images(SAMPLES / "round1-id-00000000/example_data")
    assert images.class_counts == (4, 4, 4, 0, 4)
