"""The demo's promise, kept: run with ``pytest -m slow``; a minute or two."""

from pathlib import Path

import pytest

import mothkit

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_example_loses_its_backdoor_and_keeps_its_accuracy(tmp_path: Path, seed: int) -> None:
    record = mothkit.harden(
        EXAMPLES / "signs_poisoned.onnx",
        EXAMPLES / "signs_clean.zip",
        tmp_path / "hardened.onnx",
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
    assert after["accuracy"]["value"] >= before["accuracy"]["value"] - 0.01
