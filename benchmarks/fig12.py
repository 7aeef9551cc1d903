"""The paper's Fig. 12 on models made here: poisoned sign classifiers before and after fine-tuning, NC, NAD and MOTH.

    python benchmarks/fig12.py [--victims NAME ...] [--methods moth ...] [--seeds 0] [--device cpu]
    python benchmarks/fig12.py --list     # what is done, what is missing
    python benchmarks/fig12.py --table    # tables and figure of what is there
    python benchmarks/fig12.py --large --device cuda    # ResNets, DenseNet-121 and GoogLeNet at 224 pixels

Victims are class-specific, with as many spurious copies on other classes as TrojAI's round 4 has. The defender has 5 %
as many clean images as the model was trained on; numbers are on 5,000 or more generated test images. Victims lie in
``results/fig12/work``, which git ignores, and are made again from their recipes; every piece that is done is a line in
``results/fig12.jsonl``.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle, islice

from field import (
    NONE,
    Settings,
    Study,
    Victim,
    main,
    options,
    own_choice,
    report,
    result_of,
    results_of,
)
from figure import Panel, panels_svg
from pieces import DOCUMENT, write_section

from mothkit.poisoning.attacks import Attack
from mothkit.poisoning.recipe import Recipe, SignData
from mothkit.poisoning.scenes import Look
from mothkit.poisoning.training import FitConfig
from mothkit.triggers.filters import FILTERS

FIGURE = DOCUMENT.parent / "fig12.svg"
SMALL = ("cnn3", "resnet20", "cnn3", "resnet18")  # torchvision's ResNet-18 takes 32 pixels too, if coarsely
LARGE = ("resnet18", "resnet50", "densenet121", "googlenet")
VICTIMS, TRAIN, CLEAN, TEST = 16, 2000, 100, 5000  # TrojAI has 2,200 to 6,700 training images a class
BACKDOORBENCH = {
    "batch_size": 256,
    "learning_rate": 0.01,
    "schedule": "cosine",
    "weight_decay": 5e-4,
    "epochs": 100,
}
METHODS: dict[str, Settings] = {
    # from the gentlest to the strongest
    "finetune": {
        "published": {},
        "rate 0.03": {"learning_rate": 0.03},
        "rate 0.1": {"learning_rate": 0.1},
    },
    "nc": {"published": {}, "outlier 1.5": {"outlier": 1.5}, "outlier 1": {"outlier": 1.0}},
    "nad": {
        "BackdoorBench": BACKDOORBENCH,
        "BackdoorBench, rate 0.03": BACKDOORBENCH | {"learning_rate": 0.03},
        "published": {},
    },
    "moth": {"published": {}},
}


def recipe(number: int, network: str, side: int) -> Recipe:
    """Return the recipe of victim ``number``: attacks in turn, classes and their roles by number."""
    classes = (15, 16, 18)[number % 3]
    source, target = number % classes, (4 * number + 3) % classes
    kind = ("polygon", "filter")[number // len(SMALL) % 2]
    attack = replace(
        Attack.usual(kind),
        source_class=source,
        target_class=target if target != source else (target + 1) % classes,
        filter=next(islice(cycle(FILTERS), number, None)),
    )
    data = SignData(
        classes=classes,
        look=Look(side=side),
        train=TRAIN,
        clean=CLEAN,
        test=-(-TEST // classes),
    )
    return Recipe(attack=attack, data=data, network=network, training=FitConfig(epochs=4), seed=number)


def victims(networks: Sequence[str], side: int) -> list[Victim]:
    """Return all victims."""
    made = []
    for number, network in enumerate(islice(cycle(networks), VICTIMS)):
        made_from = recipe(number, network, side)
        made.append(Victim(name=f"{number:02}-{network}-{made_from.attack.name}", recipe=made_from))
    return made


def study(given: argparse.Namespace) -> Study:
    name, networks, side = ("fig12_large", LARGE, 224) if given.large else ("fig12", SMALL, 32)
    return Study(name=name, victims=victims(networks, side), methods=METHODS, device=given.device)


def write(done: Study, seeds: Sequence[int]) -> None:
    """Write tables and figure of what is there."""
    text = report(done, seeds)
    if done.name == "fig12" and done.pieces.records:
        figure = panels_svg(panels(done, seeds), across="accuracy, %", up="ASR, %")
        FIGURE.write_text(figure, encoding="utf-8")
        text += f"\n\n![ASR over accuracy of each victim, a panel for each method]({FIGURE.name})"
    write_section(done.name, text)
    print(text)


def panels(done: Study, seeds: Sequence[int]) -> list[Panel]:
    """Return each victim's accuracy and ASR as it came, and after each method by its own criterion."""
    made = [record for key, record in done.pieces.records.items() if key.endswith(" victim")]
    results = {NONE: [result_of(record, {"failed": ""}, NONE) for record in made]}
    for method in done.methods:
        results[method] = [own_choice(each) for each in results_of(done, method, seeds).values()]
    return [Panel(name, [(each.accuracy, each.asr) for each in found]) for name, found in results.items()]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--large", action="store_true", help="larger networks at 224 pixels, for a GPU")
    asked, chosen = options(__doc__, study, parser)
    main(chosen, asked, write)
