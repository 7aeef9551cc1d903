"""The warm-up's look at every pair of classes: which lie near to each other?

A universal trigger tells nothing of an attack on a single source class, and little of natural triggers between two
classes. So each direction is inverted too, on few images and in few steps: enough to tell the near from the far, and a
start for the inversions to come (ours; the paper starts every pair from the target's universal trigger). Patches are
scouted in the same way (``patches.py``).
"""

import math

import torch

from mothkit.events import EventSink
from mothkit.hardening.inverting import Inverter
from mothkit.hardening.pairs import Pair
from mothkit.inversion.config import InversionConfig
from mothkit.inversion.found import Inverted


def scout(
    inverter: Inverter, config: InversionConfig, images: int, classes: int, *, work: float, emit: EventSink
) -> tuple[list[Pair], Inverted] | None:
    """Return directions (source, target) and a trigger for each, or None where ``work`` allows not a single one.

    Args:
        inverter: of the model.
        config: of the inversions.
        images: how many of the source class each takes.
        classes: of the model.
        work: images that may pass through the network, forward and back; of more directions than these allow, some
            are drawn at random.
        emit: told of the steps.
    """
    directions = [(s, t) for s in range(classes) for t in range(classes) if s != t]
    affordable = work / (images * config.steps)
    if affordable < len(directions):
        order = torch.randperm(len(directions), generator=inverter.generator).tolist()
        directions = sorted(directions[k] for k in order[: math.floor(affordable)])
    if not directions:
        return None
    drawn = [inverter.sampler.draw([source], images) for source, _ in directions]
    return directions, inverter.invert(drawn, [target for _, target in directions], config, emit=emit)
