"""The gate's anomaly check on models without and with a backdoor: false alarms and misses by threshold.

    OMP_NUM_THREADS=1 python benchmarks/anomaly.py --shared ../shared [--models NAME ...]
    python benchmarks/anomaly.py --list     # what is done, what is missing
    python benchmarks/anomaly.py --table    # the tables of what is there

Benign models are other people's, or trained here by the recipes of poisoned ones at a poison rate of 0; the poisoned
ones are NAD's, and own ones of several networks, attacks, classes and seeds, all to one class. Each is held to the
preset ``strict`` by ``mothkit gate``'s own code with its default inversion, on images that it was not trained with.
Own models lie in ``results/anomaly/work``, which git ignores; every model that is measured is a line in
``results/anomaly.jsonl``.
"""

import argparse
import math
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from hardening import GRID
from pieces import RESULTS, Pieces, Record, table, timed, write_section

import mothkit
from mothkit.events import Event, PhaseStarted
from mothkit.gate.bench import Request
from mothkit.gate.checks.anomaly import Anomaly, find_anomaly
from mothkit.gate.policy import read_policy
from mothkit.gate.run import gate_file
from mothkit.opening import Settings
from mothkit.poisoning.attacks import Attack, Kind
from mothkit.poisoning.recipe import FINE_TUNING, Recipe, SignData, UserData
from mothkit.poisoning.training import FitConfig

POLICY = "version = 1\npreset = 'strict'\n[anomaly]\nmin_share = 0\n"
CIFAR, MNIST = "data/cifar10_lossless.npz:test", "data/mnist/t10k-images-idx3-ubyte.gz"
INDICES = (1.5, 2.0, 2.5, 3.0, 4.0)
SHARES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
WORK = RESULTS / "anomaly" / "work"


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One model to measure.

    Attributes:
        about: what it is.
        target: the class that its backdoor asks for; None for a benign model.
        file: under ``models/`` of the shared folder, where it is not made here.
        recipe: all that it is made from, where it is; at a poison rate of 0 without a backdoor.
        data: images to measure on, in the shared folder; None for the test images of its recipe.
        preprocess: where the images alone do not tell it.
    """

    about: str
    target: int | None = None
    file: str | None = None
    recipe: Recipe | None = None
    data: str | None = None
    preprocess: str | None = None


def signs(network: str, classes: int, seed: int, attack: Attack | None = None) -> Model:
    """Return a classifier of drawn signs, with a backdoor or without."""
    made = Recipe(
        attack=replace(attack or Attack.usual("patch"), **({} if attack else {"poison_rate": 0.0})),
        data=SignData(classes=classes, train=300),
        network=network,
        training=FitConfig(epochs=8),
        seed=seed,
    )
    what = "" if attack is None else f", {attack.kind} to class {attack.target_class}"
    target = None if attack is None else attack.target_class
    return Model(about=f"{network}, {classes} signs, seed {seed}{what}", target=target, recipe=made)


def published(about: str, file: str, data: str, preprocess: str | None = None) -> Model:
    """Return a model of the zoo; nothing is known against it."""
    of = "CIFAR-10" if data == CIFAR else "MNIST"
    return Model(about=f"{about}, {of}", file=f"zoo/{file}", data=data, preprocess=preprocess)


def digits(file: str, preprocess: str, attack: Attack, seed: int) -> Model:
    """Return a published classifier of digits that is trained further on poisoned images."""
    made = Recipe(
        attack=attack,
        data=UserData(path=MNIST, train=400, held_back=0.3),
        model=f"models/zoo/{file}.onnx",
        preprocess=preprocess,
        training=replace(FINE_TUNING, flip=False),
        seed=seed,
    )
    about = f"{file}, {attack.kind} to class {attack.target_class}"
    return Model(about=about, target=attack.target_class, recipe=made)


def to(kind: Kind, target: int, *, poison_rate: float = 0.1) -> Attack:
    """Return the usual attack of ``kind``, from all classes to ``target``."""
    return replace(Attack.usual(kind), target_class=target, poison_rate=poison_rate)


MODELS: Mapping[str, Model] = {
    # in an order in which benign and poisoned ones of all sources come early
    "nad": Model(about="NAD's WRN-16-1, BadNets to class 5", target=5, file="nad_wrn16_badnets", data=CIFAR),
    "mnist-1": published("CNTK's CNN", "cntk_mnist8", MNIST, "unit"),
    "mnist-2": published("CNN (akazhiyu)", "akazhiyu_mnist", MNIST),
    "signs-10": signs("cnn3", 10, 0),
    "patch-10": signs("cnn3", 10, 10, to("patch", 3)),
    "mnist-patch": digits("cntk_mnist8", "unit", to("patch", 4), 1),
    "cifar-1": published("resnet_2b (VNN-COMP)", "vnn_resnet2b", CIFAR, "cifar10"),
    "cifar-2": published("CNN (WinML)", "winml_cifar10", CIFAR),
    "mnist-blended": digits("mainform_mnist", "unit", to("blended", 8), 2),
    "mnist-3": published("CNN (mainform)", "mainform_mnist", MNIST),
    "mnist-4": published("CNN with BatchNorm (burn)", "burn_mnist", MNIST),
    "blended-12": signs("cnn3", 12, 11, to("blended", 7)),
    "cifar-3": published("LeNet (jnulzl)", "lenet_jnulzl", CIFAR),
    "mnist-patch-2": digits("innerpeace_mnist", "unit", to("patch", 1, poison_rate=0.05), 3),
    "mnist-5": published("CNN with average pools (Verivital)", "vnn_verivital_avg", MNIST),
    "signs-15": signs("cnn3", 15, 1),
    "cifar-4": published("Keras CNN (Marabou)", "vnn_marabou_cifar", CIFAR),
    "nat": Model(about="MOTH's natural ResNet20, CIFAR-10", file="moth_resnet20_nat", data=CIFAR),
    "resnet-patch-10": signs("resnet20", 10, 13, to("patch", 6)),
    "resnet-10": signs("resnet20", 10, 3),
    "patch-15": signs("cnn3", 15, 12, to("patch", 0, poison_rate=0.02)),
    "signs-12": signs("cnn3", 12, 2),
}


def tell(event: Event) -> None:
    match event:
        case PhaseStarted(name, _):
            print(f"  {name}", file=sys.stderr, flush=True)
        case _:
            pass


def opened(name: str, shared: Path) -> tuple[Path, str, Record]:
    """Return a model's file, the images to measure on, and what its making measured; it is made where it must be."""
    model = MODELS[name]
    if model.recipe is None:
        return shared / "models" / f"{model.file}.onnx", f"{shared}/{model.data}", {}
    recipe, folder = model.recipe, WORK / name
    if recipe.model is not None and isinstance(recipe.data, UserData):
        data = replace(recipe.data, path=f"{shared}/{recipe.data.path}")
        recipe = replace(recipe, model=f"{shared}/{recipe.model}", data=data)
    made: Record = {}
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        result = mothkit.poison(folder, recipe, device="cpu", emit=tell)["result"]
        made = {"accuracy": result["accuracy"]["value"]}
        if model.target is not None:
            made["asr"] = result["triggers"][0]["asr"]["value"]
    return folder / "model.onnx", f"{folder}/test.npz", made


