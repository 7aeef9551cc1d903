"""A round from its making to the report of its batch, as a new user goes; then damaged."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from mothkit.trojai.pickles.rebuild import load_module

Run = Callable[..., Result]


@pytest.mark.slow
def test_a_round_is_made_and_hardened_and_reported_and_damage_costs_its_own_models(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    network = ("--architecture", "shufflenet1_0", "--classes", 4, "--size", 64, "--train-images", 200)
    made = run(
        "trojai", "make", "round", "--models", 2, *network, "--epochs", 10, "--examples", 5, "--device", "cpu"
    )
    assert made.exit_code in (0, 1), made.stderr  # it may not have converged
    sound, broken = Path("round/id-00000001"), Path("round/id-00000002")
    shutil.copytree(sound, broken)
    with (broken / "model.pt").open("r+b") as file:
        file.truncate(1_000_000)
    shutil.copytree(sound, "round/id-00000003")
    Path("round/id-00000003/model.pt").unlink()
    Path("round/METADATA.csv").unlink()

    asked = (
        "round/",
        "-o",
        "out/",
        "--draw",
        20,
        "--method",
        "finetune",
        "--max-accuracy-drop",
        50,
        "--device",
        "cpu",
    )
    ended = run("batch", "harden", *asked, "--jobs", 1)
    assert ended.exit_code == 2, ended.stderr
    assert "Traceback" not in ended.stderr
    reported = run("batch", "report", "out/", "--html", "out.html", "--json", "-")
    assert reported.exit_code == 0
    lines = {line["model"]: line for line in json.loads(reported.stdout)["models"]}
    assert [line["status"] for line in lines.values()] == ["done", "done", "failed", "failed"]
    assert "it was cut" in lines[broken.name]["reason"]
    assert "No such file" in lines["id-00000003"]["reason"]
    assert (
        lines[sound.name]["fidelity"] is not None
        and lines[sound.name]["architecture"] == "shufflenet_v2_x1_0"
    )
    assert load_module(Path("out") / sound.name / "model.pt").classes == 4
    page = Path("out.html").read_text()
    assert all(name in page for name in lines)
