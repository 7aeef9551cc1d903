"""Class distance against the authors' own: MOTH's two ResNet20, pairs of their published 10 x 9 matrices.

    OMP_NUM_THREADS=1 python benchmarks/published_distance.py --shared ../shared [--profile paper] [--table]

As theirs, an entry is the smallest of three runs, each from another start and on its own draw of at most 100 images
of the source class. Theirs minimise a linear loss on 100 images of 2,000 held-out ones; ours cross-entropy on
``measure``, which are 932 of these. Every trigger is tried again in onnxruntime, on its images and on test images.
Resumable: a piece is two pairs with their three seeds. Writes its table to docs/benchmarks.md.
"""

import argparse
from math import nan
from pathlib import Path
from statistics import fmean

import torch
from authors import CONFIGS, MODELS, RATE, Pair, open_study, published, sample, spearman
from pieces import RESULTS, Pieces, Record, table, told, write_section

COUNTS = {"nat": 30, "adv": 15}
SEEDS = (0, 1, 2)
GROUP = 2


def in_turn(count: int) -> list[Pair]:
    """Return the sample in an order of which every beginning is a sample too."""
    pairs = sample(count)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0)).tolist()
    return [pairs[k] for k in order]


def run(pieces: Pieces, options: argparse.Namespace) -> None:
    """Make every piece that is not there."""
    config = CONFIGS[f"{options.profile} profile"]
    for model in options.models:
        study = open_study(options.shared, model, options.device)
        pairs = in_turn(COUNTS[model])
        for first in range(0, len(pairs), GROUP):
            group = pairs[first : first + GROUP]
            draws = [(pair, seed) for pair in group for seed in SEEDS]
            record = pieces.get(
                f"{model}: {group}: {told(config)}",
                lambda d=draws, m=model, s=study: {
                    "model": m,
                    "profile": options.profile,
                    **s.invert(d, config),
                },
            )
            print(f"{model} {group}: {record['cpu']:.0f} s CPU, {record['wall']:.0f} s", flush=True)


def smallest(pieces: Pieces, model: str, profile: str) -> dict[Pair, list[Record]]:
    """Return the triggers of each pair, the smallest that was found first."""
    config = told(CONFIGS[f"{profile} profile"])
    found: dict[Pair, list[Record]] = {}
    for record in pieces.records.values():
        if (record["model"], record["profile"], record["config"]) == (model, profile, config):
            for entry in record["entries"]:
                found.setdefault(tuple(entry["pair"]), []).append(entry)
    return {
        pair: sorted(entries, key=lambda e: (not e["found"], e["distance"]))
        for pair, entries in sorted(found.items())
    }


def line(model: str, profile: str, found: dict[Pair, list[Record]], theirs: dict[Pair, float]) -> list[str]:
    """Return one row of totals."""
    best = [entries[0] for entries in found.values()]
    every = [entry for entries in found.values() for entry in entries]
    sizes = [entry["distance"] for entry in every if entry["found"]]
    ours = [entry["distance"] for entry in best]
    authors = [theirs[pair] for pair in found]
    return [
        MODELS[model],
        profile,
        f"{len(found)} of {COUNTS[model]}",
        f"{fmean(ours):.2f}",
        f"{fmean(authors):.2f}",
        f"{fmean(ours) / fmean(authors):.3f}",
        f"{spearman(ours, authors):.2f}",
        f"{fmean(sizes or [nan]):.2f}",
        f"{sum(entry['found'] and entry['success'] >= RATE for entry in every)} of {len(every)}",
        f"{fmean(entry['success'] for entry in best):.3f}",
        f"{fmean(entry['held_out'] for entry in best):.3f}",
    ]


def summary(pieces: Pieces, shared: Path) -> str:
    """Return tables of what is there: totals, then the pairs."""
    totals, details = [], []
    for model in MODELS:
        theirs = published(shared / f"models/moth_resnet20_{model}_distance.csv")
        for profile in ("default", "paper"):
            found = smallest(pieces, model, profile)
            if not found:
                continue
            totals.append(line(model, profile, found, theirs))
            heading = f"{MODELS[model].capitalize()} model, {profile} profile"
            details.append(f"{heading}, {by_pair(found, theirs)}")
    sizes = ("ours, least of 3", "the authors'", "ratio", "Spearman", "ours, each run")
    heading = ("model", "profile", "pairs", *sizes, "at the rate, each run", "success", "held out")
    return table(heading, totals) + "\n\n" + "\n\n".join(details)


def by_pair(found: dict[Pair, list[Record]], theirs: dict[Pair, float]) -> str:
    """Return what was found for each pair as one line of text."""
    words = [
        f"{source}-{target} {best['distance']:.1f} / {theirs[source, target]:.1f} "
        f"({best['success']:.2f}, {best['held_out']:.2f})"
        for (source, target), (best, *_) in found.items()
    ]
    return f"ours / the authors' (success, held out): {'; '.join(words)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True, help="folder with models/ and data/")
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--profile", choices=["default", "paper"], default="default")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--table", action="store_true", help="only write the table")
    parser.add_argument("--out", type=Path, default=RESULTS / "published_distance.jsonl")
    options = parser.parse_args()
    pieces = Pieces(options.out)
    if not options.table:
        torch.set_num_threads(1)
        run(pieces, options)
    text = summary(pieces, options.shared)
    print(text)
    write_section("published_distance", text)


if __name__ == "__main__":
    main()
