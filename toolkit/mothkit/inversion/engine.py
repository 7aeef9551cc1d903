"""One loop that finds many triggers at once; what differs between its users is config and tasks."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from mothkit.errors import ConfigError, ShapeError
from mothkit.events import Event, EventSink, StepDone, silent
from mothkit.inversion.config import InversionConfig, InversionTask
from mothkit.inversion.found import Inverted, join
from mothkit.inversion.plan import make_plan
from mothkit.inversion.search import Search, Tasks
from mothkit.inversion.shapes import in_cells


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
        emit: told of every tenth step at the latest.

    Raises:
        ConfigError: there are no tasks.
        ShapeError: ``start`` or ``cost`` does not fit tasks and pool.
    """
    if not tasks:
        raise ConfigError("no triggers to invert: the list of tasks is empty")
    if config.starts > 1 and config.steps > config.trial_steps and start is None:
        return _from_best_start(
            model, pool, tasks, config, generator=generator, device=device, cost=cost, emit=emit
        )
    values = _start_values(pool, len(tasks), start, config, generator)
    costs = _start_costs(len(tasks), cost, config)
    width = min(config.images_per_update, max(len(task.indices) for task in tasks))
    with frozen(model):
        plan = make_plan(model, pool, config, device)
        room = max(1, plan.images_per_forward // width)
        search = Search(model, pool.to(device), Tasks.pack(tasks, device), config, plan, generator, emit)
        search.enter(values[:room].to(device), costs[:room].to(device))
        while search.active:
            search.advance()
            search.leave()
            count = min(room - len(search.active), len(tasks) - search.entered)
            rows = slice(search.entered, search.entered + count)
            if count:
                search.enter(values[rows].to(device), costs[rows].to(device))
    return join([search.found[k] for k in range(len(tasks))])


def _from_best_start(
    model: nn.Module,
    pool: Tensor,
    tasks: Sequence[InversionTask],
    config: InversionConfig,
    *,
    generator: torch.Generator,
    device: torch.device,
    cost: Tensor | None,
    emit: EventSink,
) -> Inverted:
    """Search a little from several random starts, then go on from the one whose trigger is the smallest."""
    count, trial = config.starts, config.trial_steps
    once = replace(config, starts=1)
    first, rest = (len(tasks) * steps for steps in (count * trial, config.steps - trial))
    tried = invert(
        model,
        pool,
        [task for task in tasks for _ in range(count)],
        replace(once, steps=trial, settle=1.0),
        generator=generator,
        device=device,
        cost=None if cost is None else cost.repeat_interleave(count),
        emit=_counted(emit, 0, first + rest),
    )
    sizes, best = torch.where(tried.found, tried.mask_l1, torch.inf).view(-1, count).min(1)
    best += count * torch.arange(len(tasks))
    found = invert(
        model,
        pool,
        tasks,
        replace(once, steps=config.steps - trial),
        generator=generator,
        device=device,
        start=(tried.masks[best], tried.patterns[best]),
        cost=tried.cost[best],
        emit=_counted(emit, first, first + rest),
    )
    smaller = (torch.where(found.found, found.mask_l1, torch.inf) <= sizes).tolist()
    return join([(found.only(k) if smaller[k] else tried.only(int(best[k]))) for k in range(len(tasks))])


def _counted(emit: EventSink, before: int, total: int) -> EventSink:
    """Return a sink that counts steps on from ``before``, of ``total``."""

    def tell(event: Event) -> None:
        emit(replace(event, step=before + event.step, total=total) if isinstance(event, StepDone) else event)

    return tell


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
        values = torch.rand(shape, generator=generator)
        values[:, 0] *= config.start_mask
        return in_cells(values, config.cell)
    values = torch.cat(start, dim=1)
    if values.shape != shape:
        raise ShapeError(
            f"start triggers have shape {tuple(values.shape)}, expected {shape}: mask, then colours"
        )
    return in_cells(values.clamp(config.start_margin, 1 - config.start_margin), config.cell)


def _start_costs(count: int, cost: Tensor | None, config: InversionConfig) -> Tensor:
    if cost is None:
        return torch.full((count,), config.initial_cost)
    if cost.shape != (count,):
        raise ShapeError(f"start costs have shape {tuple(cost.shape)}, expected {(count,)}: one a task")
    return cost
