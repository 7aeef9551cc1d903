"""Fidelity, as NIST's mitigation round has it, of ``batch harden`` on a synthetic round 4.

    OMP_NUM_THREADS=1 python benchmarks/fidelity.py [--seeds 4 5 ...] [--clean-seeds 0 1] [--methods finetune moth]
    python benchmarks/fidelity.py --table     # what is there

Models come from ``mothkit trojai make`` (64 pixels, 6 classes, 5 published clean images of each), one a seed; one
that did not converge is told and not counted, as NIST publishes none. ``mothkit batch harden --draw`` hardens them with
images drawn of the signs that they publish. Of a method's settings the first counts whose weights kept the accuracy
asked for, which clean images alone decide. Accuracy and ASR are then measured on images drawn afresh. Everything lies
in ``results/fidelity/work``, which git ignores; what is done is a line in ``results/fidelity.jsonl``.
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from pieces import RESULTS, Pieces, Record, table, timed, write_section

from mothkit.measuring import evaluate_file
from mothkit.opening import Settings
from mothkit.poisoning.training import FitConfig
from mothkit.records import read_record
from mothkit.trojai.fidelity import fidelity, literal_fidelity, mean_asr
from mothkit.trojai.making import draw_sign, make_round
from mothkit.trojai.plans import ModelPlan, Poisoned, RoundPlan, plan_model
from mothkit.trojai.rendering import Mark, draw_scenes

WORK = RESULTS / "fidelity" / "work"
NETWORKS = ("shufflenet1_0", "shufflenet1_0", "shufflenet1_5", "mobilenetv2")  # of round 4, by seed
SEEDS = (4, 5, 16, 25, 29, 36, 7, 14)  # with filters alone: of polygons see docs/benchmarks.md
SIDE, CLASSES, EXAMPLES, TRAIN, EPOCHS = 64, 6, 5, 400, 12
CLEAN, STAMPED = 20, 50  # fresh images: of each class, and of each trigger
DRAWN = 40  # clean images of each class for the defender
METHODS: dict[str, tuple[dict[str, float], ...]] = {
    # settings, the strongest first
    "finetune": ({"learning_rate": 0.2}, {"learning_rate": 0.1}, {}),
    "moth": ({},),
}
_FRESH = 9  # part of a seed that making a round does not use


def plan_of(poisoned: Poisoned, seed: int) -> RoundPlan:
    """Return the plan of one model."""
    return RoundPlan(
        models=1,
        poisoned=poisoned,
        classes=CLASSES,
        side=SIDE,
        architectures=(NETWORKS[seed % len(NETWORKS)],),
        train=TRAIN,
        examples=EXAMPLES,
        training=FitConfig(epochs=EPOCHS),
        seed=seed,
    )


def make(poisoned: Poisoned, seed: int) -> dict[str, Any]:
    """Make a model, and put it where the batch looks for it; return how it was made."""
    made, home = WORK / "made" / f"{poisoned}-{seed}", WORK / "round"
    shutil.rmtree(made, ignore_errors=True)  # what a stop left
    for folder in (made, home):
        folder.mkdir(parents=True, exist_ok=True)
    with timed() as seconds:
        (told,) = make_round(made, plan_of(poisoned, seed), device="cpu")
    (made / told["model"]).rename(home / name_of(poisoned, seed))
    triggers = [f"{t['filter'] or 'polygon'} ({t['condition'] or 'no condition'})" for t in told["triggers"]]
    numbers = {key: told[key] for key in ("converged", "clean_test_acc", "poisoned_test_acc")}
    return {"architecture": told["architecture"], "triggers": triggers, **numbers, "made_cpu": seconds["cpu"]}


def name_of(poisoned: Poisoned, seed: int) -> str:
    return f"id-{1 if poisoned == 'all' else 2}{seed:07d}"


def harden(poisoned: Poisoned, seed: int, method: str) -> Record:
    """Harden a model in a batch, and return what it was and became on images drawn afresh."""
    name = name_of(poisoned, seed)
    with timed() as seconds:
        for number, settings in enumerate(METHODS[method]):
            folder = batch(name, WORK / f"{method}-{number}", method, settings)
            record = read_record(folder / "hardened.record.json")
            if record["written"]:
                break
    data, triggers = fresh(poisoned, seed, WORK / "fresh" / name)
    before = measured(folder / "prepared" / "model.onnx", data, triggers)
    after = measured(folder / "hardened.onnx", data, triggers) if record["written"] else before
    return {
        "setting": settings,
        "written": record["written"],
        "before": before,
        "after": after,
        "fidelity": fidelity(before, after),
        "literal": literal_fidelity(before, after),
        "seconds": seconds["wall"],
        "hardening_seconds": record["seconds"],
    }


def batch(name: str, out: Path, method: str, settings: dict[str, float]) -> Path:
    """Harden one model of the round in the batch in ``out``, where others may be; return the folder of its results."""
    words = (
        "batch",
        "harden",
        WORK / "round",
        "-o",
        out,
        "--resume",
        "--jobs",
        1,
        "--device",
        "cpu",
        "--quiet",
    )
    more = ("--draw", DRAWN, "--where", f"name == '{name}'", "--method", method)
    given = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    command = [sys.executable, "-m", "mothkit", *map(str, (*words, *more, *given))]
    subprocess.run(command, stdout=subprocess.DEVNULL)
    return out / name


def fresh(poisoned: Poisoned, seed: int, folder: Path) -> tuple[Path, list[Path]]:
    """Write images that neither training nor hardening has seen; return where clean and stamped ones are."""
    folder.mkdir(parents=True, exist_ok=True)
    plan = plan_of(poisoned, seed)
    model = plan_model(plan, 0)
    labels = [label for label in range(CLASSES) for _ in range(CLEAN)]
    data = draw(plan, model, labels, folder / "clean.npz")
    files = []
    for each in model.triggers:
        draw(plan, model, [each.source] * STAMPED, folder / f"{each.number}.npz", each.mark, each.number)
        path = folder / f"{each.number}.toml"
        told = f'name = "{each.number}"\nsource_class = {each.source}\ntarget_class = {each.target}\n'
        path.write_text(f'{told}images = "{each.number}.npz"\n')
        files.append(path)
    return data, files


def draw(
    plan: RoundPlan,
    model: ModelPlan,
    labels: list[int],
    path: Path,
    mark: Mark | None = None,
    number: int = 0,
) -> Path:
    signs = [draw_sign(index) for index in model.signs]
    x = draw_scenes(signs, labels, plan.setting, (plan.seed, model.number, _FRESH, number), mark)
    np.savez(path, x=x[:, plan.seen, plan.seen], y=np.asarray(labels))
    return path


def measured(model: Path, data: Path, triggers: Sequence[Path]) -> dict[str, Any]:
    settings = Settings(preprocess="unit", device="cpu")
    result: dict[str, Any] = evaluate_file(model, str(data), settings, triggers=triggers)["result"]
    return result


def model(pieces: Pieces, poisoned: Poisoned, seed: int, methods: Sequence[str]) -> None:
    """Make a model, and harden it by each method if it converged."""
    key = name_of(poisoned, seed)
    made = pieces.get(f"{key} made", lambda: make(poisoned, seed))
    print(made, flush=True)
    for method in methods if made["converged"] else ():
        done = pieces.get(f"{key} {method}", lambda method=method: harden(poisoned, seed, method))  # type: ignore[misc]
        print({k: v for k, v in done.items() if k not in ("before", "after")}, flush=True)
        write(pieces)


def write(pieces: Pieces) -> None:
    """Write the table of what is there."""
    made = {key.split()[0]: record for key, record in pieces.records.items() if key.endswith(" made")}
    rows = []
    for method in METHODS:
        found: dict[str, list[Record]] = {"poisoned": [], "clean": []}
        for name, how in made.items():
            if (done := pieces.records.get(f"{name} {method}")) is not None:
                found["poisoned" if how["triggers"] else "clean"].append(done)
                told = ", ".join(how["triggers"]) or "none"
                rows.append([method, name, how["architecture"], told, *numbers(done)])
        for kind, group in (*found.items(), ("all", [*found["poisoned"], *found["clean"]])):
            if group:
                means = [f"{fmean(each[key] for each in group):.3f}" for key in ("fidelity", "literal")]
                rows.append([method, f"mean, {kind}", f"{len(group)} models", *[""] * 6, *means, ""])
    heading = ("method", "model", "architecture", "triggers", "accuracy", "after", "ASR", "after", "setting")
    failed = [
        f"{how['architecture']}, {', '.join(how['triggers']) or 'clean'}: accuracy {how['clean_test_acc']:.2f}, "
        f"least ASR {'none' if how['poisoned_test_acc'] is None else round(how['poisoned_test_acc'], 2)}"
        for how in made.values()
        if not how["converged"]
    ]
    told = f"\n\nDid not converge, and are not counted: {'; '.join(failed)}." if failed else ""
    write_section("fidelity", table([*heading, "fidelity", "literal", "s"], rows) + told)


def numbers(done: Record) -> list[str]:
    shares = [done[when]["accuracy"]["value"] for when in ("before", "after")]
    shares += [mean_asr(done[when]) for when in ("before", "after")]
    told = ["" if value is None else f"{100 * value:.1f}" for value in shares]
    setting = ", ".join(f"{key} {value:g}" for key, value in done["setting"].items()) or "default"
    setting = setting if done["written"] else "none kept the accuracy"
    return [*told, setting, f"{done['fidelity']:.3f}", f"{done['literal']:.3f}", f"{done['seconds']:.0f}"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="*", default=SEEDS, help="of poisoned models")
    parser.add_argument("--clean-seeds", type=int, nargs="*", default=(0, 1), help="of clean ones")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=["finetune"])
    parser.add_argument("--table", action="store_true", help="write the table of what is there")
    asked = parser.parse_args()
    pieces = Pieces(RESULTS / "fidelity.jsonl")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for poisoned, seeds in (("all", asked.seeds), ("none", asked.clean_seeds)):
        for seed in () if asked.table else seeds:
            model(pieces, poisoned, seed, asked.methods)
    write(pieces)


if __name__ == "__main__":
    main()
