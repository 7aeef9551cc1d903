import json
from collections.abc import Callable

from typer.testing import Result

from mothkit.hardening.methods import METHODS

Run = Callable[..., Result]


def test_all_methods_are_listed_with_what_they_cost_and_need(run: Run) -> None:
    done = run("methods", "--json", "-")
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)["methods"]
    assert list(told) == list(METHODS)
    for name, entry in METHODS.items():
        assert f"\n{name} " in done.stderr
        assert entry.reference in done.stderr
    assert told["finetune"]["settings"]["learning_rate"] == 0.01


def test_one_method_is_listed_with_its_settings(run: Run) -> None:
    done = run("methods", "nc")
    assert done.exit_code == 0, done.stderr
    assert "inversion.success_rate" in done.stdout
    assert "finetune" not in done.stdout


def test_a_method_that_there_is_not_is_refused(run: Run) -> None:
    done = run("methods", "ft")
    assert done.exit_code == 2
    assert done.stderr.startswith("error: no method is called 'ft'; there are moth")
