"""Clean accuracy, by itself and against a baseline."""

import math
from statistics import NormalDist

from mothkit.errors import ImageError
from mothkit.gate.bench import Bench, hits
from mothkit.gate.findings import Checked, compared, missing
from mothkit.gate.policy import AccuracyCheck, AccuracyDropCheck

_Z = NormalDist().inv_cdf(0.975)


def check_accuracy(settings: AccuracyCheck, bench: Bench) -> Checked:
    """Return whether accuracy, and the lower end of its interval, are high enough."""
    rate = hits(bench.predicted, bench.images)
    what = f"accuracy on {rate.count} images"
    findings = compared("accuracy.min", rate.value, what, least=settings.min)
    findings += compared(
        "accuracy.min-lower", rate.interval[0], f"lower end of {what}", least=settings.min_lower
    )
    return Checked(findings=findings, measured=rate.to_dict())


def check_accuracy_drop(settings: AccuracyDropCheck, bench: Bench) -> Checked:
    """Return whether the model loses no more than allowed against the baseline."""
    if bench.request.baseline is None:
        return missing("accuracy-drop", "no --baseline is given", required=settings.required)
    labels = bench.images.labels
    before, after = bench.baseline_predicted, bench.predicted
    if len(before) != len(after):
        raise ImageError(f"the baseline takes {len(before)} images, the model {len(after)}")
    lost = int(((before == labels) & (after != labels)).sum())
    won = int(((before != labels) & (after == labels)).sum())
    drop, (low, high) = (lost - won) / len(labels), paired_interval(lost, won, len(labels))
    what = f"accuracy lost on {len(labels)} images"
    findings = compared("accuracy-drop.max", drop, what, most=settings.max)
    findings += compared("accuracy-drop.max-upper", high, f"upper end of {what}", most=settings.max_upper)
    measured = {
        "value": drop,
        "interval95": [low, high],
        "lost": lost,
        "won": won,
        "count": len(labels),
        "baseline": hits(before, bench.images).to_dict(),
    }
    return Checked(findings=findings, measured=measured)


def paired_interval(lost: int, won: int, count: int) -> tuple[float, float]:
    """Return the 95 % interval of (lost - won) / count, both counted on the same images.

    The adjusted Wald interval of Bonett and Price (2012): one image more in each of the two counts.
    """
    down, up = (lost + 1) / (count + 2), (won + 1) / (count + 2)
    half = _Z * math.sqrt((down + up - (down - up) ** 2) / (count + 2))
    return max(-1.0, down - up - half), min(1.0, down - up + half)
