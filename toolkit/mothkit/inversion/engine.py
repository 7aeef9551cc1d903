"""One loop that finds many triggers at once; what differs between its users is config and tasks."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mothkit.errors import ConfigError, ShapeError
from mothkit.events import EventSink, StepDone, silent
from mothkit.inversion.config import InversionConfig, InversionTask
from mothkit.inversion.state import State, accept, adam, keep_smaller, steer_cost, to_values
from mothkit.triggers.patch import Trigger, blend

_RETEST_EVERY = 10  # steps between two looks at the numbers from the host
_FORWARD_PIXELS = {"cpu": 2**18, "cuda": 2**22}  # CPU: 256 images of 32 x 32, see benchmarks/forward.py


@dataclass(frozen=True, slots=True, eq=False)
class Inverted:
    """What an inversion found for K tasks; tensors are on the CPU.

    Attributes:
        masks: [K, 1, H, W], 0..1.
        patterns: [K, C, H, W], 0..1.
        mask_l1: [K], in pixels; where nothing was found, the size of the last trigger tried.
        found: bool [K], whether the trigger holds the asked rate on its own images.
        success_rate: [K], re-tested on all of a task's images after the trigger's last change.
        loss_start, loss_end: K tensors [n], cross-entropy to the target of each image under the start
            trigger and under the reported one.
        cost: [K], weight of the size at the end; a warm start goes on from it.
    """

    masks: Tensor
    patterns: Tensor
    mask_l1: Tensor
    found: Tensor
    success_rate: Tensor
    loss_start: tuple[Tensor, ...]
    loss_end: tuple[Tensor, ...]
    cost: Tensor

    def trigger(self, k: int) -> Trigger:
        """Return the trigger of task ``k``."""
        return Trigger(self.masks[k], self.patterns[k])


@dataclass(frozen=True, slots=True, eq=False)
class _Tasks:
    """Tasks as tensors: indices [K, n] (0 where padded), valid [K, n], targets [K]."""

    indices: Tensor
    valid: Tensor
    targets: Tensor

    @classmethod
    def pack(cls, tasks: Sequence[InversionTask], device: torch.device) -> "_Tasks":
        longest = max(len(task.indices) for task in tasks)
        indices = torch.zeros(len(tasks), longest, dtype=torch.long)
        valid = torch.zeros(len(tasks), longest, dtype=torch.bool)
        for k, task in enumerate(tasks):
            indices[k, : len(task.indices)] = task.indices
            valid[k, : len(task.indices)] = True
        targets = torch.tensor([task.target_class for task in tasks])
        return cls(indices.to(device), valid.to(device), targets.to(device))


@contextmanager
def frozen(model: nn.Module) -> Iterator[nn.Module]:
    """Yield ``model`` in eval mode without weight gradients; leave it as it was."""
    modes = [(module, module.training) for module in model.modules()]
    wanted = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        yield model.eval().requires_grad_(requires_grad=False)
    finally:
        for module, training in modes:
            module.training = training
        for parameter, requires_grad in wanted:
            parameter.requires_grad_(requires_grad)


def invert(
    model: nn.Module,
    pool: Tensor,
    tasks: Sequence[InversionTask],
    config: InversionConfig,
    *,
    generator: torch.Generator,
    device: torch.device,
    start: tuple[Tensor, Tensor] | None = None,
    cost: Tensor | None = None,
    emit: EventSink = silent,
) -> Inverted:
    """Return the smallest trigger found for each task.

    Source: Tao et al., IEEE S&P 2022. Departs from the published code: a reported trigger was re-tested on
    its images after its last change; no weight gradients; any number of triggers share one forward pass.

    Args:
        model: pixels [N, C, H, W] (0..1) to logits [N, classes]; used in eval mode, left as it was.
        pool: float32 [P, C, H, W], 0..1; the images that tasks point into.
        tasks: K of them.
        config: steps and bounds.
        generator: on the CPU; orders, starts and noise are drawn from it.
        device: where to compute.
        start: masks [K, 1, H, W] and patterns [K, C, H, W] to start from; else uniform noise.
        cost: [K] to start from; else ``config.initial_cost``.
        emit: told of every tenth step.

    Raises:
        ConfigError: there are no tasks.
        ShapeError: ``start`` or ``cost`` does not fit tasks and pool.
    """
    if not tasks:
        raise ConfigError("no triggers to invert: the list of tasks is empty")
    values = _start_values(pool, len(tasks), start, config, generator)
    first_cost = _start_costs(len(tasks), cost, config)
    width = min(config.images_per_update, max(len(task.indices) for task in tasks))
    group = max(1, (config.images_per_forward or forward_images(pool, device)) // width)
    pool = pool.to(device)
    parts = []
    with frozen(model):
        for first in range(0, len(tasks), group):
            rows = slice(first, first + group)
            packed = _Tasks.pack(tasks[rows], device)
            state = State.start(values[rows].to(device), first_cost[rows].to(device))
            tell = _offset(emit, first // group, -(-len(tasks) // group))
            parts.append(_run(model, pool, packed, state, config, generator, tell))
    return join(parts)


def forward_images(pool: Tensor, device: torch.device) -> int:
    """Return how many images of ``pool`` [P, C, H, W] one forward pass should take on ``device``.

    On a CPU 256 of 32 x 32: larger ones fall out of its caches and take up to twice as long an image.
    """
    return max(
        1, _FORWARD_PIXELS.get(device.type, _FORWARD_PIXELS["cuda"]) // (pool.shape[2] * pool.shape[3])
    )


def _start_values(
    pool: Tensor,
    count: int,
    start: tuple[Tensor, Tensor] | None,
    config: InversionConfig,
    generator: torch.Generator,
) -> Tensor:
    channels, height, width = pool.shape[1:]
    shape = (count, 1 + channels, height, width)
    if start is None:
        return torch.rand(shape, generator=generator)
    values = torch.cat(start, dim=1)
    if values.shape != shape:
        raise ShapeError(
            f"start triggers have shape {tuple(values.shape)}, expected {shape}: mask, then colours"
        )
    return values.clamp(config.start_margin, 1 - config.start_margin)


def _start_costs(count: int, cost: Tensor | None, config: InversionConfig) -> Tensor:
    if cost is None:
        return torch.full((count,), config.initial_cost)
    if cost.shape != (count,):
        raise ShapeError(f"start costs have shape {tuple(cost.shape)}, expected {(count,)}: one a task")
    return cost


def _offset(emit: EventSink, group: int, groups: int) -> Callable[[int, int, str], None]:
    def tell(step: int, steps: int, detail: str) -> None:
        emit(StepDone(group * steps + step, groups * steps, detail))

    return tell


def _run(
    model: nn.Module,
    pool: Tensor,
    tasks: _Tasks,
    state: State,
    config: InversionConfig,
    generator: torch.Generator,
    tell: Callable[[int, int, str], None],
) -> Inverted:
    _, loss_start = _retest(model, pool, tasks, to_values(state.logits), config)
    for step in range(1, config.steps + 1):
        state = _step(model, pool, tasks, state, config, generator)
        if step % _RETEST_EVERY == 0 or step == config.steps:
            if bool((state.candidate_l1 < state.best_l1).any()):
                rate, _ = _retest(model, pool, tasks, state.candidate, config)
                state = accept(state, rate, config)
            found = torch.isfinite(state.best_l1)
            sizes = state.best_l1[found]
            mean = f"{float(sizes.mean()):.1f} px" if len(sizes) else "none yet"
            tell(step, config.steps, f"{int(found.sum())}/{len(found)} triggers, {mean}")
    return _report(model, pool, tasks, state, loss_start, config)


def _step(
    model: nn.Module,
    pool: Tensor,
    tasks: _Tasks,
    state: State,
    config: InversionConfig,
    generator: torch.Generator,
) -> State:
    """Return the state after one pass over every trigger's images, in a fresh order."""
    draw = torch.rand(tasks.valid.shape, generator=generator).to(pool.device)
    order = draw.masked_fill(~tasks.valid, 2.0).argsort(dim=1)
    indices, valid = tasks.indices.gather(1, order), tasks.valid.gather(1, order)
    hits = torch.zeros_like(state.cost)
    used = state.logits
    for first in range(0, indices.shape[1], config.images_per_update):
        part = slice(first, first + config.images_per_update)
        gradient, values, hit = _gradient(model, pool[indices[:, part]], valid[:, part], tasks.targets, state)
        active = valid[:, part].any(1)  # a task that has no more images waits for the others
        used = torch.where(active.view(-1, 1, 1, 1), values, used)
        state = adam(state, gradient, active, config.learning_rate)
        hits = hits + hit
    noise = (torch.rand(used.shape, generator=generator) * 2 - 1) * config.restart_noise
    rate = hits / valid.sum(1)
    state = keep_smaller(state, used, rate, noise.to(pool.device), config)
    return steer_cost(state, rate, config)


