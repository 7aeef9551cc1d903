"""ONNX's own backend cases, all of them: right, or in a list with the reason why not."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from benchmarks.backend_suite import KINDS, cases, judge

REASONS: dict[str, list[str]] = tomllib.loads(
    Path(__file__).with_name("conformance_known.toml").read_text(encoding="utf-8")
)
KNOWN = [case for names in REASONS.values() for case in names]
MOST = 274  # how long the list is: it may only become shorter

pytestmark = pytest.mark.conformance


@pytest.mark.filterwarnings("ignore")  # the suite's own arithmetic overflows on purpose
@pytest.mark.parametrize("kind", KINDS)
def test_each_backend_case_is_right_or_listed(kind: str) -> None:
    wrong = {}
    for key, case in cases().items():
        if case.kind == kind:
            verdict, expected = judge(case), ("refused", "rounded") if key in KNOWN else ("right",)
            if verdict.outcome not in expected:
                wrong[key] = f"{verdict.outcome}, expected {' or '.join(expected)}: {verdict.why}"
    assert not wrong


def test_the_list_names_cases_that_exist_once_and_only_shrinks() -> None:
    assert len(KNOWN) == len(set(KNOWN))
    assert set(KNOWN) <= set(cases())
    assert len(KNOWN) <= MOST
