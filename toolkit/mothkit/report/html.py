"""A record as one HTML file.

A further kind of record is a template and a line in ``TEMPLATES``; charts are in ``charts.py``, and what templates
may call in ``parts.py``.
"""

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mothkit.errors import OutputError, RecordError
from mothkit.gate.views.words import VERDICTS
from mothkit.records import to_json, write_text
from mothkit.report import batches, charts, comparison, parts, words
from mothkit.report.scale import number, scale_css

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = {
    # the record's command: its template
    "harden": "harden.html",
    "gate": "gate.html",
    "distance": "distance.html",
    "evaluate": "evaluate.html",
    "compare": "compare.html",
    "batch": "batch.html",
}
_FILTERS = (
    *(words.attack, words.duration, words.flat, words.growth, words.interval, words.mean_in_words),
    *(words.percent, words.points, words.scientific, words.value_of),
)


def to_html(record: Mapping[str, Any]) -> str:
    """Return ``record`` as a page that stands alone; all of its text is a stranger's, and harmless on the page.

    Raises:
        RecordError: it is of no kind that there is a page for, or lacks what the page tells.
    """
    from jinja2 import TemplateError

    command = record.get("command")
    if not isinstance(command, str) or command not in TEMPLATES:
        raise RecordError(
            f"there is no page for a record of {command!r}; there is for {', '.join(TEMPLATES)}"
        )
    try:
        return _environment().get_template(TEMPLATES[command]).render(record=json.loads(to_json(record)))
    except (TemplateError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise RecordError(f"the record of {command!r} is not whole: {error}") from error


def write_html(record: Mapping[str, Any], path: Path) -> None:
    """Write ``record`` to ``path`` as ``to_html`` has it.

    Raises:
        RecordError: there is no page for it.
        OutputError: it cannot be written; what stood there still stands.
    """
    page = to_html(record)
    try:
        write_text(path, page)
    except OSError as error:
        raise OutputError(f"{path}: the page cannot be written: {error.strerror or error}") from error


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    folder = files("mothkit.report") / "templates"
    environment = Environment(
        loader=FunctionLoader(lambda name: (folder / name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=words.safe,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {each.__name__: each for each in _FILTERS} | {"number": number}
    environment.globals |= (
        parts.GLOBALS
        | comparison.GLOBALS
        | batches.GLOBALS
        | {
            "legend": charts.legend,
            "scale_css": scale_css,
            "SHOWN": parts.SHOWN,
            "VERDICTS": VERDICTS,
        }
    )
    return environment