def _gradient(
    model: nn.Module, x: Tensor, valid: Tensor, targets: Tensor, state: State
) -> tuple[Tensor, Tensor, Tensor]:
    """Return gradient and values [K, 1 + C, H, W] and hits [K] for images ``x`` [K, B, C, H, W]."""
    logits = state.logits.detach().requires_grad_()
    values = to_values(logits)
    mask, pattern = values[:, None, :1], values[:, None, 1:]
    scores = model(blend(x, mask, pattern).flatten(0, 1))
    wanted = targets[:, None].expand(valid.shape)
    loss = cross_entropy(scores, wanted.flatten(), reduction="none").view(valid.shape)
    mean = (loss * valid).sum(1) / valid.sum(1).clamp(min=1)
    total = (mean + state.cost * values[:, :1].abs().sum((1, 2, 3))).sum()
    (gradient,) = torch.autograd.grad(total, logits)
    hit = ((scores.detach().argmax(1).view(valid.shape) == wanted) & valid).sum(1)
    return gradient, values.detach(), hit


@torch.no_grad()
def _retest(
    model: nn.Module, pool: Tensor, tasks: _Tasks, values: Tensor, config: InversionConfig
) -> tuple[Tensor, Tensor]:
    """Return success rates [K] and losses [K, n] of ``values`` on all of each task's images."""
    losses, hits = [], torch.zeros(len(values), device=pool.device)
    for first in range(0, tasks.indices.shape[1], config.images_per_update):
        part = slice(first, first + config.images_per_update)
        x, valid = pool[tasks.indices[:, part]], tasks.valid[:, part]
        scores = model(blend(x, values[:, None, :1], values[:, None, 1:]).flatten(0, 1))
        wanted = tasks.targets[:, None].expand(valid.shape)
        losses.append(cross_entropy(scores, wanted.flatten(), reduction="none").view(valid.shape))
        hits += ((scores.argmax(1).view(valid.shape) == wanted) & valid).sum(1)
    return hits / tasks.valid.sum(1), torch.cat(losses, dim=1)


