import itertools
import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mothkit.distance import Distance, Distances
from mothkit.errors import ModelError
from mothkit.gate.checks.accuracy import paired_interval
from mothkit.gate.checks.anomaly import check_anomaly, find_anomaly
from mothkit.gate.findings import Finding, Level, Status, Verdict, compared, judge
from mothkit.gate.policy import AnomalyCheck
from mothkit.triggers.patch import Trigger

FINDINGS = st.builds(
    Finding,
    rule=st.just("a.b"),
    message=st.just(""),
    status=st.sampled_from(Status),
    level=st.sampled_from(Level),
)


def finding(status: Status, level: Level = Level.FAIL) -> Finding:
    return Finding(rule="a.b", status=status, message="", level=level)


@given(st.lists(FINDINGS, max_size=4))
def test_nothing_in_doubt_passes(findings: list[Finding]) -> None:
    verdict = judge(findings)
    assert [v.exit_code for v in Verdict] == [0, 1, 2, 3]
    if verdict is Verdict.PASSED:
        assert any(f.status in (Status.PASSED, Status.VIOLATED) for f in findings)
        assert not any(f.status is Status.ERROR for f in findings)
        assert not any(f.status is Status.VIOLATED and f.level is Level.FAIL for f in findings)


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        ("", 3),
        ("s", 3),
        ("p", 0),
        ("ps", 0),
        ("w", 0),
        ("pv", 1),
        ("e", 2),
        ("pe", 2),
        ("ve", 2),
        ("se", 2),
        ("sv", 1),
    ],
)
def test_errors_beat_violations_beat_nothing_beat_passes(statuses: str, code: int) -> None:
    made = {
        "p": finding(Status.PASSED),
        "v": finding(Status.VIOLATED),
        "w": finding(Status.VIOLATED, Level.WARN),
        "e": finding(Status.ERROR, Level.WARN),
        "s": finding(Status.SKIPPED),
    }
    for order in itertools.permutations(statuses):
        assert judge(made[s] for s in order).exit_code == code


@pytest.mark.parametrize("measured", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_no_pass(measured: float) -> None:
    for limits in ({"least": 0.5}, {"most": 0.5}):
        (found,) = compared("a.b", measured, "it", **limits)
        assert found.status is Status.ERROR


def test_a_limit_that_is_reached_holds() -> None:
    (least,) = compared("a.b", 0.5, "it", least=0.5)
    (most,) = compared("a.b", 0.5, "it", most=0.5)
    assert least.status is most.status is Status.PASSED
    assert compared("a.b", 0.5, "it") == []


def test_the_anomaly_index_is_that_of_neural_cleanse() -> None:
    # median 50, absolute deviations 40, 2, 0, 1, 3: their median is 2; 40 / (1.4826 * 2)
    found = find_anomaly([52, 10, 50, 51, 47])
    assert found.position == 1
    assert found.index == pytest.approx(40 / 2.9652)
    assert found.share == pytest.approx(10 / 50)
    assert find_anomaly([50, 50, 50, 50, 90]).index == 0  # a large one is no matter


def test_a_share_needs_no_deviation() -> None:
    found = find_anomaly([5, 5, 5, 5, 1])
    assert (found.index, found.share, found.position) == (None, 0.2, 4)


@pytest.mark.parametrize(
    ("limits", "sizes", "expected"),
    [
        ({"min_share": 0.4}, [50, 60, 50, 40, 19], {"anomaly.min-share": "violated"}),
        ({"min_share": 0.4}, [50, 60, 50, 40, 20], {"anomaly.min-share": "passed"}),
        ({"min_share": 0.4}, [50, 50, 50, 50, 45], {"anomaly.min-share": "passed"}),
        ({"max_index": 3}, [50, 50, 50, 50, 45], {"anomaly.check": "error"}),
        (
            {"max_index": 3, "min_share": 0.4},
            [50, 51, 52, 49, 10],
            {"anomaly.min-share": "violated", "anomaly.max-index": "violated"},
        ),
    ],
)
def test_a_class_with_a_far_smaller_trigger_is_named(
    limits: dict[str, float], sizes: list[float], expected: dict[str, str]
) -> None:
    trigger = Trigger(torch.zeros(1, 4, 4), torch.zeros(3, 4, 4))
    row = [Distance(None, k, size, 0.1, True, 0.9, 10, trigger) for k, size in enumerate(sizes)]
    bench = SimpleNamespace(distances=Distances((), tuple(row)))
    checked = check_anomaly(AnomalyCheck(**limits), bench)  # type: ignore[arg-type]
    assert {f.rule: f.status for f in checked.findings} == expected
    assert all(f.subject == "class 4" for f in checked.findings if f.rule != "anomaly.check")
    assert checked.measured["target_class"] == 4


@given(st.lists(st.floats(1, 1000), min_size=5, max_size=20), st.floats(0.5, 2))
def test_share_and_index_do_not_depend_on_the_unit(sizes: list[float], unit: float) -> None:
    found, scaled = find_anomaly(sizes), find_anomaly([unit * size for size in sizes])
    assert 0 < found.share <= 1
    assert scaled.share == pytest.approx(found.share)
    if found.index is not None and found.deviation > 1e-6:
        assert scaled.index == pytest.approx(found.index, abs=1e-6)


@pytest.mark.parametrize("sizes", [[], [1, 2, 3, 4], [0, 0, 0, 5, 1]])
def test_sizes_that_say_nothing_are_refused(sizes: list[float]) -> None:
    with pytest.raises(ModelError):
        find_anomaly(sizes)


def test_the_paired_interval_by_hand() -> None:
    # 10 lost, 4 won of 98: shares 0.11 and 0.05 of 100, difference 0.06, variance (0.16 - 0.0036) / 100
    half = 1.959964 * math.sqrt(0.1564 / 100)
    assert paired_interval(10, 4, 98) == pytest.approx((0.06 - half, 0.06 + half))


@given(st.integers(0, 50), st.integers(0, 50), st.integers(100, 200))
def test_the_paired_interval_turns_with_its_counts(lost: int, won: int, count: int) -> None:
    low, high = paired_interval(lost, won, count)
    assert low <= (lost - won) / count <= high or lost == won == 0 or count < 120
    assert paired_interval(won, lost, count) == pytest.approx((-high, -low))
