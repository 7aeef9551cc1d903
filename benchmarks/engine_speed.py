"""Our inversion engine and the published procedure side by side: time, size and success of the same triggers.

    OMP_NUM_THREADS=1 python benchmarks/engine_speed.py --shared ../shared [--device cuda] [--table]

Pairs of classes of the authors' natural ResNet20; for each of them both get the same images and the same imported
network, in one process, on one thread. They take turns: ours does a few pairs at once, then the reference these pairs
one by one. Resumable: a finished piece is not done twice; a changed config is a new piece. Writes its table to
docs/benchmarks.md. On a GPU, ``--count 30 --group 30`` gives the engine its room.
"""

import argparse
from pathlib import Path
from statistics import fmean

import torch
from authors import CONFIGS, RATE, Pair, Study, count_gradients, open_study, sample, seeded, spearman
from pieces import RESULTS, Pieces, Record, table, timed, told, write_section
from reference.inversion import TORCH
from reference.inversion import invert as invert_as_published

from mothkit.triggers.patch import Trigger

REFERENCE = "published procedure"
NUMBERS = ("wall", "cpu", "gradients", "distance", "success", "held_out")


def published(study: Study, pair: Pair, passes: int) -> Record:
    """Return what the published procedure finds for ``pair``."""
    x = study.images.pixels(study.draw(pair, 0)).to(study.device)
    study.classifier.requires_grad_(requires_grad=True)  # as the published code leaves them
    with count_gradients(study.classifier) as gradients, timed() as seconds:
        found = invert_as_published(
            study.classifier, x, pair[1], rule=TORCH, passes=passes, generator=seeded(0, *pair)
        )
    trigger = Trigger(found.mask, found.pattern)
    entries = [study.entry(pair, 0, trigger, found=found.found)]
    return {"passes": passes, **seconds, "gradients": sum(gradients), "entries": entries}


def run(study: Study, pieces: Pieces, options: argparse.Namespace) -> None:
    """Make every piece that is not there, ours and the reference's in turn."""
    pairs = sample(options.count)
    for first in range(0, len(pairs), options.group):
        group = pairs[first : first + options.group]
        for name in options.profiles:
            config = CONFIGS[name]
            key = f"{options.device}: {name}: {group}: {told(config)}"
            said(
                pieces.get(
                    key, lambda g=group, c=config, n=name: {"who": n, **study.invert([(p, 0) for p in g], c)}
                )
            )
        for pair in group if options.reference else ():
            key = f"{options.device}: {REFERENCE}: {pair}"
            said(pieces.get(key, lambda p=pair: {"who": REFERENCE, **published(study, p, options.passes)}))


def said(record: Record) -> None:
    sizes = ", ".join(f"{e['pair']} {e['distance']:.1f} ({e['success']:.2f})" for e in record["entries"])
    print(f"{record['who']}: {record['cpu']:.0f} s CPU, {record['wall']:.0f} s: {sizes}", flush=True)


def summary(pieces: Pieces, options: argparse.Namespace) -> str:
    """Return tables of what is there: totals, then the pairs."""
    wanted = set(sample(options.count))
    records = [r for r in pieces.records.values() if r["key"].startswith(options.device) and is_current(r)]
    rows: dict[str, dict[Pair, Record]] = {name: {} for name in (REFERENCE, *CONFIGS)}
    for record in records:
        share = 1 / len(record["entries"])
        costs = {name: share * record[name] for name in ("wall", "cpu", "gradients")}
        for each in record["entries"]:
            if (pair := tuple(each["pair"])) in wanted:
                rows[record["who"]][pair] = {**each, **costs}
    heading = ("", "pairs", "s CPU a pair", "s a pair", "times as fast", "image gradients a pair")
    sizes = ("distance", "of theirs", "Spearman", "at the rate", "success", "held out")
    totals = [line(name, rows[name], rows[REFERENCE]) for name in rows if rows[name].keys() & rows[REFERENCE]]
    return table((*heading, *sizes), totals) + "\n\n" + by_pair(rows)


def is_current(record: Record) -> bool:
    """Return whether a piece was made with the config that its profile has now."""
    return record["who"] == REFERENCE or record["config"] == told(CONFIGS[record["who"]])


def line(name: str, mine: dict[Pair, Record], theirs: dict[Pair, Record]) -> list[str]:
    """Return one row of totals, over the pairs that both have."""
    pairs = [pair for pair in mine if pair in theirs]
    own, other = ({key: [who[pair][key] for pair in pairs] for key in NUMBERS} for who in (mine, theirs))
    means = {key: fmean(own[key]) for key in NUMBERS}
    return [
        name,
        f"{len(pairs)}",
        f"{means['cpu']:.1f}",
        f"{means['wall']:.1f}",
        f"{sum(other['cpu']) / sum(own['cpu']):.1f}",
        f"{means['gradients']:,.0f}",
        f"{means['distance']:.2f}",
        f"{sum(own['distance']) / sum(other['distance']):.2f}",
        f"{spearman(own['distance'], other['distance']):.2f}",
        f"{sum(rate >= RATE for rate in own['success'])} of {len(pairs)}",
        f"{means['success']:.3f} (least {min(own['success']):.2f})",
        f"{means['held_out']:.3f}",
    ]


def by_pair(rows: dict[str, dict[Pair, Record]]) -> str:
    """Return a table of sizes, with the success when tried again."""
    lines = [
        [f"{pair[0]}-{pair[1]}"]
        + [
            f"{found[pair]['distance']:.1f} ({found[pair]['success']:.2f}, {found[pair]['held_out']:.2f})"
            if pair in found
            else "-"
            for found in rows.values()
        ]
        for pair in sorted(rows[REFERENCE])
    ]
    return table(("pair", *(f"{name}: size (success, held out)" for name in rows)), lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True, help="folder with models/ and data/")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--count", type=int, default=12, help="pairs, of 30")
    parser.add_argument("--group", type=int, default=6, help="pairs that the engine does at once")
    parser.add_argument("--passes", type=int, default=1000, help="of the reference")
    parser.add_argument("--profiles", nargs="*", choices=list(CONFIGS), default=list(CONFIGS))
    parser.add_argument("--no-reference", action="store_false", dest="reference")
    parser.add_argument("--table", action="store_true", help="only write the table")
    parser.add_argument("--out", type=Path, default=RESULTS / "engine_speed.jsonl")
    options = parser.parse_args()
    torch.set_num_threads(1)
    pieces = Pieces(options.out)
    if not options.table:
        run(open_study(options.shared, "nat", options.device), pieces, options)
    text = summary(pieces, options)
    print(text)
    write_section("engine_speed", text)


if __name__ == "__main__":
    main()
