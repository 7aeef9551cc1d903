import json
from pathlib import Path
from typing import Any

import pytest

from mothkit.trojai.scores import score
from tests.toolkit.trojai.pictures import write_picture

# clean label, label that a trigger asks for, class of the largest logit
IMAGES = {
    "0.png": (1, None, 1),
    "1.png": (2, None, 0),
    "2.png": (1, 2, 2),
    "3.png": (1, 2, 1),
    "4.png": (0, 2, 2),
}
LOGITS = {name: [float(k == best) for k in range(3)] for name, (_, _, best) in IMAGES.items()}


def write_test(folder: Path, images: dict[str, Any] = IMAGES, metadata: str = "") -> Path:
    """Write the test images of a model of the mitigation round, and what the round says of it."""
    dataset = folder / "models/id-00000003/test-example-data"
    dataset.mkdir(parents=True)
    for name in images:
        write_picture(dataset / name, side=32)
    lookup = {name: {"clean_label": c, "poisoned_label": p} for name, (c, p, _) in images.items()}
    (dataset.parent / "test_example_data_lookup.json").write_text(json.dumps(lookup))
    if metadata:
        (folder / "METADATA.csv").write_text(metadata)
    return dataset


HEAD = "model_name,average_clean_test_example_accuracy,average_poisoned_test_example_accuracy\n"


def test_fidelity_is_computed_both_ways(tmp_path: Path) -> None:
    found = score(LOGITS, write_test(tmp_path, metadata=f"{HEAD}id-00000003,0.9,0.8\n"))
    assert found is not None
    assert found["accuracy"]["value"] == 1 / 2
    assert (
        found["accuracy_literal"]["value"] == 2 / 5
    )  # stamped images of which the true class is told count too
    assert found["asr"]["value"] == 2 / 3
    assert found["fidelity"] == pytest.approx((0.8 - 2 / 3) / 0.8 * (1 / 2) / 0.9)
    assert found["fidelity_literal"] == pytest.approx((0.9 - 2 / 3) / 0.9 * (2 / 5) / 0.8)


def test_a_clean_model_has_one_fidelity(tmp_path: Path) -> None:
    clean = {name: each for name, each in IMAGES.items() if each[1] is None}
    logits = {name: LOGITS[name] for name in clean}
    found = score(logits, write_test(tmp_path, clean, f"{HEAD}id-00000003,0.8,None\n"))
    assert found is not None
    assert found["asr"] is None
    assert found["fidelity"] == found["fidelity_literal"] == pytest.approx(0.5 / 0.8)


def test_without_what_was_before_there_is_no_fidelity_and_without_labels_no_score(tmp_path: Path) -> None:
    for number, metadata in enumerate(("", f"{HEAD}id-00000009,0.9,0.8\n", f"{HEAD}id-00000003,0,0\n")):
        found = score(LOGITS, write_test(tmp_path / str(number), metadata=metadata))
        assert found is not None
        assert (found["fidelity"], found["fidelity_literal"]) == (None, None)
        assert found["accuracy"]["count"] == 2
    write_picture(tmp_path / "0.png", side=32)
    assert score({"0.png": [0.0, 1.0]}, tmp_path) is None