def _report(
    model: nn.Module, pool: Tensor, tasks: _Tasks, state: State, loss_start: Tensor, config: InversionConfig
) -> Inverted:
    found = torch.isfinite(state.best_l1)
    values = torch.where(found.view(-1, 1, 1, 1), state.best, to_values(state.logits)).clamp(0, 1)
    rate, loss_end = _retest(model, pool, tasks, values, config)
    return Inverted(
        masks=values[:, :1].cpu(),
        patterns=values[:, 1:].cpu(),
        mask_l1=values[:, :1].sum((1, 2, 3)).cpu(),
        found=found.cpu(),
        success_rate=rate.cpu(),
        loss_start=tuple(row[valid].cpu() for row, valid in zip(loss_start, tasks.valid, strict=True)),
        loss_end=tuple(row[valid].cpu() for row, valid in zip(loss_end, tasks.valid, strict=True)),
        cost=state.cost.cpu(),
    )


def join(parts: Sequence[Inverted]) -> Inverted:
    """Return the findings of ``parts``, in order, as those of one inversion."""
    return Inverted(
        masks=torch.cat([part.masks for part in parts]),
        patterns=torch.cat([part.patterns for part in parts]),
        mask_l1=torch.cat([part.mask_l1 for part in parts]),
        found=torch.cat([part.found for part in parts]),
        success_rate=torch.cat([part.success_rate for part in parts]),
        loss_start=tuple(loss for part in parts for loss in part.loss_start),
        loss_end=tuple(loss for part in parts for loss in part.loss_end),
        cost=torch.cat([part.cost for part in parts]),
    )
