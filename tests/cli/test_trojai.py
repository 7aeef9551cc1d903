import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

Run = Callable[..., Result]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    config = {
        "poisoned": True,
        "number_classes": 5,
        "model_architecture": "resnet18",
        "triggers": [
            {
                "source_class": 1,
                "target_class": 2,
                "type": "instagram",
                "instagram_filter_type": "KelvinFilterXForm",
            }
        ],
    }
    (tmp_path / "id-00000004").mkdir()
    (tmp_path / "id-00000004/config.json").write_text(json.dumps(config))
    return tmp_path


def test_ls_tells_what_a_round_holds(run: Run, folder: Path) -> None:
    result = run("trojai", "ls", folder)
    assert result.exit_code == 0
    for word in ("id-00000004", "round4", "resnet18", "filter kelvin 1>2", "model.pt, clean examples"):
        assert word in result.stdout


def test_ls_writes_its_record(run: Run, folder: Path) -> None:
    (model,) = json.loads(run("trojai", "ls", folder, "--json", "-").stdout)["models"]
    assert (model["round"], model["poisoned"]) == ("round4", True)
    assert model["triggers"][0]["target"] == 2


def test_what_is_no_round_is_refused(run: Run, tmp_path: Path) -> None:
    result = run("trojai", "ls", tmp_path)
    assert result.exit_code == 2
    assert "holds 0 models" in result.stderr