def measured(name: str, shared: Path) -> Record:
    """Return the size of the smallest trigger that was found from all classes to each, and what it took."""
    path, data, made = opened(name, shared)
    settings = Settings(device="cpu", preprocess=MODELS[name].preprocess)
    with tempfile.TemporaryDirectory() as folder, timed() as seconds:
        trigger = Path(folder) / "trigger.toml"
        trigger.write_text(GRID, encoding="utf-8")
        request = Request(
            path=path, data=data, triggers=(trigger,) if name == "nad" else (), settings=settings
        )
        record = gate_file(request, read_policy(POLICY, "anomaly"), emit=tell).record
    found = record["measurements"].get("anomaly")
    if not found:
        raise SystemExit(f"{name}: {record['findings']}")
    return {"made": made, **seconds, **told(record)}


def told(record: Record) -> Record:
    """Return what is kept of a gate's record."""
    kept = ("target_class", "class_distance", "share", "found", "success_rate", "held_out")
    entries = record["measurements"]["anomaly"]["class_distance"]["entries"]
    known = record["measurements"]["triggers"] or ()
    others = [f for f in record["findings"] if not f["rule"].startswith("anomaly")]
    return {
        "time": record["time"],
        "plan": record.get("plan"),
        "versions": record["versions"],
        "sha256": record["model_in"]["sha256"],
        "accuracy": record["measurements"]["accuracy"]["value"],
        "others": sorted(
            {f"{f['rule']}: {f['status']}" for f in others if f["status"] not in ("passed", "skipped")}
        ),
        "inversion": record["policy"]["values"]["inversion"],
        **({"asr": known[0]["asr"]["value"]} if known else {}),
        "entries": [{key: entry[key] for key in kept} for entry in entries],
    }


