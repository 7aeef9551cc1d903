"""The demo's promise, kept: run with ``pytest -m slow``; a minute or two."""

from pathlib import Path
from statistics import mean

import pytest

import mothkit

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.slow
def test_the_example_loses_its_backdoor_and_keeps_its_accuracy(tmp_path: Path) -> None:
    drops = []
    for seed in (0, 1, 2):
        record = mothkit.harden(
            EXAMPLES / "signs_poisoned.onnx",
            EXAMPLES / "signs_clean.zip",
            tmp_path / f"{seed}.onnx",
            eval_data=EXAMPLES / "signs_test.zip",
            triggers=[EXAMPLES / "trigger.toml"],
            preprocess="unit",
            max_accuracy_drop=2,
            device="cpu",
            seed=seed,
        ).record
        before, after = record["before"], record["after"]
        assert before["triggers"][0]["asr"]["value"] >= 0.95
        assert after["triggers"][0]["asr"]["value"] <= 0.03
        drops.append(before["accuracy"]["value"] - after["accuracy"]["value"])
    assert drops[0] <= 0.01  # what make demo runs
    assert mean(drops) <= 0.01
    assert max(drops) <= 0.015  # 690 images: seeds differ by half a point
