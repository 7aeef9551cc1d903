"""Joint inversion of both directions between two classes, as the PyTorch code of MOTH's authors does it.

Kept as they are: the loss is a sum over a direction's images, so that the size weighs less than for one trigger
alone; an incomplete last batch is dropped; a batch that holds no image of a direction makes its success rate NaN,
which counts as missed; when one direction finds a best, the other one loses its last update; and where both do, the
first one loses its noise.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from .inversion import TORCH, Cost, Variables, uniform

Pair = tuple[int, int]


@dataclass(slots=True, eq=False)
class BestOf:
    """The smallest triggers so far: masks [2, 1, H, W] and patterns [2, C, H, W], of zeros while there is none."""

    masks: Tensor
    patterns: Tensor
    sizes: list[float] = field(default_factory=lambda: [float("inf")] * 2)


def invert_pair(
    model: nn.Module,
    images: Tensor,
    is_target: Tensor,
    classes: Pair,
    start: tuple[Tensor, Tensor],
    *,
    batch: int,
    passes: int,
    initial_cost: float,
    generator: torch.Generator,
) -> BestOf:
    """Return the triggers from class ``classes[0]`` to ``classes[1]`` and back.

    Args:
        model: as for ``inversion.invert``.
        images: [n, C, H, W] of both classes.
        is_target: bool [n], whether an image is of the second class: its trigger is the one that leads back.
        classes: source and target.
        start: masks and patterns, in 0 to 1.
        batch: images an update; what is left over is not used in a pass.
        passes: over the images.
        initial_cost: weight of each mask's size at first.
        generator: on the CPU.
    """
    variables = Variables.start(*start, TORCH, images.device)
    costs = [Cost.start(initial_cost), Cost.start(initial_cost)]
    best = BestOf(*(torch.zeros_like(x) for x in start))
    for _ in range(passes):
        order = torch.randperm(len(images), generator=generator)[: len(images) // batch * batch]
        rates, sizes, used = _pass(
            model, images, is_target, order.split(batch), classes, variables, [cost.value for cost in costs]
        )
        for k in (0, 1):
            if rates[k] >= 0.9 and sizes[k] < best.sizes[k]:
                best.masks[k], best.patterns[k], best.sizes[k] = used[0][k].cpu(), used[1][k].cpu(), sizes[k]
                noise = [torch.zeros_like(x) for x in start]
                for x in noise:
                    x[k] = uniform(x[k].shape, generator)
                variables.restart(*used, (noise[0], noise[1]))
            costs[k].follow(reached=rates[k] >= 0.9)
    model.zero_grad(set_to_none=True)
    return best


def _pass(
    model: nn.Module,
    images: Tensor,
    is_target: Tensor,
    batches: tuple[Tensor, ...],
    classes: Pair,
    variables: Variables,
    costs: list[float],
) -> tuple[list[float], list[float], tuple[Tensor, Tensor]]:
    """Return each direction's success rate and mean size, and the last triggers tried."""
    rates, sizes = torch.zeros(2), torch.zeros(2)
    for part in batches:
        masks, patterns = variables.values()
        which = is_target[part].long()
        mask, pattern = masks[which], patterns[which]
        scores = model((1 - mask) * images[part] + mask * pattern)
        wanted = torch.tensor(classes[::-1])[which].to(images.device)
        size = masks.abs().sum((1, 2, 3))
        loss = cross_entropy(scores, wanted, reduction="sum") + costs[0] * size[0] + costs[1] * size[1]
        variables.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        variables.optimiser.step()
        hit = (scores.argmax(1) == wanted).float()
        rates += torch.stack([hit[which == k].mean() for k in (0, 1)]).cpu()
        sizes += size.detach().cpu()
    return (
        (rates / len(batches)).tolist(),
        (sizes / len(batches)).tolist(),
        (masks.detach(), patterns.detach()),
    )
