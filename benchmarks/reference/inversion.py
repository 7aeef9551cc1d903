"""Inversion of one trigger as MOTH's authors published it, with what it costs and what it gets wrong.

Source: Tao et al., "Model Orthogonalization", IEEE S&P 2022, and the two codes of its authors; see docs/moth.md.

Kept as they are: batches of 32 with an incomplete last one, one pair at a time, 1000 passes whatever happens,
weights that require gradients nobody uses, a look at the numbers on the host after every pass, and a success rate
that is a moving average over a pass, so that the trigger reported need not reach the rate when it is tried again.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

BATCH = 32
PATIENCE = 10  # passes in a row before the cost moves
COST_UP = 1.5
COST_DOWN = 1.5**1.5
NOISE = 0.01  # half width, on values in 0 to 1
_SPAN = 2 - 1e-7
_LINEAR = 16.118  # -ln(1e-7): Keras' clipped logarithm, once its arguments are exchanged


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Where the two published codes differ in the inversion of one trigger.

    Attributes:
        linear: minimise 16.118 (1 - p) instead of cross-entropy; the loss of a batch is then a sum, so that an
            incomplete batch pulls less.
        epsilon: Adam's.
        keeps_next: keep the trigger after the last update of the pass, not the last one that was tried.
        by_image: average success over images, not over batches.
    """

    linear: bool
    epsilon: float
    keeps_next: bool
    by_image: bool


TORCH = Rule(linear=False, epsilon=1e-8, keeps_next=False, by_image=False)
KERAS = Rule(linear=True, epsilon=1e-7, keeps_next=True, by_image=True)


@dataclass(frozen=True, slots=True, eq=False)
class Published:
    """What the procedure reports: mask [1, H, W], pattern [C, H, W], 0 to 1; a mask of zeros if nothing was found."""

    mask: Tensor
    pattern: Tensor
    found: bool
    loss_start: Tensor
    loss_best: Tensor


def to_values(logits: Tensor) -> Tensor:
    """Return values in 0 to 1 for ``logits``."""
    return torch.tanh(logits) / _SPAN + 0.5


def to_logits(values: Tensor) -> Tensor:
    """Return logits of ``values``, clipped to 0 to 1; those at an end land where tanh is all but flat."""
    return torch.atanh((values.clamp(0, 1) - 0.5) * _SPAN)


@dataclass(slots=True)
class Cost:
    """The weight of the mask's size, and how many passes in a row were at and under the rate."""

    value: float
    initial: float
    held: int = 0
    missed: int = 0

    @classmethod
    def start(cls, initial: float) -> Self:
        """Return the cost before the first pass."""
        return cls(initial, initial)

    def follow(self, *, reached: bool) -> None:
        """Count a pass, and move the cost where ten of a kind are full."""
        self.held, self.missed = (self.held + 1, 0) if reached else (0, self.missed + 1)
        if self.held >= PATIENCE:
            self.value = self.value * COST_UP if self.value > 0 else self.initial
            self.held = 0
        if self.missed >= PATIENCE:
            self.value /= COST_DOWN
            self.missed = 0


@dataclass(slots=True, eq=False)
class Variables:
    """Logits of mask [1, H, W] and pattern [C, H, W], and their optimiser, which no restart resets."""

    mask: Tensor
    pattern: Tensor
    optimiser: torch.optim.Adam

    @classmethod
    def start(cls, mask: Tensor, pattern: Tensor, rule: Rule, device: torch.device) -> Self:
        """Return variables at these values in 0 to 1."""
        logits = [to_logits(x.to(device)).requires_grad_() for x in (mask, pattern)]
        adam = torch.optim.Adam(logits, lr=0.1, betas=(0.5, 0.9), eps=rule.epsilon)
        return cls(*logits, adam)

    def values(self) -> tuple[Tensor, Tensor]:
        """Return mask and pattern in 0 to 1."""
        return to_values(self.mask), to_values(self.pattern)

    @torch.no_grad()
    def restart(self, mask: Tensor, pattern: Tensor, noise: tuple[Tensor, Tensor] | None) -> None:
        """Move on from these values, with uniform noise in -1 to 1 times ``NOISE`` where it is given."""
        for logits, value, k in ((self.mask, mask, 0), (self.pattern, pattern, 1)):
            moved = value if noise is None else value + NOISE * noise[k].to(value.device)
            logits.copy_(to_logits(moved))


