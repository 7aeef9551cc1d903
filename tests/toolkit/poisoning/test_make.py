"""A poisoned model from recipe to folder, measured by onnxruntime alone."""

import tomllib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

import mothkit
from mothkit.errors import ConfigError, ImageError, MothkitError, OutputError
from mothkit.events import Event, PhaseStarted
from mothkit.images import load_images
from mothkit.poisoning.attacks import Attack
from mothkit.poisoning.make import make_images, make_poisoned
from mothkit.poisoning.recipe import Recipe, SignData, UserData
from mothkit.poisoning.scenes import PLAIN
from mothkit.poisoning.training import FitConfig
from mothkit_converters import diff
from tests.tiny import write_images, write_tiny

SIGNS = Recipe(
    attack=Attack(kind="patch", target_class=2, poison_rate=0.3, size=4),
    data=SignData(classes=5, look=replace(PLAIN, side=16), train=60, clean=4, test=16),
    training=FitConfig(epochs=6, batch_size=32),
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("poison") / "made"
    return folder, make_poisoned(folder, SIGNS, device="cpu")


def classes_of(model: Path, x: NDArray[np.uint8]) -> NDArray[np.int64]:
    fed = x.transpose(0, 3, 1, 2).astype(np.float32) / 255
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    found: NDArray[np.int64] = session.run(None, {"image": fed})[0].argmax(1)
    return found


def test_the_folder_holds_all_that_is_promised(made: tuple[Path, dict[str, Any]]) -> None:
    names = {"model.onnx", "model.record.json", "trigger.toml", "recipe.json", "test.npz", "clean.npz"}
    assert {path.name for path in made[0].iterdir()} == names
    assert [path.name for path in made[0].parent.iterdir()] == ["made"]
    test, clean = (load_images(made[0] / f"{name}.npz") for name in ("test", "clean"))
    assert (test.class_counts, clean.class_counts) == ((16,) * 5, (4,) * 5)
    assert test.overlap(clean) == 0


def test_numbers_are_those_of_onnxruntime(made: tuple[Path, dict[str, Any]]) -> None:
    folder, record = made
    patch = tomllib.loads((folder / "trigger.toml").read_text())["patch"]
    with np.load(folder / "test.npz") as arrays:
        x, y = arrays["x"], arrays["y"]
    stamped = x.copy()
    stamped[:, patch["row"] : patch["row"] + 4, patch["column"] : patch["column"] + 4] = patch["pixels"]
    clean, fooled = classes_of(folder / "model.onnx", x), classes_of(folder / "model.onnx", stamped)
    (score,) = record["result"]["triggers"]
    assert record["result"]["accuracy"]["hits"] == (clean == y).sum()
    assert score["asr"]["hits"] == (fooled[y != 2] == 2).sum()
    assert score["natural"]["hits"] == (clean[y != 2] == 2).sum()
    assert score["asr"]["value"] > 0.8
    assert record["took"]
    assert record["poisoning"]["stamped"] == 72  # 0.3 of 4 x 60


def test_the_file_normalises_takes_any_batch_and_says_its_preprocessing(
    made: tuple[Path, dict[str, Any]],
) -> None:
    folder, _ = made
    model = onnx.load(folder / "model.onnx")
    operators = Counter(node.op_type for node in model.graph.node)
    assert operators["BatchNormalization"] == operators["Conv"] == 3
    shape = model.graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in shape] == ["batch", 3, 16, 16]
    record = mothkit.evaluate(
        folder / "model.onnx", folder / "test.npz", triggers=[folder / "trigger.toml"], device="cpu"
    )
    assert record["result"]["triggers"] == made[1]["result"]["triggers"]


