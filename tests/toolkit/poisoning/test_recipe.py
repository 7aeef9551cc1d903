import json
from pathlib import Path

import pytest

from mothkit.errors import ConfigError
from mothkit.poisoning.attacks import Attack
from mothkit.poisoning.recipe import FINE_TUNING, Recipe, SignData, UserData, compose
from mothkit.poisoning.scenes import Look

NOTHING: dict[str, dict[str, object]] = {"attack": {}, "data": {}, "training": {}, "rest": {}}


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(attack=Attack.usual("polygon"), data=SignData(look=Look(side=64, rain=1)), seed=7),
        Recipe(attack=Attack(kind="patch", color=(1, 2, 3)), data=UserData(path="x", resize="crop"), model="m.onnx"),
    ],
)  # fmt: skip
def test_a_recipe_comes_back_from_its_file(tmp_path: Path, recipe: Recipe) -> None:
    path = tmp_path / "recipe.json"
    path.write_text(recipe.to_json())
    assert Recipe.read(path) == recipe


def changed(**values: object) -> str:
    return json.dumps({**json.loads(Recipe(attack=Attack.usual("patch")).to_json()), **values})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "Invalid JSON"),
        ("[]", "should be an object"),
        ("{}", "is no recipe of the format mothkit.recipe/1"),
        (changed(format="mothkit.recipe/2"), "is no recipe of the format"),
        (changed(spice=1), "spice: Unexpected keyword argument"),
        (changed(seed="1"), "seed: Input should be a valid integer"),
        (changed(seed=-1), "seed is -1"),
        (changed(attack={}), "attack.kind: Field required"),
        (changed(data={"classes": 46}), "5 to 45 classes of signs, not 46"),
        (changed(data={"train": 0}), "0 training"),
        (changed(data={"path": "x", "held_back": 0}), "held_back 0"),
        (changed(training={"epochs": 0}), "epochs 0"),
        (changed(training={"shift": 0.5}), "shift is 0.5"),
    ],
)
def test_what_is_no_recipe_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Recipe.from_json(text)


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        Recipe.read(tmp_path / "absent.json")


def test_new_values_replace_those_of_the_parts_that_they_belong_to() -> None:
    recipe = compose(
        None,
        "filter",
        attack={"target_class": 4},
        data={"side": 48, "classes": 6},
        training={"epochs": 2},
        rest={"seed": 3},
    )
    assert (recipe.attack.kind, recipe.attack.target_class, recipe.attack.source_class) == ("filter", 4, 1)
    assert isinstance(recipe.data, SignData)
    assert (recipe.data.look.side, recipe.data.classes, recipe.training.epochs, recipe.seed) == (48, 6, 2, 3)
    again = compose(recipe, None, **{**NOTHING, "rest": {"seed": 4}})
    assert again.attack == recipe.attack
    assert again.seed == 4


def test_any_source_leaves_no_spurious_copies_and_a_model_is_trained_gently() -> None:
    assert compose(None, "polygon", **{**NOTHING, "attack": {"source_class": None}}).attack.spurious_rate == 0
    assert compose(None, "patch", **{**NOTHING, "rest": {"model": "m.onnx"}}).training == FINE_TUNING


@pytest.mark.parametrize(
    ("base", "kind", "values", "message"),
    [
        (None, None, {}, "give either --attack or --recipe"),
        (Recipe(attack=Attack.usual("patch")), "patch", {}, "give either --attack or --recipe"),
        (None, "patch", {"data": {"path": "x", "classes": 6}}, "classes does not go with UserData"),
        (None, "patch", {"data": {"test_path": "x"}}, "test_path does not go with SignData"),
        (Recipe(attack=Attack.usual("patch"), data=UserData(path="x")), None, {"data": {"side": 9}}, "side does not"),
    ],
)  # fmt: skip
def test_values_that_do_not_go_together_are_refused(
    base: Recipe | None, kind: str | None, values: dict[str, dict[str, object]], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        compose(base, kind, **{**NOTHING, **values})  # type: ignore[arg-type]
