"""Triggers on their way: who is being optimised, for how long yet, and one step of all of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mothkit.events import EventSink, StepDone
from mothkit.inversion.config import InversionConfig, InversionTask, Loss
from mothkit.inversion.found import Inverted
from mothkit.inversion.plan import Plan
from mothkit.inversion.shapes import draw_shifts, shifted
from mothkit.inversion.state import (
    State,
    accept,
    adam,
    keep_smaller,
    offer,
    steer_cost,
    steer_smoothly,
    values_of,
)
from mothkit.triggers.patch import blend

_LOOK_EVERY = 10  # steps between two looks at the numbers from the host
_SPARE_AFTER = 0.2  # share of a search in which all images pull, to get to where most of them turn
_LAST_RATE = 0.1  # share of the learning rate that is left at the end of a search that settles
_LINEAR = 16.118  # -ln 1e-7: where the published code clips a probability
_SMALLER = 0.99  # a trigger of this size or less is news


@dataclass(frozen=True, slots=True, eq=False)
class Tasks:
    """Tasks as tensors: indices [K, n] (0 where padded), valid [K, n], targets [K]."""

    indices: Tensor
    valid: Tensor
    targets: Tensor

    @classmethod
    def pack(cls, tasks: Sequence[InversionTask], device: torch.device) -> "Tasks":
        """Return ``tasks`` on ``device``."""
        longest = max(len(task.indices) for task in tasks)
        indices = torch.zeros(len(tasks), longest, dtype=torch.long)
        valid = torch.zeros(len(tasks), longest, dtype=torch.bool)
        for k, task in enumerate(tasks):
            indices[k, : len(task.indices)] = task.indices
            valid[k, : len(task.indices)] = True
        targets = torch.tensor([task.target_class for task in tasks])
        return cls(indices.to(device), valid.to(device), targets.to(device))

    def rows(self, chosen: Tensor) -> "Tasks":
        """Return these tasks alone, without columns that none of them needs."""
        valid = self.valid[chosen]
        longest = int(valid.sum(1).max())
        return Tasks(self.indices[chosen][:, :longest], valid[:, :longest], self.targets[chosen])


@dataclass(slots=True, eq=False)
class Search:
    """Triggers that are optimised together; one that is done leaves, and another may enter.

    Attributes:
        active: the tasks that are being worked on, in the order of the state's rows.
        left: how many steps each of these has yet.
        news: the size of each one's trigger when it last became much smaller, and the steps since.
        entered: how many tasks have entered so far.
        found: what was found for each task that is done.
    """

    model: nn.Module
    pool: Tensor
    tasks: Tasks
    config: InversionConfig
    plan: Plan
    generator: torch.Generator
    emit: EventSink
    active: list[int] = field(default_factory=list)
    left: list[int] = field(default_factory=list)
    news: list[tuple[float, int]] = field(default_factory=list)
    entered: int = 0
    found: dict[int, Inverted] = field(default_factory=dict)
    losses: dict[int, Tensor] = field(default_factory=dict)
    _state: State | None = None
    _rows: Tasks | None = None

    @property
    def state(self) -> State:
        """State of the active triggers, a row each."""
        if self._state is None:
            raise RuntimeError("no trigger has entered")
        return self._state

    def enter(self, values: Tensor, costs: Tensor) -> None:
        """Take up the next tasks, from start ``values`` [k, 1 + C, H, W] and ``costs`` [k]."""
        numbers = range(self.entered, self.entered + len(values))
        rows = self.tasks.rows(torch.tensor(numbers, device=self.pool.device))
        rate, losses = _retest(self.model, self.pool, rows, values, self.config)
        fresh = State.start(values, costs, rate)
        self.losses |= {
            k: loss[valid].cpu() for k, loss, valid in zip(numbers, losses, rows.valid, strict=True)
        }
        self._state = fresh if self._state is None or not self.active else self._state.joined(fresh)
        self.active += numbers
        self.left += [self.config.steps] * len(values)
        self.news += [(math.inf, 0)] * len(values)
        self.entered += len(values)
        self._rows = None

    def advance(self) -> None:
        """Take some steps, the fewest that any trigger has left at most, then re-test what seems to hold.

        Where the cost follows every update, that is each trigger as it is, and at the end after every step.
        """
        tasks, steps = self._packed(), min(_LOOK_EVERY, *self.left)
        if self.config.control == "updates" and min(self.left) <= _LOOK_EVERY:
            steps = 1
        for _ in range(steps):
            self._state = _step(
                self.model, self.pool, tasks, self.state, self.config, self.plan, self.generator
            )
        if self.config.control == "updates":
            self._state = offer(self.state, self.config)
        if bool((self.state.candidate_l1 < self.state.best_l1).any()):
            rate, _ = _retest(self.model, self.pool, tasks, self.state.candidate, self.config)
            self._state = accept(self.state, rate, self.config)
        self.left = [left - steps for left in self.left]
        self.news = [
            (size, 0) if size < _SMALLER * last else (last, quiet + steps)
            for (last, quiet), size in zip(self.news, self.state.best_l1.tolist(), strict=True)
        ]

    def leave(self) -> None:
        """Report triggers that are done: no step left, or no news for long."""
        stall = self.config.stall or math.inf
        done = [
            left == 0 or (math.isfinite(last) and quiet >= stall)
            for left, (last, quiet) in zip(self.left, self.news, strict=True)
        ]
        if any(done):
            self._report([row for row, over in enumerate(done) if over])
            self._keep([row for row, over in enumerate(done) if not over])
        self._tell()

    def _report(self, rows: list[int]) -> None:
        chosen = torch.tensor(rows, device=self.pool.device)
        numbers = [self.active[row] for row in rows]
        tasks = self.tasks.rows(torch.tensor(numbers, device=self.pool.device))
        losses = [self.losses.pop(k) for k in numbers]
        report = _report(self.model, self.pool, tasks, self.state.rows(chosen), losses, self.config)
        self.found |= dict(zip(numbers, report, strict=True))

    def _keep(self, rows: list[int]) -> None:
        self._state = self.state.rows(torch.tensor(rows, dtype=torch.long, device=self.pool.device))
        self.active = [self.active[row] for row in rows]
        self.left = [self.left[row] for row in rows]
        self.news = [self.news[row] for row in rows]
        self._rows = None

    def _packed(self) -> Tasks:
        if self._rows is None:
            self._rows = self.tasks.rows(torch.tensor(self.active, device=self.pool.device))
        return self._rows

    def _tell(self) -> None:
        """Tell how far all is, counted in steps of one trigger, those that were not needed too."""
        total = self.config.steps * len(self.tasks.targets)
        waiting = self.config.steps * (len(self.tasks.targets) - self.entered)
        sizes = [size for size, _ in self.news if math.isfinite(size)]
        sizes += [float(each.mask_l1) for each in self.found.values() if bool(each.found)]
        mean = f"{sum(sizes) / len(sizes):.1f} px" if sizes else "none yet"
        detail = f"{len(sizes)}/{len(self.tasks.targets)} triggers, {mean}"
        self.emit(StepDone(total - waiting - sum(self.left), total, detail))


def _step(
    model: nn.Module,
    pool: Tensor,
    tasks: Tasks,
    state: State,
    config: InversionConfig,
    plan: Plan,
    generator: torch.Generator,
) -> State:
    """Return the state after one pass over every trigger's images, in a fresh order."""
    draw = torch.rand(tasks.valid.shape, generator=generator).to(pool.device)
    order = draw.masked_fill(~tasks.valid, 2.0).argsort(dim=1)
    indices, valid = tasks.indices.gather(1, order), tasks.valid.gather(1, order)
    hits, counts = torch.zeros_like(state.cost), tasks.valid.sum(1)
    updates = config.steps * (counts + config.images_per_update - 1).div(
        config.images_per_update, rounding_mode="floor"
    )
    used = state.logits
    for first in range(0, indices.shape[1], config.images_per_update):
        part = slice(first, first + config.images_per_update)
        x, done = pool[indices[:, part]], state.updates / updates
        share = torch.where(done < _SPARE_AFTER, 0.0, config.spare)
        shifts = draw_shifts(x.shape[:2], config.roam, generator) if config.roam else None
        gradient, values, hit = _gradient(
            model, x, valid[:, part], tasks.targets, state, plan, config, share, shifts
        )
        active = valid[:, part].any(1)  # a task that has no more images waits for the others
        used = torch.where(active.view(-1, 1, 1, 1), values, used)
        state = adam(state, gradient, active, config.learning_rate * falling(done, config.settle))
        hits = hits + hit
        if config.control == "updates":
            state = steer_smoothly(state, hit / valid[:, part].sum(1).clamp(min=1), active, config)
    if config.control == "updates":
        return state
    rate = hits / counts
    state = keep_smaller(state, used, rate, _noise(used, config, generator), config)
    return steer_cost(state, rate, config)


