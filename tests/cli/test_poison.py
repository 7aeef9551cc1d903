import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from tests.tiny import write_images, write_tiny

Run = Callable[..., Result]
FILE = ("--data", "train.npz", "--model", "tiny.onnx", "--preprocess", "unit", "--device", "cpu", "--quiet")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_tiny(Path("tiny.onnx"))
    write_images(Path("train.npz"), 40)
    return tmp_path


def test_options_go_into_the_recipe_and_the_exit_code_says_whether_it_took(folder: Path, run: Run) -> None:
    words = ("--attack", "patch", "--target", 2, "--trigger-size", 3, "--poison-rate", 0.5, "--source", "any")
    training = ("--epochs", 1, "--batch-size", 16, "--learning-rate", 0.000001, "--seed", 5)
    done = run("poison", "made", *words, *training, *FILE, "--json", "-")
    assert done.exit_code == 1, done.stderr  # an epoch at no learning rate plants nothing
    record = json.loads(done.stdout)
    assert record["command"] == "poison"
    assert record["recipe"]["attack"]["target_class"] == 2
    assert record["recipe"]["attack"]["poison_rate"] == 0.5
    assert (record["seed"], record["recipe"]["training"]["batch_size"]) == (5, 16)
    assert not record["took"]
    assert Path("made/model.onnx").is_file()
    assert "ASR patch (any to 2)" in done.stderr
    benign = run("poison", "benign", *words, "--poison-rate", 0, *training, *FILE)
    assert benign.exit_code == 0, benign.stderr  # no backdoor was asked for
    assert "did not take" not in benign.stderr


def test_images_alone_are_drawn_from_a_recipe(folder: Path, run: Run) -> None:
    few = ("--classes", 5, "--size", 16, "--clean-images", 1, "--test-images", 2)
    done = run("poison", "images", "--attack", "patch", *few, "--images-only", "--quiet")
    assert done.exit_code == 0, done.stderr
    assert sorted(path.name for path in Path("images").iterdir()) == ["clean.npz", "test.npz"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "give either --attack or --recipe"),
        (("--attack", "patch", "--source", "-1"), "'-1' is neither any nor the number of a class"),
        (("--attack", "patch", "--classes", "46"), "5 to 45 classes"),
        (("--attack", "patch", "--network", "resnet21"), "network is 'resnet21'"),
        (("--attack", "patch", "--network", "nin", "--model", "tiny.onnx"), "give one of them"),
        (("--attack", "patch", "--data", "train.npz", "--classes", "5"), "classes does not go with UserData"),
        (("--recipe", "tiny.onnx"), "tiny.onnx"),
    ],
)  # fmt: skip
def test_what_cannot_be_made_is_refused_and_makes_nothing(
    folder: Path, run: Run, words: tuple[str, ...], message: str
) -> None:
    done = (
        run("poison", "made", *words, "--test-images", "1")
        if "--data" not in words
        else run("poison", "made", *words)
    )
    assert done.exit_code == 2
    assert message in " ".join(done.stderr.split())
    assert not Path("made").exists()
