"""Charts and lines of a batch of models."""

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from mothkit.report.charts import Axis, Bar, Pair, Point, axis_over, bar_chart, pair_chart, scatter_chart
from mothkit.report.words import Record, duration, percent

_MOST_ROWS = 40  # of a chart with a row a model
_KINDS = {"accuracy": "Accuracy", "asr": "Attack success rate"}
_EDGE = 2.0  # percent, so that a sign at 100 % is whole


def trade_chart(record: Record) -> Markup:
    """Return each model's ASR over its accuracy, before and after: the paper's Fig. 12."""
    points = [
        Point(
            x=100 * line[f"accuracy_{when}"],
            y=100 * line[f"asr_{when}"],
            told=f"{line['model']}, {when}: accuracy {percent(line[f'accuracy_{when}'])}, "
            f"ASR {percent(line[f'asr_{when}'])}",
            series=series,
        )
        for line in record["models"]
        for series, when in enumerate(("before", "after"))
        if line[f"accuracy_{when}"] is not None and line[f"asr_{when}"] is not None
    ]
    return scatter_chart(
        points,
        title="ASR over accuracy of each model, before and after, in percent",
        x=axis_over("accuracy, %", [point.x for point in points], within=(0, 100)),
        y=Axis(label="ASR, %", low=-_EDGE, high=100 + _EDGE),
    )


def before_and_after(record: Record, kind: str) -> list[Record]:
    """Return the models with ``accuracy`` or ``asr`` before and after, as many as a chart shows: the worst first."""
    both = [line for line in record["models"] if None not in (line[f"{kind}_before"], line[f"{kind}_after"])]
    worst = sorted(both, key=lambda line: line[f"{kind}_after"], reverse=kind == "asr")
    return worst[:_MOST_ROWS]


def models_chart(lines: Sequence[Record], kind: str) -> Markup:
    """Return ``accuracy`` or ``asr`` of models, before and after."""
    pairs = [
        Pair(label=line["model"], before=100 * line[f"{kind}_before"], after=100 * line[f"{kind}_after"])
        for line in lines
    ]
    return pair_chart(pairs, title=f"{_KINDS[kind]} of each model before and after, in percent")


def times_chart(record: Record) -> Markup:
    """Return how long the models took, the longest first."""
    slowest = sorted(record["models"], key=lambda line: line["seconds"], reverse=True)[:_MOST_ROWS]
    bars = [
        Bar(label=line["model"], value=line["seconds"], told=duration(line["seconds"])) for line in slowest
    ]
    return bar_chart(bars, title="Time of each model")


GLOBALS: dict[str, Any] = {
    each.__name__: each for each in (before_and_after, models_chart, times_chart, trade_chart)
}
