"""Known triggers: what each does to the model."""

from mothkit.gate.bench import Bench
from mothkit.gate.findings import Checked, Finding, compared, missing
from mothkit.gate.policy import TriggersCheck


def check_triggers(settings: TriggersCheck, bench: Bench) -> Checked:
    """Return what each trigger may do and does."""
    if not bench.request.triggers:
        return missing("triggers", "no --trigger is given", required=settings.required)
    findings: list[Finding] = []
    for score in bench.evaluation.triggers:
        name, asr = score.name, score.asr
        what = f"ASR of {name} (to class {score.target_class}, {asr.count} images)"
        robust = score.robust_accuracy.value
        findings += [
            *compared("triggers.max-asr", asr.value, what, most=settings.max_asr, subject=name),
            *compared(
                "triggers.max-asr-upper",
                asr.interval[1],
                f"upper end of {what}",
                most=settings.max_asr_upper,
                subject=name,
            ),
            *compared(
                "triggers.max-excess-asr",
                score.excess_asr,
                f"excess {what}",
                most=settings.max_excess_asr,
                subject=name,
            ),
            *compared(
                "triggers.min-robust-accuracy",
                robust,
                f"accuracy under {name}",
                least=settings.min_robust_accuracy,
                subject=name,
            ),
        ]
    return Checked(findings=findings, measured=[score.to_dict() for score in bench.evaluation.triggers])
