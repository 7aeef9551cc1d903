"""The NAD model (WRN-16-1, BadNets) hardened with the default profile: accuracy, ASR and class distance.

    python benchmarks/nad.py --shared ../shared            # all pieces that are missing, then the table
    python benchmarks/nad.py --shared ../shared --table    # the table of what is there

Pieces are resumable: each is one JSON file under --out. Harden pieces run the default profile with 250 clean
images a class and are evaluated on the test part; the trigger is for evaluation only. Distance pieces invert 12
fixed directions, 300 steps each, on up to 100 images a class of the ``measure`` part, which no run hardens with.
"""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import mothkit
from mothkit.events import Event, Note, PhaseStarted, StepDone

DIRECTIONS = [
    *((4, 9), (7, 8), (5, 2), (6, 3), (9, 2), (4, 3)),
    *((6, 8), (0, 4), (0, 7), (8, 0), (3, 5), (3, 6)),
]
GRID = """
name = "BadNets grid"
target_class = 5
[patch]
row = -3
column = -3
pixels = [[0, 0, 255], [0, 255, 0], [255, 0, 255]]
"""


def tell(event: Event) -> None:
    match event:
        case PhaseStarted(name, _):
            print(name, file=sys.stderr, flush=True)
        case StepDone(step, total, detail) if step % 50 == 0:
            print(f"  {step}/{total} {detail}", file=sys.stderr, flush=True)
        case Note(text):
            print(f"  {text}", file=sys.stderr, flush=True)
        case _:
            pass


def save(path: Path, values: dict[str, Any]) -> None:
    beside = path.with_suffix(".tmp")
    beside.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    beside.replace(path)


def harden(shared: Path, out: Path, seed: int) -> None:
    record_file, model = out / f"seed{seed}.json", out / "work" / f"seed{seed}.onnx"
    if record_file.exists():
        return
    model.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        trigger = Path(folder) / "trigger.toml"
        trigger.write_text(GRID, encoding="utf-8")
        outcome = mothkit.harden(
            shared / "models/nad_wrn16_badnets.onnx",
            f"{shared}/data/cifar10_lossless.npz:train",
            model,
            eval_data=f"{shared}/data/cifar10_lossless.npz:test",
            triggers=[trigger],
            preprocess="unit",
            per_class=250,
            seed=seed,
            resume=True,
            device="cpu",
            emit=tell,
        )
    record = outcome.record
    keep = (
        "versions",
        "plan",
        "seed",
        "before",
        "after",
        "parity_before",
        "parity_after",
        "seconds",
        "written",
    )
    method = ("profile", "steps", "estimated_accuracy_drop", "chosen_step", "candidates", "mirrored")
    values = {key: record[key] for key in keep if key in record}
    values["method"] = {key: record["method"][key] for key in method}
    save(record_file, values)


def distance(shared: Path, out: Path, name: str, model: Path) -> None:
    file = out / f"distance-{name}.json"
    if file.exists() or not model.exists():
        return
    found = mothkit.class_distance(
        model,
        f"{shared}/data/cifar10_lossless.npz:measure",
        directions=DIRECTIONS,
        profile="paper",
        steps=300,
        repeats=1,
        preprocess="unit",
        device="cpu",
        emit=tell,
    )
    save(file, found.to_dict())


def table(out: Path, seeds: list[int]) -> None:
    before = _distances(out / "distance-original.json")
    rows = []
    for seed in seeds:
        file = out / f"seed{seed}.json"
        if not file.exists():
            continue
        record = json.loads(file.read_text(encoding="utf-8"))
        after = record.get("after") or record["before"]
        accuracy, attack = 100 * after["accuracy"]["value"], 100 * after["triggers"][0]["asr"]["value"]
        natural = 100 * after["triggers"][0]["natural"]["value"]
        growth, failed = _growth(before, out / f"distance-seed{seed}.json")
        rows.append((accuracy, attack, growth))
        print(
            f"seed {seed}: accuracy {accuracy:.2f} %, ASR {attack:.2f} % (unstamped {natural:.2f} %), "
            f"distance {growth:+.1f} %, directions without a trigger {failed}, {sum(record['seconds'].values()):.0f} s"
        )
    if rows:
        means = [statistics.mean(row[k] for row in rows) for k in range(3)]
        print(
            f"means of {len(rows)}: accuracy {means[0]:.2f} %, ASR {means[1]:.2f} %, distance {means[2]:+.1f} %"
        )


def _distances(file: Path) -> dict[tuple[int, int], float]:
    if not file.exists():
        return {}
    entries = json.loads(file.read_text(encoding="utf-8"))["entries"]
    return {(e["source_class"], e["target_class"]): e["class_distance"] for e in entries}


def _growth(before: dict[tuple[int, int], float], file: Path) -> tuple[float, list[list[int]]]:
    after = _distances(file)
    if not before or not after:
        return float("nan"), []
    failed = json.loads(file.read_text(encoding="utf-8"))["failed"]
    return 100 * statistics.mean(after[key] / before[key] - 1 for key in before), failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--shared", type=Path, required=True, help="folder with models/ and data/")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "nad")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", choices=["harden", "distance"])
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if not args.table and args.only != "distance":
        for seed in args.seeds:
            harden(args.shared, args.out, seed)
    if not args.table and args.only != "harden":
        distance(args.shared, args.out, "original", args.shared / "models/nad_wrn16_badnets.onnx")
        for seed in args.seeds:
            distance(args.shared, args.out, f"seed{seed}", args.out / "work" / f"seed{seed}.onnx")
    table(args.out, args.seeds)


if __name__ == "__main__":
    main()
