import json
import math
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch

from mothkit.errors import ConfigError
from mothkit.trojai import detection
from mothkit.trojai.detection import (
    Curve,
    DetectionParameters,
    DetectionTask,
    configure,
    detect,
    learn,
    measure,
    read_curve,
    read_detection,
    signal_of,
)
from tests.toolkit.trojai.folders import write_round4
from tests.toolkit.trojai.hostile import small
from tests.toolkit.trojai.test_mitigation import DEPLOY, write_colours, write_knowing

QUICK = DetectionParameters(steps=2, images_per_class=8)


def task(folder: Path, examples: Path, **values: Any) -> DetectionTask:
    usual = {
        "model": folder / "model.pt",
        "scratch": folder / "scratch",
        "device": "cpu",
        "parameters": QUICK,
    }
    return DetectionTask(**{**usual, "examples": examples, **values})


def test_a_model_becomes_one_number_and_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = write_colours(tmp_path / "clean-example-data", [0, 1, 2, 3, 4] * 4, told=True)
    write_knowing(tmp_path / "model.pt", examples)
    asked: list[Any] = []

    def distances(_model: Path, data: str, _settings: object, what: Any, **_: object) -> tuple[None, Any]:
        with np.load(data) as held:
            asked.append((held["x"].shape, what.universal, what.directions, what.inversion.steps))
        entries = [{"target_class": k, "class_distance": 40.0, "found": True} for k in range(4)]
        entries += [{"target_class": 4, "class_distance": 5.0, "found": True}]
        return None, {"class_distance": {"universal": {"entries": entries}}}

    monkeypatch.setattr(detection, "distance_file", distances)
    record = detect(task(tmp_path, examples), tmp_path / "results/output")
    assert asked == [((20, 64, 64, 3), True, (), 2)]
    assert (record["round"], record["why_not"]) == ("round11", None)
    assert record["signal"] == pytest.approx(math.log(8))
    assert float((tmp_path / "results/output").read_text()) == record["probability"] > 0.9
    assert json.loads((tmp_path / "results/output.record.json").read_text())["sizes"]["4"] == 5.0


def test_triggers_are_searched_in_the_model_itself(tmp_path: Path) -> None:
    examples = write_colours(tmp_path / "clean-example-data", [0, 1, 2, 3, 4] * 4, told=True)
    write_knowing(tmp_path / "model.pt", examples)
    record = measure(task(tmp_path, examples))
    assert record["images"] == {"given": 20}
    assert record["signal"] is not None or "triggers were found" in record["why_not"]


def test_where_it_cannot_tell_it_says_one_half_and_why(tmp_path: Path) -> None:
    torch.save(small(), tmp_path / "model.pt")
    examples = write_colours(tmp_path / "examples", [3], told=False)
    record = detect(task(tmp_path, examples), tmp_path / "output")
    assert (tmp_path / "output").read_text() == "0.5\n"
    assert record["why_not"] == "5 of 5 classes have fewer than 2 clean images"
    many = write_colours(tmp_path / "many", [0, 1, 2, 3, 4] * 4, told=True)
    assert "chance" in measure(task(tmp_path, many))["why_not"]  # it was never trained


def test_a_model_of_round_4_sees_the_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, seen = write_round4(tmp_path / "active"), []

    def distances(_model: Path, data: str, *_: object, **__: object) -> tuple[None, Any]:
        with np.load(data) as held:
            seen.append(held["x"].shape[1:])
        return None, {"class_distance": {}}

    monkeypatch.setattr(detection, "distance_file", distances)
    clean = folder / "clean_example_data"
    assert measure(task(folder, clean, scratch=tmp_path))["round"] == "round4"
    (folder / "config.json").unlink()  # as the server hides it
    assert measure(task(folder, clean, scratch=tmp_path))["round"] == "round4"
    assert seen == [(56, 56, 3)] * 2
    assert measure(task(folder, clean, scratch=tmp_path, round_name="round11"))["round"] == "round11"


def test_the_signal_is_how_much_smaller_the_smallest_is() -> None:
    assert signal_of([10, 10, 10]) == 0
    assert signal_of([5, 10, 20]) == pytest.approx(math.log(2))
    usual = Curve()
    assert usual.probability(math.log(2)) == pytest.approx(0.5)
    assert 0.01 <= usual.probability(0) < 0.2
    assert usual.probability(100) == pytest.approx(0.99)


def test_a_curve_is_learnt_from_models_that_are_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signals = {}
    for number in range(8):
        folder = write_round4(tmp_path / f"round/id-0000000{number}")
        (folder / "ground_truth.csv").write_text(str(number % 2))
        config = json.loads((folder / "config.json").read_text()) | {"poisoned": bool(number % 2)}
        (folder / "config.json").write_text(json.dumps(config))
        signals[folder / "model.pt"] = 2.0 + number / 10 if number % 2 else number / 10
    told = {"signal": None, "why_not": "too few"}
    monkeypatch.setattr(
        detection,
        "measure",
        lambda task, **_: told if "00000004" in str(task.model) else {"signal": signals[task.model]},
    )
    learned = tmp_path / "learned"
    record = configure(tmp_path / "round", learned, task(tmp_path, tmp_path))
    assert record["left_out"] == {"id-00000004": "too few"}
    curve = read_curve(learned)
    assert curve.models == 7
    assert all((curve.probability(signal) > 0.5) == (signal >= 2) for signal in signals.values())
    for folder in (tmp_path / "round").glob("*[1357]"):
        (folder / "model.pt").unlink()
        monkeypatch.setattr(detection, "find_models", lambda _: [tmp_path / "round/id-00000000"])
    with pytest.raises(ConfigError, match="0 of 1 measured models are poisoned"):
        configure(tmp_path / "round", learned, task(tmp_path, tmp_path))


def test_what_is_learnt_has_the_least_cross_entropy_and_stays_finite() -> None:
    rng = np.random.default_rng(0)
    truths = [bool(k % 2) for k in range(400)]
    signals = [float(rng.normal(1.0 if truth else 0.0, 1.0)) for truth in truths]
    curve = learn(signals, truths)  # of two normals one apart: slope 1, offset -1/2
    assert curve.slope == pytest.approx(1.0, abs=0.3)
    assert curve.offset == pytest.approx(-0.5, abs=0.3)
    apart = learn([0.0, 5.0], [False, True])
    assert math.isfinite(apart.slope) and apart.probability(5.0) > 0.9 > 0.1 > apart.probability(0.0)


def test_what_lies_among_learned_parameters_is_checked(tmp_path: Path) -> None:
    assert read_curve(None) == read_curve(tmp_path) == Curve()
    (tmp_path / "detection.json").write_text('{"slope": "steep"}')
    with pytest.raises(ConfigError, match="valid number"):
        read_curve(tmp_path)


def test_the_schema_says_what_metaparameters_of_detection_may_be(tmp_path: Path) -> None:
    schema = json.loads((DEPLOY / "detection_schema.json").read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    assert set(schema["properties"]) == set(DetectionParameters.model_fields)
    for values in schema["properties"].values():
        assert {"minimum", "maximum"} <= set(values) or "enum" in values
    files = DEPLOY / "detection.json", DEPLOY / "detection_schema.json"
    assert read_detection(*files) == DetectionParameters() == read_detection(None, None)
    (tmp_path / "m.json").write_text('{"steps": 0}')
    with pytest.raises(ConfigError, match=r"\$\.steps: 0 is less"):
        read_detection(tmp_path / "m.json", files[1])
