"""The matrix as a web page that stands alone: no script, nothing loaded from elsewhere, light and dark."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from mothkit.distance import Distance, Distances, summarise
from mothkit.matrix.estimate import MeanSize
from mothkit.matrix.heatmap import Grid, grid_of, number
from mothkit.matrix.picture import trigger_png

_SHOWN = 24  # triggers shown as pictures: the smallest
_STYLE = """
:root { color-scheme: light dark; --ground: #fff; --ink: #202124; --faint: #5f6368; --line: #dadce0;
  --near: #fff3c4; --far: #7a043c; --ink-near: #202124; --ink-far: #fff; }
@media (prefers-color-scheme: dark) { :root { --ground: #17181a; --ink: #e8eaed; --faint: #9aa0a6;
  --line: #3c4043; --near: #33203a; --far: #ffb454; --ink-near: #e8eaed; --ink-far: #17181a; } }
body { background: var(--ground); color: var(--ink); font: 15px/1.5 system-ui, sans-serif;
  margin: 2rem auto; max-width: 76rem; padding: 0 1rem; }
h1 { font-size: 1.35rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th { color: var(--faint); font-weight: 500; padding: .2rem .5rem; text-align: right; white-space: nowrap; }
td { border: 1px solid var(--line); padding: .2rem .5rem; text-align: right; }
.matrix td { border-color: var(--ground); min-width: 2.6rem;
  background: color-mix(in oklab, var(--near), var(--far) var(--share)); color: var(--ink-near); }
.matrix td.far { color: var(--ink-far); } .matrix td.none { background: none; color: var(--faint); }
.matrix td.failed { background: none; border: 1px dashed var(--faint); color: var(--faint); }
.triggers { display: flex; flex-wrap: wrap; gap: 1rem; } figure { margin: 0; }
img { background: repeating-conic-gradient(#8886 0 25%, #ccc6 0 50%) 0 0 / 16px 16px; display: block;
  height: 96px; image-rendering: pixelated; width: auto; }
figcaption, .note { color: var(--faint); font-size: .85rem; }
"""


def write_page(distances: Distances, record: Mapping[str, Any], class_names: Sequence[str]) -> str:
    """Return an HTML page with the means, the matrix, the smallest triggers and all entries.

    Args:
        distances: at least one entry.
        record: of the run; its model's name and digest are told.
        class_names: in the model's order.
    """
    model = record["model_in"]
    title = f"Class distance of {model['path']}"
    body = "\n".join(
        (
            f"<h1>{escape(title)}</h1>",
            f'<p class="note">SHA-256 {escape(model["sha256"])}, {escape(str(record["time"]))}</p>',
            *_means(distances),
            "<h2>Matrix</h2>",
            '<p class="note">L1 of the smallest trigger mask, in pixels, times channels. Rows are source classes, '
            "columns target classes; dashed: no trigger was found. Point at a cell for more.</p>",
            *_matrix(grid_of(distances), class_names),
            "<h2>Smallest triggers</h2>",
            *_pictures(distances),
            "<h2>Entries</h2>",
            *_entries(distances),
        )
    )
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style>"
    )
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'


def _means(distances: Distances) -> Iterator[str]:
    for what, entries, missing in (
        ("Pairs of classes", distances.entries, distances.missing[0]),
        ("One trigger from all classes", distances.universal, distances.missing[1]),
    ):
        if entries or missing:
            failed = sum(not e.found for e in entries)
            told = f"{len(entries)} measured, {missing} not measured for lack of time, {failed} without a trigger"
            yield f"<p>{what}: {escape(mean_in_words(summarise(entries, missing)))} ({told}).</p>"


def mean_in_words(mean: MeanSize | None) -> str:
    """Return the mean and what its interval covers, in a few words."""
    if mean is None:
        return "no mean, as no trigger was found"
    if mean.interval95 is None:
        return f"mean {number(mean.value)}, its error not measured"
    low, high = mean.interval95
    return f"mean {number(mean.value)}, 95 % interval {number(low)} to {number(high)} over {mean.covers}"


def _matrix(grid: Grid, class_names: Sequence[str]) -> Iterator[str]:
    yield '<div class="wide"><table class="matrix"><tr><th></th>'
    yield "".join(f"<th{_title(c, class_names)}>{c}</th>" for c in grid.columns) + "</tr>"
    for source in grid.rows:
        cells = "".join(_cell(grid.cells.get((source, target)), grid.largest) for target in grid.columns)
        name = "all" if source is None else f"{source} {escape(class_names[source])}"
        yield f"<tr><th>{name}</th>{cells}</tr>"
    yield "</table></div>"


def _title(index: int, class_names: Sequence[str]) -> str:
    return f' title="{escape(class_names[index])}"'


def _cell(entry: Distance | None, largest: float) -> str:
    if entry is None:
        return '<td class="none"></td>'
    told = f' title="{escape(_in_words(entry))}"'
    if not entry.found:
        return f'<td class="failed"{told}>&times;</td>'
    share = 100 * entry.class_distance / largest
    far = ' class="far"' if share > 55 else ""
    return f'<td{far}{told} style="--share: {share:.0f}%">{number(entry.class_distance)}</td>'


def _in_words(entry: Distance) -> str:
    held_out = "" if entry.held_out is None else f", {100 * entry.held_out.value:.0f} % on held-out images"
    error = "" if entry.error is None else f" ± {number(entry.error)}"
    size = f"{number(entry.class_distance)}{error}" if entry.found else "no trigger at the rate"
    return f"{entry.name}: {size}, {100 * entry.success_rate:.0f} % on its images{held_out}"


def _pictures(distances: Distances) -> Iterator[str]:
    found = [e for e in distances.measured if e.found]
    yield '<p class="note">As they are laid over an image: where the pattern shows through, the image does.</p>'
    yield '<div class="triggers">'
    for entry in sorted(found, key=lambda e: e.smallest or 0.0)[:_SHOWN]:
        data = base64.b64encode(trigger_png(entry.trigger)).decode()
        size = number(entry.smallest or 0.0)
        yield (
            f'<figure><img alt="trigger {entry.name}" src="data:image/png;base64,{data}">'
            f"<figcaption>{entry.name}, {size}</figcaption></figure>"
        )
    yield "</div>"


def _entries(distances: Distances) -> Iterator[str]:
    heads = (
        "direction",
        "distance",
        "error",
        "of image",
        "draws",
        "success",
        "held-out",
        "interval",
        "images",
    )
    yield '<div class="wide"><table><tr>' + "".join(f"<th>{head}</th>" for head in heads) + "</tr>"
    for e in distances.measured:
        held_out, interval, count = "", "", ""
        if e.held_out is not None:
            low, high = e.held_out.interval
            held_out, count = f"{100 * e.held_out.value:.0f} %", str(e.held_out.count)
            interval = f"{100 * low:.0f} to {100 * high:.0f} %"
        cells = (
            e.name,
            number(e.class_distance) if e.found else f"none ({number(e.class_distance)} tried)",
            "" if e.error is None else number(e.error),
            f"{100 * e.share:.1f} %",
            f"{len(e.draws)} of {len(e.draws) + e.failed_draws}",
            f"{100 * e.success_rate:.0f} %",
            *(held_out, interval, count),
        )
        yield "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
    yield "</table></div>"
