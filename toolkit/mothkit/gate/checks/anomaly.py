"""Anomaly: is one class reached by a far smaller trigger than the others?

Source: Wang et al., "Neural Cleanse", IEEE S&P 2019: deviation from the median, in MAD; only small ones count. Ours:
the share of the median, which does not depend on how much the classes differ anyway (docs/gate.md).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median

from mothkit.errors import ModelError
from mothkit.gate.bench import Bench
from mothkit.gate.checks.distance import with_trigger
from mothkit.gate.findings import Checked, compared, error
from mothkit.gate.policy import AnomalyCheck

LEAST_CLASSES = 5  # of fewer, the median and its deviation say too little
_NORMAL = 1.4826  # the normal's standard deviation over its median absolute deviation


@dataclass(frozen=True, slots=True)
class Anomaly:
    """How far the smallest of some sizes lies below the others.

    Attributes:
        index: deviations of the smallest from the median; 0 where it is the median, None where there is no deviation.
        share: the smallest over the median.
        position: of the smallest.
        median: of the sizes.
        deviation: median absolute deviation, times 1.4826.
    """

    index: float | None
    share: float
    position: int
    median: float
    deviation: float


def find_anomaly(sizes: Sequence[float]) -> Anomaly:
    """Return how far the smallest of ``sizes`` lies below their median.

    Raises:
        ModelError: they are too few, or most are 0.
    """
    if len(sizes) < LEAST_CLASSES:
        raise ModelError(
            f"{len(sizes)} triggers from all classes are too few to call one small; expected {LEAST_CLASSES}. "
            "Set distance.min_universal in place of this check"
        )
    middle = median(sizes)
    deviation = _NORMAL * median(abs(size - middle) for size in sizes)
    smallest = min(range(len(sizes)), key=sizes.__getitem__)
    if not middle > 0:
        raise ModelError(
            f"half of all triggers from all classes have the size {middle:g}: none is small beside them"
        )
    gap = middle - sizes[smallest]
    index = 0.0 if gap == 0 else gap / deviation if deviation > 0 else None
    return Anomaly(index, sizes[smallest] / middle, smallest, middle, deviation)


def check_anomaly(settings: AnomalyCheck, bench: Bench) -> Checked:
    """Return whether the smallest trigger from all classes is as small as chance allows."""
    distances = bench.distances
    found = with_trigger(distances.universal, distances.missing[1], "triggers from all classes")
    anomaly = find_anomaly([entry.class_distance for entry in found])
    smallest = found[anomaly.position]
    subject = f"class {smallest.target_class}"
    size, middle = f"{smallest.class_distance:.1f}", f"{anomaly.median:.1f}"
    findings = compared(
        "anomaly.min-share",
        anomaly.share,
        f"size of the trigger to {subject} ({size}) over the median of all ({middle})",
        least=settings.min_share,
        subject=subject,
    )
    if anomaly.index is not None:
        what = f"anomaly index of {subject} (trigger of {size}, median {middle})"
        findings += compared(
            "anomaly.max-index", anomaly.index, what, most=settings.max_index, subject=subject
        )
    elif settings.max_index is not None:
        told = f"most triggers have the same size {anomaly.median:.4g}: there is no deviation to measure by"
        findings.append(error("anomaly.check", told))
    return Checked(
        findings=findings,
        measured={
            **asdict(anomaly),
            "target_class": smallest.target_class,
            "class_distance": distances.to_dict().get("universal"),
        },
    )
