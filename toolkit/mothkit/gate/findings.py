"""What a check finds, and what all findings together mean. Whatever is in doubt is no pass."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Level(StrEnum):
    """What a violation means."""

    FAIL = "fail"
    WARN = "warn"


class Status(StrEnum):
    """What came of one rule."""

    PASSED = "passed"
    VIOLATED = "violated"
    ERROR = "error"  # could not be checked
    SKIPPED = "skipped"  # what it needs was not given, and the policy does not insist


class Verdict(StrEnum):
    """What came of all."""

    PASSED = "passed"
    VIOLATED = "violated"
    ERROR = "error"
    NOTHING_CHECKED = "nothing checked"

    @property
    def exit_code(self) -> int:
        """The command's exit code: 0, 1, 2 or 3 in this order."""
        return list(Verdict).index(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What came of one rule for one subject.

    Attributes:
        rule: ``check.limit``, one of ``mothkit.gate.rules.RULES``.
        message: one sentence with the numbers.
        level: of the check that it belongs to.
        subject: the trigger, class, provider or file that it is about; empty for the model itself.
        measured, limit: the two numbers compared, in the rule's unit; None where there are none.
    """

    rule: str
    status: Status
    message: str
    level: Level = Level.FAIL
    subject: str = ""
    measured: float | None = None
    limit: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What one check found, and what it measured: plain JSON types, for the record."""

    findings: Sequence[Finding]
    measured: Any = None


def judge(findings: Iterable[Finding]) -> Verdict:
    """Return the verdict: an error beats a violation, and without any rule that was checked there is no pass.

    Violations of a check at level ``warn`` count as checked; errors count at either level.
    """
    found = list(findings)
    if any(f.status is Status.ERROR for f in found):
        return Verdict.ERROR
    if any(f.status is Status.VIOLATED and f.level is Level.FAIL for f in found):
        return Verdict.VIOLATED
    if any(f.status in (Status.PASSED, Status.VIOLATED) for f in found):
        return Verdict.PASSED
    return Verdict.NOTHING_CHECKED


def at_least(rule: str, measured: float, limit: float, what: str, subject: str = "") -> Finding:
    """Return whether ``measured`` is ``limit`` or more; ``what`` names it in the message."""
    return _compared(rule, measured, limit, what, subject, passed=measured >= limit, word="at least")


def at_most(rule: str, measured: float, limit: float, what: str, subject: str = "") -> Finding:
    """Return whether ``measured`` is ``limit`` or less; ``what`` names it in the message."""
    return _compared(rule, measured, limit, what, subject, passed=measured <= limit, word="at most")


def holds(rule: str, *, passed: bool, message: str, subject: str = "") -> Finding:
    """Return whether a rule without numbers holds."""
    status = Status.PASSED if passed else Status.VIOLATED
    return Finding(rule=rule, status=status, message=message, subject=subject)


def error(rule: str, message: str, subject: str = "") -> Finding:
    """Return that a rule could not be checked."""
    return Finding(rule=rule, status=Status.ERROR, message=message, subject=subject)


def missing(check: str, what: str, *, required: bool) -> Checked:
    """Return that what a check needs was not given, as ``what`` says: an error where the policy insists."""
    status = Status.ERROR if required else Status.SKIPPED
    return Checked(findings=[Finding(rule=f"{check}.check", status=status, message=what)])


def compared(
    rule: str,
    measured: float,
    what: str,
    *,
    least: float | None = None,
    most: float | None = None,
    subject: str = "",
) -> list[Finding]:
    """Return what ``least`` or ``most`` the policy sets for ``measured``; nothing where it sets neither."""
    found = []
    if least is not None:
        found.append(at_least(rule, measured, least, what, subject))
    if most is not None:
        found.append(at_most(rule, measured, most, what, subject))
    return found


def _compared(
    rule: str, measured: float, limit: float, what: str, subject: str, *, passed: bool, word: str
) -> Finding:
    if not math.isfinite(measured):
        return error(rule, f"{what} is {measured}: that is no number to judge by", subject)
    return Finding(
        rule=rule,
        status=Status.PASSED if passed else Status.VIOLATED,
        message=f"{what} is {number(measured)}; the policy asks for {word} {number(limit)}",
        subject=subject,
        measured=measured,
        limit=limit,
    )


def number(value: float) -> str:
    """Return ``value`` with so many digits that two different ones are seldom written alike."""
    return f"{value:,.0f}".replace(",", " ") if float(value).is_integer() else f"{value:.6g}"
