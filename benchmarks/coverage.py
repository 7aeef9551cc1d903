"""What mothkit takes: ONNX's backend cases, and the operators behind them, written to docs/coverage.md.

Run: ``python benchmarks/coverage.py [--models FOLDER] [--exports FILE]``

``--models`` adds the way of real files there and back (``benchmarks/zoo.py``), ``--exports`` what
``benchmarks/frameworks/measure.py --json FILE`` measured. Both sections stay as they are where not asked for.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import onnx
from backend_suite import ATOL, RTOL, Case, Verdict, cases, judge
from onnx2torch.node_converters import registry

import mothkit_converters.ops  # noqa: F401 - registers our operators

PAGE = Path(__file__).parents[1] / "docs" / "coverage.md"
BANDS = ((13, "up to 13"), (18, "14 to 18"), (22, "19 to 22"), (99, "23 and newer"))
SECTIONS = ("backend", "operators", "models", "exports")


def band(case: Case) -> str:
    return next(name for last, name in BANDS if case.opset <= last)


def counted(title: str, verdicts: Iterable[Verdict]) -> str:
    outcomes = Counter(verdict.outcome for verdict in verdicts)
    numbers = " | ".join(str(outcomes[name]) for name in ("right", "rounded", "refused", "wrong"))
    return f"| {title} | {outcomes.total()} | {numbers} |"


def backend() -> str:
    """Return the section on ONNX's own cases."""
    judged = {key: (case, judge(case)) for key, case in cases().items()}
    groups: dict[str, list[Verdict]] = defaultdict(list)
    for case, verdict in judged.values():
        groups["all"].append(verdict)
        groups[case.kind].append(verdict)
        if case.is_core:
            groups["core"].append(verdict)
            groups[f"core, opset {band(case)}"].append(verdict)
    names = [
        "core",
        *(f"core, opset {name}" for _, name in BANDS),
        "all",
        *sorted({c.kind for c, _ in judged.values()}),
    ]
    return "\n".join(
        [
            f"Cases of onnx {onnx.__version__}'s backend suite. Right: same shape and dtype, and values within rtol "
            f"{RTOL:g}, atol {ATOL:g}.",
            "Rounded: off by at most two units in the last place of float16 or bfloat16, more than that rtol allows.",
            "Core: made of operators and types of classifiers, without expanded twins and training mode.",
            "",
            "| cases | number | right | rounded | refused | wrong |",
            "|---|---|---|---|---|---|",
            *(counted(name, groups[name]) for name in names),
            "",
            *_failures(judged),
        ]
    )


def _failures(judged: Mapping[str, tuple[Case, Verdict]]) -> Iterable[str]:
    """Yield what is not right, by reason."""
    reasons: dict[tuple[str, str], list[str]] = defaultdict(list)
    for key, (_, verdict) in judged.items():
        if verdict.outcome != "right":
            reasons[verdict.outcome, verdict.why.partition(" (")[0].splitlines()[0]].append(key)
    yield "| | reason | cases |"
    yield "|---|---|---|"
    for (outcome, why), keys in sorted(
        reasons.items(), key=lambda item: (item[0][0], -len(item[1]), item[0][1])
    ):
        shown = ", ".join(key.removeprefix("node/test_") for key in keys[:3])
        yield f"| {outcome} | {why.replace('|', '/')} | {len(keys)}: {shown}{', ...' if len(keys) > 3 else ''} |"


def operators() -> str:
    """Return the section on operators: their schema versions that are served."""
    versions: dict[tuple[str, str], list[int]] = defaultdict(list)
    for description in registry._CONVERTER_REGISTRY:  # noqa: SLF001 - a test pins the version
        versions[description.domain, description.operation_type].append(description.version)
    lines = ["| domain | operator | schema versions |", "|---|---|---|"]
    for (domain, op), numbers in sorted(versions.items()):
        lines.append(f"| {domain or 'ai.onnx'} | {op} | {', '.join(map(str, sorted(numbers)))} |")
    return "\n".join(lines)


def models(folder: Path) -> str:
    """Return the section on real files."""
    from zoo import WAY, measured

    rows = list(measured(folder))
    lines = ["| file | " + " | ".join(WAY) + " | |", "|---" * (len(WAY) + 2) + "|"]
    for row in rows:
        marks = " | ".join("yes" if row.held.get(step) else "-" for step in WAY)
        lines.append(f"| {row.file} | {marks} | {row.why} |")
    counts = [f"{sum(bool(row.held.get(step)) for row in rows)} of {len(rows)}" for step in WAY]
    return "\n".join([*lines, f"| together | {' | '.join(counts)} | |"])


def exports(file: Path) -> str:
    """Return the section on fresh exports, from what was measured of them."""
    rows = json.loads(file.read_text(encoding="utf-8"))
    by_framework: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        held = by_framework[row["file"].partition("-")[0]]
        held["files"] += 1
        held.update(name for name, value in row.items() if value is True)
    columns = (
        "files",
        "converts",
        "equals_onnxruntime",
        "all_trainable",
        "loss_falls",
        "equal_again",
        "refused",
        "whole_way",
    )
    lines = [
        "| framework | " + " | ".join(c.replace("_", " ") for c in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    lines += [
        f"| {name} | {' | '.join(str(held[c]) for c in columns)} |"
        for name, held in sorted(by_framework.items())
    ]
    lost = [f"- {row['file']}: {row['why']}" for row in rows if not row["whole_way"]]
    return "\n".join([*lines, "", *(lost or ["All go the whole way, or are refused as they should be."])])


def sections() -> dict[str, str]:
    """Return the page's present sections."""
    if not PAGE.exists():
        return {}
    parts = PAGE.read_text(encoding="utf-8").split("<!-- section: ")[1:]
    return {part.partition(" -->")[0]: part.partition(" -->\n")[2].strip() for part in parts}


TITLES = {
    "backend": "ONNX's own cases",
    "operators": "Operators",
    "models": "Real files: there and back",
    "exports": "Fresh exports: there and back",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path)
    parser.add_argument("--exports", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    found = sections() | {"backend": backend(), "operators": operators()}
    if options.models:
        found["models"] = models(options.models)
    if options.exports:
        found["exports"] = exports(options.exports)
    lines = ["# Coverage", "", "Written by `python benchmarks/coverage.py`; do not edit.", ""]
    for name in SECTIONS:
        if name in found:
            text = found[name].partition("\n")[2].strip() if found[name].startswith("## ") else found[name]
            lines += [f"<!-- section: {name} -->", f"## {TITLES[name]}", "", text, ""]
    PAGE.write_text("\n".join(lines), encoding="utf-8")
    print(PAGE)


if __name__ == "__main__":
    main()