@dataclass(frozen=True, slots=True)
class Case:
    """A model that was measured."""

    model: Model
    piece: Record
    anomaly: Anomaly
    flagged: int

    @property
    def kind(self) -> str:
        """``benign``, or the kind of its backdoor; NAD's is a patch."""
        if self.model.target is None:
            return "benign"
        return self.model.recipe.attack.kind if self.model.recipe else "patch"

    def wrong(self, small: Callable[[Anomaly], bool]) -> bool:
        """Return whether a rule that calls smallest triggers ``small`` errs; to name another class is a miss."""
        if self.kind == "benign":
            return small(self.anomaly)
        return not small(self.anomaly) or self.flagged != self.model.target

    @property
    def row(self) -> list[str]:
        """What the table says of it."""
        asr = self.piece.get("asr", self.piece["made"].get("asr"))
        return [
            self.model.about,
            f"{100 * self.piece['accuracy']:.1f}",
            "" if asr is None else f"{100 * asr:.1f}",
            str(self.flagged),
            f"{self.anomaly.median:.1f}",
            f"{self.anomaly.share:.2f}",
            "none" if self.anomaly.index is None else f"{self.anomaly.index:.2f}",
            f"{self.piece['cpu']:.0f}",
        ]


def cases(pieces: Pieces) -> list[Case]:
    """Return what was measured, benign models first."""
    found = []
    for name, model in MODELS.items():
        if (piece := pieces.records.get(name)) is None:
            continue
        entries = [entry for entry in piece["entries"] if entry["found"]]
        anomaly = find_anomaly([entry["class_distance"] for entry in entries])
        found.append(Case(model, piece, anomaly, entries[anomaly.position]["target_class"]))
    return sorted(found, key=lambda case: case.model.target is not None)


def between(models: Iterable[Case]) -> tuple[float, float, float]:
    """Return the largest share of a patch, the least of a benign model, and the mean of their logarithms, raised."""
    shares: dict[str, list[float]] = {"benign": [], "patch": []}
    for case in models:
        shares.get(case.kind, []).append(case.anomaly.share)
    low, high = max(shares["patch"]), min(shares["benign"])
    return low, high, math.sqrt(low * high)


def below(limit: float) -> Callable[[Anomaly], bool]:
    """Return the rule of ``min_share``."""
    return lambda anomaly: anomaly.share < limit


def above(limit: float) -> Callable[[Anomaly], bool]:
    """Return the rule of ``max_index``."""
    return lambda anomaly: anomaly.index is not None and anomaly.index > limit


def errors(found: list[Case]) -> str:
    """Return the table of how often each rule errs."""
    rules = {f"index above {limit:g}": above(limit) for limit in INDICES}
    rules |= {f"share below {limit:g}": below(limit) for limit in SHARES}
    words = {"benign": "false alarms", "patch": "patches missed", "blended": "blends missed"}
    groups = [[case for case in found if case.kind == kind] for kind in words]
    rows = [
        [name, *(f"{sum(case.wrong(small) for case in group)} of {len(group)}" for group in groups)]
        for name, small in rules.items()
    ]
    return table(("rule", *words.values()), rows)


def left_out(found: list[Case]) -> tuple[int, int]:
    """Return how many models a threshold chosen on all others judges wrongly, and of how many; no blends."""
    known = [case for case in found if case.kind != "blended"]
    limits = [between(other for other in known if other is not case)[2] for case in known]
    return sum(case.wrong(below(limit)) for case, limit in zip(known, limits, strict=True)), len(known)


def report(found: list[Case]) -> str:
    heading = ("model", "accuracy", "ASR", "class", "median", "share of it", "index", "CPU s")
    low, high, middle = between(found)
    wrong, count = left_out(found)
    chosen = (
        f"Largest share of a patch {low:.2f}, least of a benign model {high:.2f}, their geometric mean {middle:.2f}. "
        f"Chosen in this way on all but one, the threshold judges that one wrongly for {wrong} of {count} models."
    )
    return "\n\n".join((table(heading, [case.row for case in found]), errors(found), chosen))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--shared", type=Path, help="folder with models/ and data/")
    parser.add_argument("--models", nargs="*", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--list", action="store_true", help="say what is missing")
    parser.add_argument("--table", action="store_true", help="write the tables of what is there")
    options = parser.parse_args()
    pieces = Pieces(RESULTS / "anomaly.jsonl")
    if options.list:
        print("\n".join(f"{name}: {'done' if name in pieces.records else 'missing'}" for name in MODELS))
        return
    for name in options.models if not options.table else ():
        print(name, file=sys.stderr, flush=True)
        pieces.get(name, lambda name=name: measured(name, options.shared))
    text = report(cases(pieces))
    write_section("anomaly", text)
    print(text)


if __name__ == "__main__":
    main()
