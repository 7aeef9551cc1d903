"""Class distance against the authors' own: MOTH's ResNet20, directions of its published 10 x 9 matrix.

    python benchmarks/published_distance.py --shared ../shared [--steps 300]

The published entries are the smallest of three runs with a linear loss (docs/moth.md) on 100 images a class of 2,000
held-out ones; ours are one run with cross-entropy on up to 100 images a class of ``measure``, which are among them.
So sizes should agree in order and roughly in size, not to the digit. Printed: each direction, the mean ratio, and
Spearman's rank correlation. One piece, about ten minutes on one core at 300 steps.
"""

import argparse
import csv
import json
import sys
from pathlib import Path

import numpy as np

import mothkit
from mothkit.events import StepDone

DIRECTIONS = [
    *((0, 8), (1, 9), (2, 6), (3, 5), (4, 7), (5, 3)),
    *((6, 2), (7, 0), (8, 1), (9, 4), (1, 3), (4, 0)),
]


def published(path: Path) -> dict[tuple[int, int], float]:
    """Return the matrix in ``path``: a heading, then a row a source, the source first and the diagonal empty."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        (int(row["source\\target"]), int(target)): float(size)
        for row in rows
        for target, size in row.items()
        if size and target != "source\\target"
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--shared", type=Path, required=True, help="folder with models/ and data/")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results" / "published_distance.json"
    )
    args = parser.parse_args()
    theirs = published(args.shared / "models/moth_resnet20_nat_distance.csv")
    found = mothkit.class_distance(
        args.shared / "models/moth_resnet20_nat.onnx",
        f"{args.shared}/data/cifar10_lossless.npz:measure",
        directions=DIRECTIONS,
        steps=args.steps,
        preprocess="byte",
        device="cpu",
        emit=lambda event: isinstance(event, StepDone) and print(event, file=sys.stderr, flush=True),
    )
    pairs = [(e, theirs[e.source_class, e.target_class]) for e in found.entries]
    for entry, value in pairs:
        note = "" if entry.found else "  (no trigger at the rate; last size)"
        print(
            f"{entry.source_class}-{entry.target_class}: ours {entry.class_distance:7.2f}, theirs {value:7.2f}{note}"
        )
    ours, published_sizes = np.array([e.class_distance for e, _ in pairs]), np.array([v for _, v in pairs])
    ranks = [np.argsort(np.argsort(sizes)) for sizes in (ours, published_sizes)]
    print(
        f"mean ratio {np.mean(ours / published_sizes):.2f}, Spearman {np.corrcoef(*ranks)[0, 1]:.2f}, "
        f"{len(found.failed)} without a trigger"
    )
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(
        json.dumps({"steps": args.steps, **found.to_dict()}, indent=1) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main()
