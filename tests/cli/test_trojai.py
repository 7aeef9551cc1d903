import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import Result

from tests.toolkit.trojai.folders import FILTER, write_round4
from tests.toolkit.trojai.hostile import HOSTILE, mark, small
from tests.toolkit.trojai.pictures import write_picture

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


def test_a_damaged_model_costs_its_own_line_of_ls(run: Run, folder: Path) -> None:
    (folder / "id-00000005").mkdir()
    (folder / "id-00000005/config.json").write_text("{")
    done = run("trojai", "ls", folder, "--json", folder / "round.json")
    assert done.exit_code == 0
    sound, broken = json.loads((folder / "round.json").read_text())["models"]
    assert (sound["round"], broken["round"]) == ("round4", None)
    assert "cannot be read as JSON" in broken["contradictions"][0]


def test_what_is_no_round_is_refused(run: Run, tmp_path: Path) -> None:
    result = run("trojai", "ls", tmp_path)
    assert result.exit_code == 2
    assert "holds 0 models" in result.stderr


def test_a_pickled_model_becomes_onnx_and_a_pickle_again(run: Run, folder: Path) -> None:
    model = folder / "id-00000004"
    config = json.loads((model / "config.json").read_text()) | {"model_architecture": "squeezenetv1_1"}
    (model / "config.json").write_text(json.dumps(config))
    (model / "clean_example_data").mkdir()
    write_picture(model / "clean_example_data/class_0_example_0.png", side=64)
    torch.save(small(), model / "model.pt")
    done = run("trojai", "convert", model, "-o", folder / "model.onnx", "--json", folder / "record.json")
    assert done.exit_code == 0, done.stderr
    assert "round4" in done.stdout
    record = json.loads((folder / "record.json").read_text())
    assert (record["architecture"], record["resize"], record["parity"]["flips"]) == (
        "squeezenet1_1",
        "crop",
        0,
    )
    packed = run(
        "trojai", "pack", folder / "model.onnx", "--like", model / "model.pt", "-o", folder / "out.pt"
    )
    assert packed.exit_code == 0, packed.stderr
    weights = torch.load(folder / "out.pt", weights_only=False).state_dict()
    assert all(torch.equal(weights[name], value) for name, value in small().state_dict().items())


def test_prepare_tells_what_comes_next(run: Run, tmp_path: Path) -> None:
    model = write_round4(tmp_path / "id-00000000", FILTER)
    done = run("trojai", "prepare", model, "-o", tmp_path / "work", "--json", tmp_path / "record.json")
    assert done.exit_code == 0, done.stderr
    told = " ".join(done.stderr.split())
    assert "put on 2 filtered images again" in told
    assert f"--data {model / 'clean_example_data'} --trigger {tmp_path / 'work/trigger_1.toml'}" in told
    assert json.loads((tmp_path / "record.json").read_text())["round"] == "round4"


def test_a_hostile_pickle_is_refused_with_what_it_asks_for(run: Run, folder: Path) -> None:
    model = folder / "id-00000004/model.pt"
    model.write_bytes(HOSTILE["os.system"](folder))
    done = run("trojai", "convert", model.parent, "-o", folder / "model.onnx")
    assert done.exit_code == 2
    assert "posix.system" in done.stderr
    assert not mark(folder).exists()


def test_a_round_is_made_and_listed(run: Run, tmp_path: Path) -> None:
    small_ones = ("--architecture", "squeezenetv1_1", "--classes", 4, "--size", 32, "--train-images", 8)
    made = run(
        *("trojai", "make", tmp_path / "round", "--models", 2, *small_ones, "--examples", 2),
        *("--epochs", 1, "--batch-size", 16, "--json", tmp_path / "made.json", "--device", "cpu"),
    )
    assert made.exit_code == 1, made.stderr  # nothing is learnt in two steps
    records = json.loads((tmp_path / "made.json").read_text())["models"]
    assert [each["converged"] for each in records] == [False, False]
    listed = run("trojai", "ls", tmp_path / "round")
    assert listed.exit_code == 0
    assert "id-00000001" in listed.stdout


def test_what_stands_at_out_is_not_mixed_with_a_round(run: Run, folder: Path) -> None:
    made = run("trojai", "make", folder, "--architecture", "resnet18")
    assert made.exit_code == 2
    assert "holds files already" in made.stderr


def test_nist_s_api_takes_nist_s_arguments(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    write_picture(tmp_path / "data/5.png", side=64)
    torch.save(small(), tmp_path / "model.pt")
    deploy = Path(__file__).resolve().parents[2] / "deploy/trojai"
    files = (deploy / "metaparameters.json", deploy / "metaparameters_schema.json")
    common = (
        "--metaparameters_filepath",
        files[0],
        "--schema_filepath",
        files[1],
        "--dataset",
        tmp_path / "data",
    )
    more = ("--batch_size", 8, "--num_workers", 2, "--scratch_dirpath", "scratch")
    done = run("trojai", "mitigate", *common, *more, "--device", "cpu")
    assert done.exit_code == 0, done.stderr
    assert "which is the original" in done.stderr
    tested = run("trojai", "test", *common, *more, "--device", "cpu", "--model_filepath", "out/mitigated.pt")
    assert tested.exit_code == 0, tested.stderr
    assert [len(logits) for logits in json.loads(Path("out/results.json").read_text()).values()] == [5]


def test_the_detection_api_takes_nist_s_arguments(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    write_picture(tmp_path / "data/5.png", side=64)
    torch.save(small(), tmp_path / "model.pt")
    deploy = Path(__file__).resolve().parents[2] / "deploy/trojai"
    old = ("--model_filepath", "model.pt", "--result_filepath", "out/result", "--scratch_dirpath", "scratch")
    new = (
        "--metaparameters_filepath",
        deploy / "detection.json",
        "--schema_filepath",
        deploy / "detection_schema.json",
    )
    more = (
        "--learned_parameters_dirpath",
        "learned",
        "--features_filepath",
        "f.csv",
        "--source_dataset_dirpath",
        "s",
    )
    for words in ((), (*new, *more, "--round_training_dataset_dirpath", "round")):
        done = run("trojai", "detect", *old, "--examples_dirpath", "data", *words, "--device", "cpu")
        assert done.exit_code == 0, done.stderr
        assert Path("out/result").read_text() == "0.5\n"
        assert "fewer than 2 clean images" in " ".join(done.stderr.split())
    assert run("trojai", "detect", *old, "--configure_mode", "--device", "cpu").exit_code == 2
