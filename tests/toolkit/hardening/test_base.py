import time

import pytest

from mothkit.errors import ConfigError
from mothkit.hardening.base import Budget


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("steps", 0, "steps is 0, not at least 1"),
        ("seconds", 0.0, "the time budget is 0.0 s, not above 0"),
        ("max_accuracy_drop", -0.1, "max_accuracy_drop is -0.1 points, not in 0 to 100"),
        ("max_accuracy_drop", 100.1, "max_accuracy_drop is 100.1 points"),
        ("max_accuracy_drop", float("nan"), "max_accuracy_drop is nan points"),
        ("seconds", float("nan"), "the time budget is nan s"),
    ],
)
def test_budgets_out_of_range_are_refused(name: str, value: float, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Budget(**{name: value})  # type: ignore[arg-type]


def test_time_is_spent_when_it_is_over_and_never_without_a_bound() -> None:
    now = time.monotonic()
    assert not Budget().is_spent(now - 1e9)
    assert not Budget(seconds=1000).is_spent(now)
    assert Budget(seconds=1000).is_spent(now - 1001)