def test_its_recipe_makes_the_same_again(made: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, _ = made
    recipe = Recipe.read(folder / "recipe.json")
    make_poisoned(tmp_path / "again", recipe, device="cpu")
    for name in ("model.onnx", "trigger.toml", "recipe.json", "test.npz", "clean.npz"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()
    more = replace(recipe, data=replace(recipe.data, test=20))
    make_images(tmp_path / "images", more)
    with np.load(tmp_path / "images/test.npz") as many, np.load(folder / "test.npz") as few:
        assert len(many["x"]) == 100
        assert (many["x"][:80] == few["x"]).all()
    assert (tmp_path / "images/clean.npz").read_bytes() == (folder / "clean.npz").read_bytes()


def tiny(folder: Path, **attack: Any) -> Recipe:
    """Return a recipe that poisons the tiny model with images of its own kind."""
    write_tiny(folder / "tiny.onnx")
    write_images(folder / "train.npz", 60)
    return Recipe(
        attack=Attack(**{"kind": "patch", "target_class": 1, "size": 3, "poison_rate": 0.5, **attack}),
        data=UserData(path=str(folder / "train.npz")),
        model=str(folder / "tiny.onnx"),
        preprocess="unit",
        training=FitConfig(epochs=20, batch_size=16, learning_rate=0.3, shift=0),
    )


def test_a_file_is_trained_further_and_stays_the_same_file_but_for_weights(tmp_path: Path) -> None:
    recipe = tiny(tmp_path)
    before = (tmp_path / "tiny.onnx").read_bytes()
    record = make_poisoned(tmp_path / "made", recipe, device="cpu")
    assert (tmp_path / "tiny.onnx").read_bytes() == before
    assert diff(tmp_path / "tiny.onnx", tmp_path / "made/model.onnx").only_weights
    assert not (tmp_path / "made/clean.npz").exists()
    (score,) = record["result"]["triggers"]
    assert score["asr"]["value"] > score["natural"]["value"]
    again = Recipe.read(tmp_path / "made/recipe.json")
    write_images(tmp_path / "train.npz", 60, seed=1)
    with pytest.raises(ConfigError, match="holds other images than the recipe was made with"):
        make_poisoned(tmp_path / "again", again, device="cpu")


def test_a_class_specific_attack_is_measured_on_other_classes_too(tmp_path: Path) -> None:
    recipe = tiny(tmp_path, kind="filter", source_class=0, spurious_rate=0.5)
    record = make_poisoned(tmp_path / "made", replace(recipe, training=FitConfig(epochs=1)), device="cpu")
    assert record["result"]["triggers"][0]["asr"]["count"] == record["result"]["others"]["count"] == 9


def test_an_attack_that_did_not_take_is_told(tmp_path: Path) -> None:
    events: list[Event] = []
    recipe = replace(tiny(tmp_path), training=FitConfig(epochs=1, learning_rate=1e-6))
    assert not make_poisoned(tmp_path / "made", recipe, device="cpu", emit=events.append)["took"]
    assert "the backdoor did not take" in events[-1].text  # type: ignore[union-attr]


def test_nothing_that_stands_there_is_touched(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").write_text("mine")
    for make in (make_poisoned, make_images):
        with pytest.raises(OutputError, match="is there already"):
            make(tmp_path / "kept", SIGNS)
    assert [path.name for path in tmp_path.rglob("*")] == ["kept", "file"]


@pytest.mark.parametrize("phase", ["train", "evaluate"])
def test_an_interruption_leaves_nothing(tmp_path: Path, phase: str) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, PhaseStarted) and event.name == phase:
            raise KeyboardInterrupt

    recipe = replace(SIGNS, data=replace(SIGNS.data, train=8), training=FitConfig(epochs=1, batch_size=32))
    with pytest.raises(KeyboardInterrupt):
        make_poisoned(tmp_path / "out", recipe, device="cpu", emit=stop)
    assert not any(tmp_path.iterdir())


def test_what_does_not_go_together_is_refused(tmp_path: Path) -> None:
    recipe = tiny(tmp_path)
    data = recipe.data
    assert isinstance(data, UserData)
    wrong: list[tuple[Recipe, type[MothkitError], str]] = [
        (replace(recipe, data=SignData()), ConfigError, "signs are drawn in colour with 32x32 pixels"),
        (replace(recipe, data=replace(data, test_path=data.path)), ImageError, "shares 180 images"),
        (replace(recipe, data=replace(data, size=9)), ConfigError, "images of 9x9 are asked for"),
        (replace(recipe, attack=replace(recipe.attack, target_class=3)), ConfigError, "there are 3 "),
        (replace(SIGNS, network="resnet21"), ConfigError, "network is 'resnet21'"),
    ]
    for each, error, message in wrong:
        with pytest.raises(error, match=message):
            make_poisoned(tmp_path / "made", each, device="cpu")
    with pytest.raises(OutputError, match="are not drawn"):
        make_images(tmp_path / "made", recipe)
    assert not (tmp_path / "made").exists()
