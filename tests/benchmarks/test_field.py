"""The studies of methods: their victims, and how settings are chosen and pieces become tables, by hand."""

import importlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from mothkit.inversion.config import InversionConfig
from mothkit.poisoning.attacks import Attack
from mothkit.poisoning.recipe import Recipe, SignData
from mothkit.poisoning.scenes import PLAIN
from mothkit.poisoning.training import FitConfig

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Import the scripts as they import each other."""
    monkeypatch.syspath_prepend(FOLDER)
    names = ("pieces", "field", "figure", "fig12", "photos")
    return SimpleNamespace(**{name: importlib.import_module(name) for name in names})


def result(field: ModuleType, setting: str, asr: float, *, kept: bool = True, drop: float = 0.0) -> Any:
    return field.Result("v", setting, asr, 0.0, 0.0, 90.0, drop, 1.0, kept)


def test_the_victims_are_those_that_the_study_promises(scripts: SimpleNamespace) -> None:
    victims = scripts.fig12.victims(scripts.fig12.SMALL, 32)
    assert len({victim.name for victim in victims}) == len(victims) >= 16
    recipes = [victim.recipe for victim in victims]
    assert {recipe.attack.kind for recipe in recipes} == {"polygon", "filter"}
    kinds = {(recipe.network, recipe.attack.kind) for recipe in recipes}
    assert len({recipe.network for recipe in recipes}) >= 3 and len(kinds) >= 6  # both kinds of each
    assert len({recipe.attack.filter for recipe in recipes if recipe.attack.kind == "filter"}) >= 4
    assert len({recipe.seed for recipe in recipes}) == len(recipes)
    for recipe in recipes:
        assert recipe.attack.source_class not in (None, recipe.attack.target_class)
        assert recipe.attack.spurious_rate > 0
        assert recipe.data.classes >= 15
        assert recipe.data.test * recipe.data.classes >= 5000
        assert recipe.data.clean / recipe.data.train == 0.05
    for method, settings in scripts.fig12.METHODS.items():
        assert len(settings) >= 3 or method == "moth"


def test_settings_of_the_study_are_those_of_the_methods(scripts: SimpleNamespace) -> None:
    from mothkit.hardening.methods import configured

    for method, settings in scripts.fig12.METHODS.items():
        for values in settings.values():
            configured(method, {key: str(value) for key, value in values.items()})


def test_attacks_on_photographs_stamp_a_share_of_all_images(scripts: SimpleNamespace) -> None:
    victims = scripts.photos.victims(Path("shared"), large=False)
    assert len(victims) == 8
    assert len(scripts.photos.victims(Path("shared"), large=True)) == 16
    told = {victim.name.split("-", 1)[1] for victim in victims}
    assert told == {f"{kind}-{rate}" for kind in scripts.photos.KINDS for rate in (1, 10)}
    given = SimpleNamespace(shared=Path("shared"), large=False, device="cpu")
    runs = [(victim.name, method) for victim, method, *_ in scripts.photos.study(given).keys([0])]
    assert len(runs) == 8 * 13 - 7 * 3  # three methods run on one victim alone
    assert [name for name, method in runs if method == "pairwise"] == [scripts.photos.ONE]
    tenth = next(victim for victim in victims if victim.name == "cifar10-patch-10").recipe.attack
    assert tenth.poison_rate * 0.9 == pytest.approx(0.1)  # nine of ten classes are stamped


def test_the_strongest_setting_that_kept_the_accuracy_is_chosen(scripts: SimpleNamespace) -> None:
    field = scripts.field
    gentle, middle, strong = (
        result(field, name, asr, kept=kept)
        for name, asr, kept in (("a", 3.0, True), ("b", 40.0, True), ("c", 1.0, False))
    )
    assert field.own_choice([gentle, middle, strong]) is middle  # not knowing the ASR
    assert field.oracle([gentle, middle, strong]) is strong
    none = [result(field, "a", 99.0, kept=False)]
    assert field.own_choice(none) is none[0]


def test_of_equal_asr_the_oracle_takes_the_more_accurate(scripts: SimpleNamespace) -> None:
    worse, better = (result(scripts.field, name, 1.0, drop=drop) for name, drop in (("a", 2.0), ("b", 1.0)))
    assert scripts.field.oracle([worse, better]) is better


def test_cleansing_that_would_flag_the_same_classes_is_not_done_again(scripts: SimpleNamespace) -> None:
    about = {"victim": "v", "method": "nc", "seed": 0}
    done = about | {"key": "k", "set": {}, "flagged": [1], "anomaly_index": [-1.2, -2.5, None, 0.4]}

    def found(pieces: list[dict[str, Any]], **settings: object) -> Any:
        return scripts.field.repeated(pieces, about, settings)

    assert found([done], outlier=1.5) is done  # 1 alone lies below -1.5 and below -2
    assert found([done], outlier=1) is None  # 0 does, too
    assert found([done], outlier=3) is None  # none does
    assert found([done], outlier=1.5, stamped=0.1) is None
    assert found([done | {"seed": 1}, about | {"key": "failed", "failed": ""}], outlier=1.5) is None


def piece(key: str, accuracy: int, asr: int, **more: Any) -> dict[str, Any]:
    """Return a piece of 100 images each."""
    counts = {
        "accuracy": [accuracy, 100],
        "asr": [asr, 100],
        "natural": [1, 100],
        "robust_accuracy": [50, 100],
    }
    plan = {
        "plan": {"device": "cpu", "threads": 1},
        "versions": {"torch": "2.9"},
        "time": "2026-11-23T10:00:00",
    }
    return {"key": key, **counts, **plan, **more}


def test_pieces_become_means_worst_and_counts(
    scripts: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    field, fig12 = scripts.field, scripts.fig12
    monkeypatch.setattr(field, "RESULTS", tmp_path)
    run = {"written": True, "hardening_seconds": 10.0, "cpu": 360.0}
    lines = [
        piece("a victim", 96, 100),
        piece("b victim", 96, 90),
        piece("a moth published seed 0", 95, 0, **run),
        piece("b moth published seed 0", 97, 6, **run),
        piece("a finetune gentle seed 0", 96, 80, **run),
        piece("a finetune strong seed 0", 90, 20, **run | {"written": False}),
        piece("b finetune gentle seed 0", 96, 70, **run),  # its other setting is missing
    ]
    (tmp_path / "s.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    recipe = fig12.recipe(0, "cnn3", 32)
    study = field.Study(
        name="s",
        victims=[field.Victim(name=name, recipe=recipe) for name in "ab"],
        methods={"finetune": {"gentle": {}, "strong": {}}, "moth": {"published": {}}},
    )
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in field.summary(study, [0]).splitlines()
    ]
    none, own, oracle, moth = rows[2:]
    assert none[2:6] == ["2 of 2", "95.00", "100.00", "0"]
    assert own[:5] == ["finetune", "own", "1 of 2", "80.00", "80.00"]
    assert oracle[:5] == ["finetune", "oracle", "1 of 2", "20.00", "20.00"]
    assert moth[:8] == ["moth", "own", "2 of 2", "3.00", "6.00", "1", "2", "2.00"]
    assert moth[9:11] == ["+0.00", "+1.00"]
    assert "| b | 90.0 (96.0) | missing | 6.0 (97.0) |" in field.per_victim(study, [0])
    told = field.state(study, [0])
    assert told.startswith(
        "5 of 6 runs are done (0 failed), 2026-11-23 to 2026-11-23, on cpu with 1 threads, torch 2.9"
    )


def test_the_figure_has_a_point_for_each_victim(scripts: SimpleNamespace) -> None:
    figure = scripts.figure
    drawn = figure.panels_svg(
        [figure.Panel("none", [(90.0, 100.0), (95.0, 50.0)]), figure.Panel("moth", [(95.0, 0.0)])],
        across="accuracy",
        up="ASR",
    )
    assert drawn.count("<circle") == 3
    assert "none (2)" in drawn and "moth (1)" in drawn


def test_pieces_are_made_once_and_a_victim_that_is_gone_is_made_again(
    scripts: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    field = scripts.field
    monkeypatch.setattr(field, "RESULTS", tmp_path)
    recipe = Recipe(
        attack=Attack(kind="patch", target_class=2, poison_rate=0.3, size=4),
        data=SignData(classes=5, look=replace(PLAIN, side=16), train=60, clean=8, test=16),
        training=FitConfig(epochs=6, batch_size=32),
    )
    small = {"epochs": 1, "batch_size": 16, "views": 1}

    def study(**settings: Any) -> Any:
        victims = [field.Victim(name="small", recipe=recipe)]
        return field.Study(name="s", victims=victims, methods={"finetune": settings})

    def work(todo: Any) -> list[str]:
        field.work(todo, victims=["small"], methods=["finetune"], seeds=[0])
        return [json.loads(line)["key"] for line in (tmp_path / "s.jsonl").read_text().splitlines()]

    assert work(study(published=small)) == ["small victim", "small finetune published seed 0"]
    made = (tmp_path / "s/work/small/model.onnx").read_bytes()
    shutil.rmtree(tmp_path / "s/work")
    wild = small | {"learning_rate": 1e30, "momentum": 0}
    assert len(work(study(published=small, wild=wild))) == 3  # the first run is not done again
    assert (tmp_path / "s/work/small/model.onnx").read_bytes() == made
    last = study(published=small, wild=wild)
    assert "training diverged" in last.pieces.records["small finetune wild seed 0"]["failed"]
    (found,) = field.results_of(last, "finetune", [0]).values()
    piece = last.pieces.records["small finetune published seed 0"]
    assert (found[0].asr, found[0].kept) == (100 * piece["asr"][0] / piece["asr"][1], piece["written"])
    assert not found[1].kept and found[1].drop == 0  # what failed leaves the model as it was
    lines = (
        (tmp_path / "s.jsonl").read_text().replace(last.pieces.records["small victim"]["sha256"], "elsewhere")
    )
    (tmp_path / "s.jsonl").write_text(lines)
    shutil.rmtree(tmp_path / "s/work")
    with pytest.raises(SystemExit, match="another model than its pieces were measured on"):
        work(study(published=small, wild=wild, gentle=small))


def test_a_config_is_told_by_what_differs_from_the_defaults(scripts: SimpleNamespace) -> None:
    config = InversionConfig(steps=7, loss="linear")
    assert eval(scripts.pieces.told(config), {"InversionConfig": InversionConfig}) == config  # noqa: S307
    assert scripts.pieces.told(InversionConfig(steps=7)) == "InversionConfig(steps=7)"
