"""How much class distance depends on the images that it is measured on: the paper's Fig. 13.

    OMP_NUM_THREADS=1 python benchmarks/stability.py --shared ../shared [--sets 10] [--pairs 10] [--device cuda]

A set is so many images of each class, drawn at random; the same pairs of the authors' natural ResNet20 are measured on
every one, a draw each, with the default profile. The paper has 100 sets and all 90 pairs; the mean over a sample of
pairs differs from that over all, so ``--pairs 90`` is what compares with its number. Sets of 200 need more images a
class than ``measure`` holds and come from ``train``. Resumable: a piece is a set. Writes its table to docs/distance.md.
"""

import argparse
from pathlib import Path
from statistics import fmean, stdev

import torch
from authors import Pair, sample, seeded
from pieces import RESULTS, ROOT, Pieces, Record, table, timed, told, write_section

from mothkit.classifier import Classifier
from mothkit.distance import all_directions, class_distances
from mothkit.images import ImageSet
from mothkit.inversion.config import QUICK
from mothkit.matrix.draws import Sampling
from mothkit.opening import Settings, open_model

SIZES = (100, 200)
DOCUMENT = ROOT.parent / "docs" / "distance.md"


def draw_set(images: ImageSet, size: int, number: int) -> ImageSet:
    """Return the set ``number``: ``size`` images of each class of ``images``."""
    generator, chosen = seeded(size, number), torch.zeros(len(images), dtype=torch.bool)
    for label in range(len(images.class_names)):
        members = torch.nonzero(images.labels == label)[:, 0]
        chosen[members[torch.randperm(len(members), generator=generator)[:size]]] = True
    return images.subset(chosen)


def measure(
    classifier: Classifier, images: ImageSet, size: int, number: int, pairs: list[Pair], device: torch.device
) -> Record:
    """Return the distances of ``pairs`` on one set."""
    with timed() as seconds:
        found = class_distances(
            classifier,
            draw_set(images, size, number),
            pairs,
            config=QUICK,
            sampling=Sampling(images_per_class=size),
            generator=seeded(size, number, 1),
            device=device,
        )
    sizes = [[*e.direction, e.class_distance] for e in found.entries if e.found]
    return {"size": size, "pairs": len(pairs), "config": told(QUICK), "sizes": sizes, **seconds}


def row(size: int, records: list[Record]) -> list[str]:
    """Return what the sets of one size show; deviations are between sets."""
    means = [fmean(value for _, _, value in record["sizes"]) for record in records]
    by_pair: dict[Pair, list[float]] = {}
    for record in records:
        for source, target, value in record["sizes"]:
            by_pair.setdefault((source, target), []).append(value)
    spread = [stdev(values) / fmean(values) for values in by_pair.values() if len(values) > 1]
    asked = sum(record["pairs"] for record in records)
    return [
        str(size),
        f"{len(records)} x {records[0]['pairs']}",
        f"{fmean(means):.2f}",
        f"{stdev(means):.2f}",
        f"{100 * fmean(spread):.1f} %",
        f"{asked - sum(len(record['sizes']) for record in records)} of {asked}",
        f"{sum(record['cpu'] for record in records) / asked:.1f} s",
    ]


def summary(pieces: Pieces, pairs: int) -> str:
    """Return the table of what is there for so many pairs."""
    rows = []
    for size in SIZES:
        records = [r for r in pieces.records.values() if (r["size"], r["pairs"]) == (size, pairs)]
        if len(records) > 1:
            rows.append(row(size, records))
    deviations = ("deviation of the mean", "of an entry, relative")
    return table(
        ("images a class", "sets x pairs", "mean", *deviations, "without a trigger", "CPU a pair"), rows
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True, help="folder with models/ and data/")
    parser.add_argument("--sets", type=int, default=10)
    parser.add_argument("--pairs", type=int, default=10, help="a sample of at most 30, or all 90")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--table", action="store_true", help="only write the table")
    parser.add_argument("--out", type=Path, default=RESULTS / "stability.jsonl")
    options = parser.parse_args()
    pieces = Pieces(options.out)
    if not options.table:
        settings = Settings(preprocess="byte", device=options.device)
        model = open_model(options.shared / "models/moth_resnet20_nat.onnx", settings)
        images = model.images(f"{options.shared}/data/cifar10_lossless.npz:train")
        classifier = model.classifier(images.shape)
        pairs = all_directions(10) if options.pairs == 90 else sample(options.pairs)
        for number in range(options.sets):
            for size in SIZES:
                record = pieces.get(
                    f"{size} images, set {number}: {pairs}: {QUICK}",
                    lambda s=size, n=number: measure(classifier, images, s, n, pairs, model.device),
                )
                print(f"set {number} of {size}: {record['cpu']:.0f} s CPU", flush=True)
    text = summary(pieces, options.pairs)
    print(text)
    write_section("stability", text, DOCUMENT)


if __name__ == "__main__":
    main()
