import tomllib
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mothkit.gate.lines import key_lines
from mothkit.gate.policy import PRESETS, Policy, PolicyError, load_policy, preset_text, read_policy

MALFORMED = {
    # text: (line, key) of the one problem
    "version = 2": (1, "version"),
    "version = '1'": (1, "version"),
    "[accuracy]\nmin = 0.5": (1, "version"),
    "version = 1\nversion = 1": (2, "version"),
    "version = 1\n[accuracy\nmin = 0.5": (2, "accuracy"),
    "version = 1\n[accuracy]\nmin = ": (3, "min"),
    "version = 1\n[accuracy]\nmin = 0.5.5": (3, "min"),
    "version = 1\npreset = 'lax'": (2, "preset"),
    "version = 1\n\n[accurracy]\nmin = 0.5": (3, "accurracy"),
    "version = 1\naccuracy = 0.5": (2, "accuracy"),
    "version = 1\n[accuracy]\nminimum = 0.5\nmin = 0.5": (3, "accuracy.minimum"),
    "version = 1\n[accuracy]\nmin = 1.5": (3, "accuracy.min"),
    "version = 1\n[accuracy]\nmin = -0.1": (3, "accuracy.min"),
    "version = 1\n[accuracy]\nmin = nan": (3, "accuracy.min"),
    "version = 1\n[accuracy]\nmin = inf": (3, "accuracy.min"),
    "version = 1\n[accuracy]\nmin = true": (3, "accuracy.min"),
    "version = 1\n[accuracy]\nmin = '0.5'": (3, "accuracy.min"),
    "version = 1\n[accuracy]\n# nothing": (2, "accuracy"),
    "version = 1\n[accuracy]\nlevel = 'warn'": (2, "accuracy"),
    "version = 1\n[accuracy]\nlevel = 'error'\nmin = 0.5": (3, "accuracy.level"),
    "version = 1\n[accuracy_drop]\nrequired = true": (2, "accuracy_drop"),
    "version = 1\n[triggers]\nrequired = 1\nmax_asr = 0.1": (3, "triggers.required"),
    "version = 1\n[triggers]\nmax_asr = 2024-01-01": (3, "triggers.max_asr"),
    "version = 1\n[operators]\nallow = []": (3, "operators.allow"),
    "version = 1\n[operators]\nallow = [\n  'Conv',\n  3,\n]": (3, "operators.allow.1"),
    "version = 1\n[operators]\nallow = 'Conv'": (3, "operators.allow"),
    "version = 1\n[operators]\nmin_opset = 0": (3, "operators.min_opset"),
    "version = 1\n[operators]\nmax_opset = 13.0": (3, "operators.max_opset"),
    "version = 1\n[file]\nmax_bytes = 0": (3, "file.max_bytes"),
    "version = 1\n[parity]\nproviders = ['']": (3, "parity.providers.0"),
    "version = 1\n[distance]\nmin_mean = 3\nclasses = [0]": (4, "distance.classes"),
    "version = 1\n[anomaly]\nmax_index = -1": (3, "anomaly.max_index"),
    "version = 1\n[anomaly]\nmin_share = 40": (3, "anomaly.min_share"),
    "version = 1\n[anomaly]\nlevel = 'fail'": (2, "anomaly"),
    "version = 1\n[budget]\nseconds = 0": (3, "budget.seconds"),
    "version = 1\nbudget = { seconds = -3 }": (2, "budget.seconds"),
    "version = 1\n[provenance]\nsignature = true": (3, "provenance.signature"),
    "version = 1\npreset = 'strict'\n[anomaly]\nindex = 3": (4, "anomaly.index"),
}


@pytest.mark.parametrize("text", MALFORMED)
def test_a_malformed_policy_is_refused_with_line_and_key(text: str) -> None:
    line, key = MALFORMED[text]
    with pytest.raises(PolicyError) as caught:
        read_policy(text, "p.toml")
    assert [problem[:2] for problem in caught.value.problems] == [(line, key)]
    assert str(caught.value).startswith(f"p.toml:{line}: {key}: ")


def test_every_problem_is_told_in_the_files_order() -> None:
    text = "version = 1\n[triggers]\nmax_asr = 3\n[accuracy]\nmin = 7\nfoo = 1\n"
    with pytest.raises(PolicyError) as caught:
        read_policy(text, "p.toml")
    assert [problem[0] for problem in caught.value.problems] == [3, 5, 6]
    assert "known here: level, min, min_lower" in caught.value.lines[2]


@pytest.mark.parametrize(("content", "line"), [(b"version = 1\n# \xff", 2), (b"#" * 70_000, 1)])
def test_what_is_no_text_or_too_long_is_refused(content: bytes, line: int, tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_bytes(content)
    with pytest.raises(PolicyError) as caught:
        load_policy(tmp_path / "p.toml")
    assert caught.value.problems[0][0] == line


def test_a_policy_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="cannot be read"):
        load_policy(tmp_path / "none.toml")


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_policies_and_fit_the_schema(name: str) -> None:
    values = tomllib.loads(preset_text(name))
    jsonschema.validate(values, Policy.model_json_schema())
    assert load_policy(name).policy == Policy.model_validate(values)


def test_a_policy_changes_single_keys_of_its_preset() -> None:
    policy = read_policy("version = 1\npreset = 'strict'\n[anomaly]\nmax_index = 9\n", "p").policy
    strict = load_policy("strict").policy
    assert policy.anomaly is not None
    assert (policy.anomaly.max_index, policy.anomaly.level) == (9, "fail")
    assert policy.triggers == strict.triggers


def test_a_check_that_is_off_is_not_made() -> None:
    policy = read_policy("version = 1\n[accuracy]\nlevel = 'off'\n[file]\n", "p").policy
    assert list(policy.checks()) == ["file"]


@given(st.lists(st.sampled_from(["", "# note", "  "]), max_size=3), st.integers(1, 3))
def test_lines_are_those_of_the_statements(padding: list[str], extra: int) -> None:
    text = ['c = """', "[x]", "d = 1", '"""']
    rows = [*padding, "a = 1", *padding, "[t]", "b = [", *["  1,"] * extra, "]", *text, "e.f = 2"]
    lines = key_lines("\n".join(rows))
    expected = {"a": "a = 1", "t": "[t]", "t.b": "b = [", "t.c": 'c = """', "t.e.f": "e.f = 2"}
    for path, row in expected.items():
        assert lines[tuple(path.split("."))] == rows.index(row) + 1
    assert ("x",) not in lines
