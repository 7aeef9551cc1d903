"""What views share: a stranger's names made harmless, verdicts in words."""

from collections.abc import Mapping
from typing import Any

Record = Mapping[str, Any]

VERDICTS = {
    "passed": "passed: the policy holds",
    "violated": "violated: the policy does not hold",
    "error": "could not be checked",
    "nothing checked": "nothing was checked",
}


def plain(text: object) -> str:
    """Return ``text`` on one line, what cannot be printed written out."""
    line = " ".join(str(text).split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def title(finding: Record) -> str:
    """Return the rule, and whom it is about."""
    subject = f" ({finding['subject']})" if finding["subject"] else ""
    return plain(finding["rule"] + subject)
