"""Charts of a comparison of methods."""

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from mothkit.comparing.summary import DONE, table_of
from mothkit.report.charts import Pair, Point, axis_over, pair_chart, scatter_chart
from mothkit.report.words import Record

_POINTS = {"accuracy_drop": "points of accuracy lost", "seconds": "seconds of hardening"}


def compared_methods(record: Record) -> list[str]:
    """Return the methods by name, in the order of their signs."""
    return [row["method"] for row in record["summary"][1:]]


def finished_runs(record: Record) -> int:
    """Return how many runs have numbers."""
    return sum(run["status"] in DONE for run in record["runs"])


def accuracy_chart(record: Record) -> Markup:
    """Return mean accuracy of each method beside the original's."""
    first, *methods = record["summary"]
    pairs = [_pair(row["method"], first["accuracy"], row["accuracy"]) for row in methods if row["runs"]]
    return pair_chart(pairs, title="Accuracy before and after each method, in percent")


def asr_chart(record: Record, number: int) -> Markup:
    """Return each method's mean ASR of trigger ``number`` beside the original's."""
    first, *methods = record["summary"]
    before = first["triggers"][number]["asr"]
    pairs = [_pair(row["method"], before, row["triggers"][number]["asr"]) for row in methods if row["runs"]]
    return pair_chart(pairs, title="Attack success rate before and after each method, in percent")


def _pair(label: str, before: float, after: float) -> Pair:
    return Pair(label=label, before=100 * before, after=100 * after)


def runs_chart(record: Record, number: int, key: str) -> Markup:
    """Return the ASR of trigger ``number`` in every run, over what ``key`` of the run says."""
    names = compared_methods(record)
    points = [
        Point(
            x=run[key],
            y=100 * run["triggers"][number]["asr"],
            told=f"{run['method']}, seed {run['seed']}",
            series=names.index(run["method"]),
        )
        for run in record["runs"]
        if run["status"] in DONE
    ]
    label = _POINTS[key]
    return scatter_chart(
        points,
        title=f"ASR of each run, in percent, by {label}",
        x=axis_over(label, [point.x for point in points]),
        y=axis_over("ASR, %", [point.y for point in points], within=(0, 100)),
        height=200,
    )


def compared_table(record: Record) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    """Return heading and lines of the summary."""
    return table_of(record["summary"])


GLOBALS: dict[str, Any] = {
    each.__name__: each
    for each in (accuracy_chart, asr_chart, compared_methods, compared_table, finished_runs, runs_chart)
}
