"""Where a gate record goes: views of it in files, all complete before one is put in place."""

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mothkit.errors import ConfigError, OutputError
from mothkit.gate.views.junit import to_junit
from mothkit.gate.views.markdown import to_markdown
from mothkit.gate.views.sarif import to_sarif
from mothkit.records import to_json, write_texts
from mothkit.report.html import to_html

VIEWS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "json": to_json,
    "junit": to_junit,
    "sarif": to_sarif,
    "summary": to_markdown,
    "html": to_html,
}
_NEEDED = {"junit": "junitparser", "sarif": "sarif_pydantic"}


def check_views(names: Mapping[str, Path]) -> None:
    """Check, before any work, that the views asked for can be made.

    Raises:
        ConfigError: what makes one of them is not installed.
    """
    for name in names:
        package = _NEEDED.get(name)
        if package is not None and find_spec(package) is None:
            raise ConfigError(
                f"--{name} needs {package.replace('_', '-')}, which is not installed; pip install 'mothkit[gate]'"
            )


def write_views(record: Mapping[str, Any], targets: Mapping[str, Path]) -> None:
    """Write the views of ``record`` to ``targets``, by the names of ``VIEWS``.

    Raises:
        OutputError: one cannot be written; what stood in their places still stands.
    """
    try:
        write_texts({path: VIEWS[name](record) for name, path in targets.items()})
    except OSError as error:
        raise OutputError(
            f"{error.filename}: the results cannot be written ({error.strerror or error})"
        ) from error
