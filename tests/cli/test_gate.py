import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import pytest
from junitparser import JUnitXml
from typer.testing import Result

from mothkit.gate.outputs import VIEWS
from mothkit.gate.rules import RULES
from tests.tiny import write_images, write_tiny

Run = Callable[..., Result]

ROOT = Path(__file__).resolve().parents[2]
SARIF = json.loads((ROOT / "tests/golden/sarif-schema-2.1.0.json").read_text())
GATE = ("gate", "m.onnx", "--preprocess", "unit", "--device", "cpu", "--quiet", "--policy")
OUTPUTS = {"json": "r.json", "junit": "r.xml", "sarif": "r.sarif", "summary": "r.md", "html": "r.html"}
ALL = tuple(word for name, file in OUTPUTS.items() for word in (f"--{name}", file))
POLICIES = {
    # name: text, exit code
    "pass": ("[file]\n[accuracy]\nmin = 0.9\n", 0),
    "warn": ("[file]\nlevel = 'warn'\nmax_bytes = 1\n[accuracy]\nmin = 0.9\n", 0),
    "violated": ("[file]\nmax_bytes = 1\n[accuracy]\nmin = 0.9\n", 1),
    "error": ("[file]\n[triggers]\nmax_asr = 0.1\n", 2),
    "nothing": ("[triggers]\nrequired = false\nmax_asr = 0.1\n", 3),
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a model, images and policies."""
    monkeypatch.chdir(tmp_path)
    write_tiny(Path("m.onnx"))
    write_images(Path("t.npz"), 15)
    for name, (text, _) in POLICIES.items():
        Path(f"{name}.toml").write_text(f"version = 1\n{text}")
    return tmp_path


@pytest.mark.parametrize("name", POLICIES)
def test_every_output_says_what_the_exit_code_says(name: str, run: Run) -> None:
    code = POLICIES[name][1]
    done = run(*GATE, f"{name}.toml", "--data", "t.npz", *ALL)
    assert done.exit_code == code, done.output
    record = json.loads(Path("r.json").read_text())
    assert record["exit_code"] == code
    by_status = [finding["status"] for finding in record["findings"]]

    suite = next(iter(JUnitXml.fromfile("r.xml")))
    assert suite.tests == len(by_status)
    assert suite.errors == by_status.count("error")
    assert suite.failures == (by_status.count("violated") if code == 1 else 0)
    assert suite.skipped == by_status.count("skipped")

    log = json.loads(Path("r.sarif").read_text())
    jsonschema.validate(log, SARIF)
    (ran,) = log["runs"]
    levels = [result["level"] for result in ran["results"]]
    assert levels == {"violated": ["error"], "error": ["error"], "warn": ["warning"]}.get(name, [])
    assert ran["invocations"][0]["executionSuccessful"] == (code in (0, 1))
    assert [rule["id"] for rule in ran["tool"]["driver"]["rules"]] == list(RULES)
    for result in ran["results"]:
        assert ran["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
    assert f"exit code {code}" in Path("r.md").read_text()
    assert f"exit code {code}" in Path("r.html").read_text()


def test_outputs_of_two_runs_are_the_same_but_for_times(run: Run) -> None:
    found = []
    for _ in range(2):
        assert run(*GATE, "violated.toml", "--data", "t.npz", *ALL).exit_code == 1
        found.append(
            [Path(file).read_text() for name, file in OUTPUTS.items() if name not in ("json", "html")]
        )
    assert found[0] == found[1]


def test_a_run_that_cannot_begin_leaves_old_files_alone(run: Run) -> None:
    for file in OUTPUTS.values():
        Path(file).write_text("old")
    Path("bad.toml").write_text("version = 1\n[accuracy]\nmini = 1\n")
    for words in (
        (*GATE, "bad.toml", "--data", "t.npz", *ALL),
        (*GATE, "none.toml", *ALL),
        ("gate", "none.onnx", "--policy", "basic", *ALL),
        (*GATE, "basic", "--trigger", "none.toml", *ALL),
        (*GATE, "basic", "--budget", "soon", *ALL),
        ("gate", "m.onnx", *ALL),
    ):
        assert run(*words).exit_code == 2
    assert {Path(file).read_text() for file in OUTPUTS.values()} == {"old"}
    assert "bad.toml:3: accuracy.mini: is not known" in run(*GATE, "bad.toml").stderr


@pytest.mark.parametrize(
    "words",
    [
        ("--junit", "same", "--sarif", "same"),
        ("--summary", "pass.toml"),
        ("--junit", "m.onnx"),
        ("--sarif", "t.npz"),
        ("--json", "./a", "--summary", "a"),
        ("--junit", "none/r.xml"),
    ],
)
def test_outputs_that_would_replace_something_are_refused(words: tuple[str, ...], run: Run) -> None:
    before = {path: path.read_bytes() for path in Path().iterdir()}
    assert run(*GATE, "pass.toml", "--data", "t.npz", *words).exit_code == 2
    assert {path: path.read_bytes() for path in Path().iterdir()} == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_a_full_disk_is_told_with_the_file_s_name(run: Run) -> None:
    done = run(*GATE, "pass.toml", "--data", "t.npz", "--summary", "/dev/full", "--json", "r.json")
    assert done.exit_code == 2
    assert done.stderr.startswith("error: /dev/full: the results cannot be written (No space left on device)")
    assert not Path("r.json").exists()


def test_json_alone_on_stdout(run: Run) -> None:
    done = run(*GATE, "violated.toml", "--data", "t.npz", "--json", "-")
    assert (done.exit_code, json.loads(done.stdout)["verdict"]) == (1, "violated")
    assert "file.size" in done.stderr


def test_names_of_strangers_mean_nothing_in_any_output() -> None:
    evil = "x`|</testsuite>\x00\x1b[31m\u202e](javascript:1)<script>\n# h\udcff"
    finding = {
        "rule": "triggers.max-asr",
        "status": "violated",
        "level": "fail",
        "measured": None,
        "limit": 0.1,
    }
    record = {
        "versions": {"mothkit": "1"},
        "verdict": "violated",
        "exit_code": 1,
        "policy": {"name": evil, "sha256": "0"},
        "model_in": {"path": evil, "sha256": "0" * 64},
        "findings": [finding | {"subject": evil, "message": evil}],
    }
    text = {
        name: view(record) for name, view in VIEWS.items() if name != "html"
    }  # see the tests of the report
    for name, each in text.items():
        each.encode()
        assert name == "json" or not set("\x00\x1b\u202e") & set(each)  # JSON keeps what it can write out
    assert len(ElementTree.fromstring(text["junit"].encode()).findall(".//testcase")) == 1  # noqa: S314 - our own
    jsonschema.validate(json.loads(text["sarif"]), SARIF)
    assert len(text["summary"].splitlines()) == 7
    assert "<script>" not in text["summary"].replace("`", "\0").split("\0")[-1]


def test_policies_are_printed_checked_and_described(run: Run) -> None:
    for name in ("basic", "strict"):
        Path("p.toml").write_text(run("policy", "init", "--preset", name).stdout)
        done = run("policy", "check", "p.toml")
        assert done.exit_code == 0
        assert "accuracy: level fail" in done.stdout
    assert json.loads(run("policy", "schema").stdout)["additionalProperties"] is False
    Path("p.toml").write_text("version = 1\n[foo]\n[bar]\n")
    bad = run("policy", "check", "p.toml")
    assert bad.exit_code == 2
    assert [line.split(": is")[0] for line in bad.stderr.splitlines()] == [
        "error: p.toml:2: foo",
        "error: p.toml:3: bar",
    ]
    Path("p.toml").write_text("version = 1\n")
    assert run("policy", "check", "p.toml").exit_code == 3
    for words in (("check",), ("init", "p.toml"), ("check", "none.toml"), ("delete",)):
        assert run("policy", *words).exit_code == 2
