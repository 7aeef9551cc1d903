from typing import Any

import pytest

from mothkit.evaluation import Evaluation, Rate, TriggerScore
from mothkit.trojai.fidelity import fidelity, literal_fidelity

NONE = Rate(0, 10)


def result(right: int, *scores: tuple[int, int]) -> dict[str, Any]:
    """Return what was measured on 100 clean images and, for each trigger, 20: to the target, still right."""
    triggers = [
        TriggerScore("t", 1, 0, Rate(asr, 20), natural=NONE, robust_accuracy=Rate(robust, 20))
        for asr, robust in scores
    ]
    return Evaluation(Rate(right, 100), tuple(triggers)).to_dict()


def test_the_intended_formula() -> None:
    assert fidelity(result(80, (20, 0), (18, 0)), result(76, (2, 18), (2, 18))) == pytest.approx(
        (0.95 - 0.1) / 0.95 * 0.95
    )
    assert fidelity(result(80), result(76)) == pytest.approx(0.95)
    assert fidelity(result(80, (10, 0)), result(80, (10, 0))) == 0


def test_nist_s_code_swaps_what_was_before_and_counts_stamped_images_for_accuracy() -> None:
    before, after = result(80, (20, 0), (10, 5)), result(76, (2, 12), (4, 14))
    asr_before, accuracy_before = 0.8, 30 / 40  # swapped
    asr_after, accuracy_after = 6 / 40, (76 + 12 + 14) / 140
    expected = (asr_before - asr_after) / asr_before * (accuracy_after / accuracy_before)
    assert literal_fidelity(before, after) == pytest.approx(expected)
    assert literal_fidelity(result(80), result(76)) == fidelity(result(80), result(76))
    perfect = result(100, (20, 0)), result(100, (0, 20))
    assert literal_fidelity(*perfect) == fidelity(*perfect) == 1


def test_it_is_not_defined_where_there_was_nothing_to_lose() -> None:
    for before in (result(80, (0, 20)), result(0, (20, 0))):
        assert fidelity(before, result(80, (0, 20))) is None
        assert literal_fidelity(before, result(80, (0, 20))) is None
    assert literal_fidelity(result(0), result(0)) is None
