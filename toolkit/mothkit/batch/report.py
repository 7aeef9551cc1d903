"""What came of a batch: the ledger and its records as one record, and views of that."""

import csv
import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import Any

from mothkit.batch.ledger import Ledger, Row, Status
from mothkit.errors import ConfigError, OutputError, RecordError
from mothkit.markdown import as_code, escaped, table
from mothkit.records import read_record, to_json, write_text
from mothkit.trojai.fidelity import fidelity, literal_fidelity, mean_asr

SCHEMA = "mothkit.batch/1"
NUMBERS = ("accuracy_before", "accuracy_after", "asr_before", "asr_after", "fidelity")
_MEASURED = (*NUMBERS, "fidelity_literal")
COLUMNS = ("model", "status", *_MEASURED, "seconds", "attempts", "stage", "reason", "record")
"""Of each model's line, before what else is known of it."""


def read_batch(folder: Path) -> dict[str, Any]:
    """Return the record of the batch in ``folder``, at work or ended: a line a model, and a summary.

    Accuracy and ASR (the mean over a model's triggers) are shares of the evaluation images, 0 to 1, None where they
    were not measured. ``fidelity`` is as it is meant, ``fidelity_literal`` as NIST's code computes it.

    Raises:
        ResumeError: there is no batch, or its ledger cannot be read.
    """
    ledger = Ledger(folder)
    try:
        facts, rows = ledger.facts(), ledger.rows()
    finally:
        ledger.close()
    lines = [
        _line(folder, model, list(of_one), facts[model])
        for model, of_one in groupby(rows, lambda row: row.model)
    ]
    return {
        "schema": SCHEMA,
        "command": "batch",
        "time": max((row.started for row in rows if row.started), default=None),
        "versions": {"mothkit": version("mothkit")},
        "models": lines,
        "summary": _summary(lines),
    }


def _line(folder: Path, model: str, rows: Sequence[Row], facts: Mapping[str, Any]) -> dict[str, Any]:
    last = next((row for row in rows if row.status is not Status.DONE), rows[-1])
    told = {
        "model": model,
        "status": str(last.status),
        **_measured(folder, rows, unseen=facts.get("poisoned") is True),
        "seconds": round(sum(row.seconds or 0.0 for row in rows), 3),
        "attempts": last.attempts,
        "stage": last.stage,
        "reason": last.reason,
        "record": next((row.record for row in rows if row.stage == "harden"), None),
    }
    return told | {name: value for name, value in facts.items() if name not in told and name != "name"}


def _measured(folder: Path, rows: Sequence[Row], *, unseen: bool) -> dict[str, float | None]:
    """Return the numbers in the record of a hardening; where the original was kept, fidelity is that of no change.

    ``unseen``: whether there is a backdoor even where no trigger was tried; then fidelity is not known.
    """
    path = next((row.record for row in rows if row.stage == "harden"), None)
    if path is None or (record := _record(folder / path)) is None:
        return dict.fromkeys(_MEASURED)
    unknown = unseen and not record["before"]["triggers"]
    before, after = record["before"], record.get("after")
    return {
        "accuracy_before": before["accuracy"]["value"],
        "accuracy_after": None if after is None else after["accuracy"]["value"],
        "asr_before": mean_asr(before),
        "asr_after": None if after is None else mean_asr(after),
        "fidelity": None if unknown else fidelity(before, after or before),
        "fidelity_literal": None if unknown else literal_fidelity(before, after or before),
    }


def _record(path: Path) -> Mapping[str, Any] | None:
    """Return the record at ``path``; None where it is gone or damaged."""
    try:
        return read_record(path)
    except (OSError, RecordError):
        return None


def _summary(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    means = {}
    for name in _MEASURED:
        values = [line[name] for line in lines if line[name] is not None]
        means[name] = fmean(values) if values else None
    return {
        "models": len(lines),
        "by_status": dict(Counter(line["status"] for line in lines)),
        "mean": means,
        "seconds": round(sum(line["seconds"] for line in lines), 3),
    }


def to_csv(record: Mapping[str, Any]) -> str:
    """Return a batch's record as CSV, a line a model."""
    lines = record["models"]
    text = io.StringIO()
    writer = csv.DictWriter(text, _columns(lines), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def to_markdown(record: Mapping[str, Any]) -> str:
    """Return a batch's record as Markdown: counts, then a row a model."""
    summary = record["summary"]
    counts = ", ".join(f"{count} {status}" for status, count in sorted(summary["by_status"].items()))
    heading = ["model", "status", "accuracy", "after", "ASR", "after", "fidelity", "seconds", "reason"]
    rows = [
        [
            as_code(line["model"]),
            line["status"],
            *_shares(line),
            f"{line['seconds']:.0f}",
            escaped(line["reason"] or ""),
        ]
        for line in record["models"]
    ]
    rows.append(["mean", "", *_shares(summary["mean"]), f"{summary['seconds']:.0f} in all", ""])
    title = f"## mothkit batch: {summary['models']} models: {counts or 'none'}"
    return "\n".join([title, "", *table(heading, rows)]) + "\n"


def _shares(line: Mapping[str, Any]) -> list[str]:
    return [share(line[name]) for name in NUMBERS]


def share(value: float | None) -> str:
    """Return a share as a view shows it."""
    return "-" if value is None else f"{100 * value:.2f} %"


def _columns(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    return [*COLUMNS, *sorted({name for line in lines for name in line} - set(COLUMNS))]


VIEWS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "csv": to_csv,
    "markdown": to_markdown,
    "json": to_json,
}


def check_parquet() -> None:
    """Check, before any work, that Parquet can be written.

    Raises:
        ConfigError: what writes it is not installed.
    """
    if find_spec("pyarrow") is None:
        raise ConfigError("--parquet needs pyarrow, which is not installed; pip install 'mothkit[parquet]'")


def write_view(record: Mapping[str, Any], name: str, path: Path) -> None:
    """Write the view of a batch's ``record`` called ``name``, or ``parquet``, to ``path``.

    Raises:
        OutputError: it cannot be written; what stood there still does.
    """
    try:
        if name == "parquet":
            _write_parquet(record["models"], path)
        else:
            write_text(path, VIEWS[name](record))
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error


def _write_parquet(lines: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write ``lines`` as Parquet; a column of values of several types becomes one of texts."""
    import pyarrow as arrow  # an extra
    from pyarrow import parquet

    from mothkit.matrix.store import write_through

    columns = {name: [line.get(name) for line in lines] for name in _columns(lines)}
    for name, values in columns.items():
        if len({type(value) for value in values if value is not None}) > 1 and name not in COLUMNS:
            columns[name] = [None if value is None else str(value) for value in values]
    write_through(path, lambda beside: parquet.write_table(arrow.table(columns), beside))
