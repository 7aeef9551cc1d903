"""Class distance: how small the smallest triggers are."""

from collections.abc import Sequence

from mothkit.distance import Distance
from mothkit.errors import ModelError
from mothkit.gate.bench import Bench
from mothkit.gate.findings import Checked, Finding, compared
from mothkit.gate.policy import DistanceCheck


def check_distance(settings: DistanceCheck, bench: Bench) -> Checked:
    """Return whether distances are as large as asked for."""
    distances = bench.distances
    findings: list[Finding] = []
    if settings.min_mean is not None or settings.min_pair is not None:
        found = with_trigger(distances.entries, distances.missing[0], "pairs of classes")
        mean = sum(entry.class_distance for entry in found) / len(found)
        findings += compared(
            "distance.min-mean", mean, f"mean class distance of {len(found)} pairs", least=settings.min_mean
        )
        findings += _smallest("distance.min-pair", found, settings.min_pair)
    if settings.min_universal is not None:
        found = with_trigger(distances.universal, distances.missing[1], "triggers from all classes")
        findings += _smallest("distance.min-universal", found, settings.min_universal)
    return Checked(findings=findings, measured=distances.to_dict())


def with_trigger(entries: Sequence[Distance], missing: int, what: str) -> list[Distance]:
    """Return those of ``entries`` that have a trigger, of which all were measured.

    Raises:
        ModelError: the time was up before all were measured, or none has a trigger.
    """
    if missing:
        raise ModelError(
            f"the time is up: {missing} of {missing + len(entries)} {what} were not measured; allow more with "
            "--budget, or go on with --state"
        )
    found = [entry for entry in entries if entry.found]
    if not found:
        raise ModelError(f"none of {len(entries)} {what} has a trigger at the rate: allow more steps")
    return found


def _smallest(rule: str, entries: Sequence[Distance], least: float | None) -> list[Finding]:
    nearest = min(entries, key=lambda entry: entry.class_distance)
    what = f"smallest trigger, {nearest.name},"
    return compared(rule, nearest.class_distance, what, least=least, subject=nearest.name)