def _noise(used: Tensor, config: InversionConfig, generator: torch.Generator) -> Tensor | None:
    if config.restart_noise == 0:
        return None
    drawn = (torch.rand(used.shape, generator=generator) * 2 - 1) * config.restart_noise
    return drawn.to(used.device)


def _gradient(
    model: nn.Module,
    x: Tensor,
    valid: Tensor,
    targets: Tensor,
    state: State,
    plan: Plan,
    config: InversionConfig,
    spare: Tensor,
    shifts: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return gradient and values [K, 1 + C, H, W] and hits [K] for images ``x`` [K, B, C, H, W].

    The share ``spare`` [K] of them, those with the largest losses, does not pull. With ``shifts`` [K, B, 2] each
    carries the trigger elsewhere.
    """
    logits = state.logits.detach().requires_grad_()
    values = values_of(logits, config)
    placed = values[:, None] if shifts is None else shifted(values, shifts)
    with plan.context(x.device):
        scores = model(blend(x, placed[:, :, :1], placed[:, :, 1:]).flatten(0, 1)).float()
    wanted = targets[:, None].expand(valid.shape)
    pull = _pull(scores, wanted.flatten(), config.loss).view(valid.shape)
    pulling = valid & ~hardest(pull.detach(), valid, spare)
    mean = (pull * pulling).sum(1) / pulling.sum(1).clamp(min=1)
    total = (mean + state.cost * values[:, :1].abs().sum((1, 2, 3))).sum()
    (gradient,) = torch.autograd.grad(total, logits)
    hit = ((scores.detach().argmax(1).view(valid.shape) == wanted) & valid).sum(1)
    return gradient, values.detach(), hit


def hardest(losses: Tensor, valid: Tensor, share: Tensor) -> Tensor:
    """Return which ``valid`` entries [K, B] are in the ``share`` [K] of a row's with the largest ``losses`` [K, B]."""
    order = losses.masked_fill(~valid, -math.inf).argsort(dim=1, descending=True)
    rank = order.argsort(dim=1)
    return valid & (rank < (share * valid.sum(1)).round()[:, None])


def falling(done: Tensor, settle: float) -> Tensor:
    """Return what is left of the learning rate, 1 to 0.1, where the share ``done`` [K] of a search is over."""
    if settle == 1:
        return torch.ones_like(done)
    along = ((done - settle) / (1 - settle)).clamp(0, 1)
    return _LAST_RATE + (1 - _LAST_RATE) * (1 + (math.pi * along).cos()) / 2


def _pull(scores: Tensor, wanted: Tensor, loss: Loss) -> Tensor:
    """Return for each row of ``scores`` [n, classes] what is left to its class in ``wanted`` [n]."""
    entropy = cross_entropy(scores, wanted, reduction="none")
    return entropy if loss == "cross-entropy" else _LINEAR * -torch.expm1(-entropy)


@torch.no_grad()
def _retest(
    model: nn.Module, pool: Tensor, tasks: Tasks, values: Tensor, config: InversionConfig
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
    model: nn.Module,
    pool: Tensor,
    tasks: Tasks,
    state: State,
    loss_start: Sequence[Tensor],
    config: InversionConfig,
) -> list[Inverted]:
    """Return what was found for each of these triggers, re-tested."""
    found = torch.isfinite(state.best_l1)
    last = values_of(state.logits, config)
    values = torch.where(found.view(-1, 1, 1, 1), state.best, last).clamp(0, 1)
    rate, loss_end = _retest(model, pool, tasks, values, config)
    whole = Inverted(
        masks=values[:, :1].cpu(),
        patterns=values[:, 1:].cpu(),
        mask_l1=values[:, :1].sum((1, 2, 3)).cpu(),
        found=found.cpu(),
        success_rate=rate.cpu(),
        loss_start=tuple(loss_start),
        loss_end=tuple(row[valid].cpu() for row, valid in zip(loss_end, tasks.valid, strict=True)),
        cost=state.cost.cpu(),
    )
    return [whole.only(k) for k in range(len(rate))]
