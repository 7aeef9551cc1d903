"""A gate record as Markdown, for the summary of a CI job."""

import re

from mothkit.gate.views.words import VERDICTS, Record, plain, title

_SIGNS = {"passed": "passed", "violated": "**violated**", "error": "**not checked**", "skipped": "skipped"}
_ORDER = ("error", "violated", "passed", "skipped")


def to_markdown(record: Record) -> str:
    """Return ``record`` as Markdown: the verdict, then a row for each rule, the worst first."""
    model, policy = record["model_in"], record["policy"]
    digest = f" ({_code(model['sha256'][:16])}…)" if "sha256" in model else ""
    lines = [
        f"## mothkit gate: {VERDICTS[record['verdict']]}",
        "",
        f"Model {_code(model['path'])}{digest}, policy {_code(policy['name'])}, exit code {record['exit_code']}.",
        "",
        "| rule | | what was found |",
        "|---|---|---|",
    ]
    for finding in sorted(record["findings"], key=lambda f: _ORDER.index(f["status"])):
        warns = finding["status"] == "violated" and finding["level"] == "warn"
        sign = "warning" if warns else _SIGNS[finding["status"]]
        lines.append(f"| {_code(title(finding))} | {sign} | {_escaped(finding['message'])} |")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    """Return a stranger's words without meaning to Markdown or HTML."""
    safe = plain(text).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*_{}\[\]|~#!@])", r"\\\1", safe)


def _code(text: str) -> str:
    """Return a name as code; what would end it, or a table's cell, is replaced."""
    return "`" + plain(text).replace("`", "'").replace("|", "¦") + "`"