def uniform(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Return numbers between -1 and 1, drawn on the CPU."""
    return torch.rand(shape, generator=generator) * 2 - 1


def invert(
    model: nn.Module,
    images: Tensor,
    target_class: int,
    *,
    rule: Rule = TORCH,
    passes: int = 1000,
    bound: float = 0.9,
    initial_cost: float = 1e-3,
    start: tuple[Tensor, Tensor] | None = None,
    generator: torch.Generator,
) -> Published:
    """Return the trigger that turns ``images`` into ``target_class``, as published.

    Args:
        model: pixels [N, C, H, W], 0 to 1, to logits; in inference mode, on the device of ``images``. Its weights'
            gradients are computed if they are required, as the published code does, and dropped at the end.
        images: [n, C, H, W].
        target_class: what they shall become.
        rule: of which code.
        passes: over the images ("steps" of the paper).
        bound: success rate asked for.
        initial_cost: weight of the mask's size at first.
        start: mask and pattern to start from; uniform noise otherwise.
        generator: on the CPU.
    """
    shapes = torch.Size([1, *images.shape[2:]]), images.shape[1:]
    mask, pattern = start or tuple(torch.rand(shape, generator=generator) for shape in shapes)
    variables = Variables.start(mask, pattern, rule, images.device)
    cost, best, smallest = Cost.start(initial_cost), None, float("inf")
    loss_start = loss_best = torch.zeros(len(images))
    for number in range(passes):
        order = torch.randperm(len(images), generator=generator)
        rate, size, used, losses = _pass(model, images, order, target_class, variables, cost.value, rule)
        loss_start = losses if number == 0 else loss_start
        if rate >= bound and size < smallest:
            kept = variables.values() if rule.keeps_next else used
            best, smallest, loss_best = (kept[0].detach().clone(), kept[1].detach().clone()), size, losses
            variables.restart(*best, tuple(uniform(shape, generator) for shape in shapes))
        cost.follow(reached=rate >= bound)
    model.zero_grad(set_to_none=True)
    mask, pattern = best or (torch.zeros(shapes[0]), torch.zeros(shapes[1]))
    return Published(
        mask.cpu().clamp(0, 1), pattern.cpu().clamp(0, 1), best is not None, loss_start, loss_best
    )


def _pass(
    model: nn.Module,
    images: Tensor,
    order: Tensor,
    target_class: int,
    variables: Variables,
    cost: float,
    rule: Rule,
) -> tuple[float, float, tuple[Tensor, Tensor], Tensor]:
    """Return success rate, mean size in pixels, the last trigger tried, and each image's cross-entropy [n]."""
    rates, sizes, counts, losses = [], [], [], torch.zeros(len(images))
    for part in order.split(min(BATCH, len(images))):
        mask, pattern = variables.values()
        scores = model((1 - mask) * images[part] + mask * pattern)
        target = torch.full((len(part),), target_class, device=images.device)
        each = cross_entropy(scores, target, reduction="none")
        size = mask.abs().sum()
        if rule.linear:
            hit = scores.softmax(1)[:, target_class]
            loss = (_LINEAR * (1 - hit) + cost * size).sum()
        else:
            loss = each.mean() + cost * size
        variables.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        variables.optimiser.step()
        rates.append((scores.argmax(1) == target_class).float().mean().item())
        sizes.append(size.item())
        counts.append(len(part))
        losses[part] = each.detach().cpu()
    weights = torch.tensor(counts if rule.by_image else [1] * len(counts), dtype=torch.float64)
    rate = float((torch.tensor(rates, dtype=torch.float64) * weights).sum() / weights.sum())
    # nine of ten averaged in single precision may be a hair below 0.9
    return round(rate, 9), sum(sizes) / len(sizes), (mask, pattern), losses
