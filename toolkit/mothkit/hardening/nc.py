"""Neural Cleanse: find the class whose smallest universal trigger is an outlier, and unlearn that trigger.

Source: Wang et al., "Neural Cleanse", IEEE S&P 2019; numbers as in BackdoorBench's ``nc``. Departs from both: a
target's own images are left out of its inversion, triggers were re-tested on their images, a class without a trigger at
the rate takes no part in the statistic, and all triggers are inverted by the engine that MOTH uses, from random starts.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mothkit.events import Note, PhaseStarted
from mothkit.hardening.training import TriggerStamp
from mothkit.hardening.tuning import Tuning, TuningConfig, check_range
from mothkit.inversion.config import InversionConfig, InversionTask
from mothkit.inversion.engine import invert

_CONSISTENT = 1.4826  # of a normal distribution: standard deviation over median absolute deviation

_INVERSION = InversionConfig(
    steps=80, success_rate=0.98, images_per_update=256, patience=5, cost_up=2.0, stall=25, restart_noise=0.0
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NcConfig(TuningConfig):
    """Detection and unlearning.

    Attributes:
        inversion: of one universal trigger a class (BackdoorBench: 80 passes, success 0.98, Adam 0.1, cost 1e-3 times
            or by 2 after 5 passes, an end after 25 passes without a smaller one).
        inversion_images: images that triggers are inverted on, at most (BackdoorBench: all of its 2,500).
        outlier: anomaly index above which a class with a small trigger is flagged (paper: 2).
        stamped: share of a batch that carries a flagged trigger, with its true label (paper: 0.2).
    """

    inversion: InversionConfig = field(default_factory=lambda: _INVERSION)
    inversion_images: int = 2500
    outlier: float = 2.0
    stamped: float = 0.2

    def __post_init__(self) -> None:
        TuningConfig.__post_init__(self)
        check_range(self, "at least 1", lambda n: n >= 1, "inversion_images")
        check_range(self, "above 0", lambda x: x > 0, "outlier")
        check_range(self, "in (0, 1]", lambda x: 0 < x <= 1, "stamped")


def anomaly_index(sizes: Tensor) -> Tensor:
    """Return how many deviations each of ``sizes`` [K] lies from their median [K]; below it the index is negative.

    The deviation is the median absolute one, made consistent with a normal distribution's. Entries that are nan
    take no part, and stay nan.
    """
    away = sizes - sizes.nanquantile(0.5)
    deviation = _CONSISTENT * away.abs().nanquantile(0.5)
    return torch.where(away == 0, 0.0, away / deviation)


def unlearn(run: Tuning[NcConfig]) -> dict[str, Any]:
    """Invert a trigger a class; train against those of flagged classes, or leave the copy as it is."""
    found = run.once("triggers", lambda: _invert_all(run))
    sizes = torch.where(found["found"], found["mask_l1"], torch.nan)
    index = anomaly_index(sizes)
    flagged = torch.nonzero(index < -run.config.outlier)[:, 0].tolist()
    if flagged:
        _tune(run, [_stamp(found, target, len(flagged), run) for target in flagged])
    else:
        run.emit(Note("no class has an outlier for a trigger: the weights stay as they were"))
    return {
        "mask_l1": [_number(size) for size in sizes.tolist()],
        "anomaly_index": [_number(each) for each in index.tolist()],
        "flagged": flagged,
    }


def _invert_all(run: Tuning[NcConfig]) -> dict[str, Tensor]:
    order = torch.randperm(len(run.rest), generator=run.generator)[: run.config.inversion_images]
    labels = run.rest.labels[order]
    run.emit(PhaseStarted("invert universal triggers"))
    found = invert(
        run.classifier,
        run.rest.pixels(order),
        [
            InversionTask(torch.nonzero(labels != target)[:, 0], target)
            for target in range(run.classifier.classes)
        ],
        run.config.inversion,
        generator=run.generator,
        device=run.device,
        emit=run.emit,
    )
    return {name: getattr(found, name) for name in ("found", "mask_l1", "masks", "patterns")}


def _stamp(found: dict[str, Tensor], target: int, parts: int, run: Tuning[NcConfig]) -> TriggerStamp:
    """Return the stamp of one of ``parts`` triggers, which share the stamped images of a batch."""
    others = tuple(source for source in range(run.classifier.classes) if source != target)
    count = round(run.config.stamped * run.config.batch_size / parts)
    return TriggerStamp(found["masks"][target], found["patterns"][target], others, max(1, count))


def _tune(run: Tuning[NcConfig], stamps: list[TriggerStamp]) -> None:
    (total,) = run.steps(run.config.epochs)
    trainer = run.trainer(total)
    for batch in run.batches("unlearn", total, stamps=stamps):
        trainer.step(batch)


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
