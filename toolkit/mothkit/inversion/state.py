"""The tensors of K triggers that are optimised together, and the pure steps between them.

Mask and pattern stand in one tensor [K, 1 + C, H, W]: channel 0 is the mask.
Source: Tao et al., IEEE S&P 2022 (MOTH); Wang et al., IEEE S&P 2019 (Neural Cleanse).
"""

from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from torch import Tensor

from mothkit.inversion.config import InversionConfig
from mothkit.inversion.shapes import in_cells

_SPAN = 2 - 1e-7  # the paper's tanh map reaches 0 and 1 a little before infinity
_BETA1, _BETA2, _EPSILON = 0.5, 0.9, 1e-8
_DOWN_POWER = 1.5  # the cost falls by cost_up ** 1.5
_NEWEST = 0.2  # share of the last update in the smoothed rate


def to_values(logits: Tensor) -> Tensor:
    """Return masks and patterns in 0..1 for unbounded ``logits`` of any shape."""
    return torch.tanh(logits) / _SPAN + 0.5


def values_of(logits: Tensor, config: InversionConfig) -> Tensor:
    """Return the masks and patterns [K, 1 + C, H, W] that ``logits`` stand for, of the config's shape."""
    return in_cells(to_values(logits), config.cell)


def to_logits(values: Tensor) -> Tensor:
    """Return the logits of ``values``, which are clipped to 0..1 first."""
    return torch.atanh((values.clamp(0, 1) - 0.5) * _SPAN)


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """Everything that a step reads and writes; each tensor's first dimension is K.

    Attributes:
        logits: [K, 1 + C, H, W].
        moment1, moment2: Adam's, like ``logits``; updates: [K], how many so far.
        cost: [K], weight of the mask's size; held, missed: [K], steps in a row at and under the rate.
        smooth: [K], moving average of the updates' success rates.
        margin: [K], how much more than the rate a moving trigger must show to pass a re-test.
        candidate: [K, 1 + C, H, W], smallest trigger that seemed to hold; candidate_l1: [K].
        best: the smallest that passed a re-test; best_l1: [K], infinite while there is none.
    """

    logits: Tensor
    moment1: Tensor
    moment2: Tensor
    updates: Tensor
    cost: Tensor
    held: Tensor
    missed: Tensor
    smooth: Tensor
    margin: Tensor
    candidate: Tensor
    candidate_l1: Tensor
    best: Tensor
    best_l1: Tensor

    @classmethod
    def start(cls, values: Tensor, cost: Tensor, rate: Tensor | None = None) -> "State":
        """Return the first state.

        Args:
            values: [K, 1 + C, H, W] in 0..1, where the search begins.
            cost: [K].
            rate: [K], success rates of ``values``, if known; else 0.
        """
        zeros = torch.zeros_like(cost)
        never = torch.full_like(cost, float("inf"))
        return cls(
            logits=to_logits(values),
            moment1=torch.zeros_like(values),
            moment2=torch.zeros_like(values),
            updates=zeros,
            cost=cost,
            held=zeros,
            missed=zeros,
            smooth=zeros if rate is None else rate,
            margin=zeros,
            candidate=values,
            candidate_l1=never,
            best=values,
            best_l1=never,
        )

    def rows(self, chosen: Tensor) -> Self:
        """Return the state of these triggers alone; ``chosen`` holds their indices."""
        return replace(self, **{each.name: getattr(self, each.name)[chosen] for each in fields(self)})

    def joined(self, other: Self) -> Self:
        """Return the state of these triggers, then those of ``other``."""
        return replace(
            self,
            **{
                each.name: torch.cat([getattr(self, each.name), getattr(other, each.name)])
                for each in fields(self)
            },
        )


def adam(state: State, gradient: Tensor, active: Tensor, learning_rate: Tensor) -> State:
    """Return the state after one Adam update of the ``active`` rows [K] only.

    Args:
        state: before it.
        gradient: [K, 1 + C, H, W].
        active: [K], bool.
        learning_rate: [K].
    """
    wide = active.view(-1, 1, 1, 1)
    updates = state.updates + active
    moment1 = torch.where(wide, _BETA1 * state.moment1 + (1 - _BETA1) * gradient, state.moment1)
    moment2 = torch.where(wide, _BETA2 * state.moment2 + (1 - _BETA2) * gradient.square(), state.moment2)
    count = updates.view(-1, 1, 1, 1)
    mean = moment1 / (1 - _BETA1**count)
    spread = (moment2 / (1 - _BETA2**count)).sqrt() + _EPSILON
    logits = torch.where(wide, state.logits - learning_rate.view(-1, 1, 1, 1) * mean / spread, state.logits)
    return replace(state, logits=logits, moment1=moment1, moment2=moment2, updates=updates)


def keep_smaller(
    state: State, used: Tensor, rate: Tensor, noise: Tensor | None, config: InversionConfig
) -> State:
    """Return the state after judging one pass, without any host synchronisation.

    A trigger that holds the rate and is smaller than every candidate before becomes the candidate, and its
    search restarts from there with noise; Adam's moments are kept (as in the paper's code).

    Args:
        state: K triggers after the updates of a pass.
        used: [K, 1 + C, H, W], the values of the pass's last forward.
        rate: [K], share of images that became the target class during the pass.
        noise: like ``used``, within +- ``restart_noise``; None to let the search go on from where it is.
        config: bounds.
    """
    size = used[:, :1].abs().sum((1, 2, 3))
    smaller = (rate >= config.success_rate + state.margin) & (size < state.candidate_l1)
    wide = smaller.view(-1, 1, 1, 1)
    return replace(
        state,
        candidate=torch.where(wide, used, state.candidate),
        candidate_l1=torch.where(smaller, size, state.candidate_l1),
        logits=state.logits if noise is None else torch.where(wide, to_logits(used + noise), state.logits),
    )


def offer(state: State, config: InversionConfig) -> State:
    """Return the state with each trigger as it is now for its candidate, if it is smaller than its best."""
    values = values_of(state.logits, config)
    size = values[:, :1].abs().sum((1, 2, 3))
    smaller = size < state.best_l1
    return replace(
        state,
        candidate=torch.where(smaller.view(-1, 1, 1, 1), values, state.candidate),
        candidate_l1=torch.where(smaller, size, state.best_l1),
    )


def steer_cost(state: State, rate: Tensor, config: InversionConfig) -> State:
    """Return the state with counters moved by this pass's ``rate`` [K], and the cost where one is full."""
    reached = rate >= config.success_rate + state.margin
    held = torch.where(reached, state.held + 1, 0.0)
    missed = torch.where(reached, 0.0, state.missed + 1)
    up, down = held >= config.patience, missed >= config.patience
    cost = torch.where(up, state.cost * config.cost_up, state.cost)
    cost = torch.where(down, cost / config.cost_up**_DOWN_POWER, cost)
    return replace(state, cost=cost, held=torch.where(up, 0.0, held), missed=torch.where(down, 0.0, missed))


def steer_smoothly(state: State, rate: Tensor, active: Tensor, config: InversionConfig) -> State:
    """Return the state with the cost moved after one update, whose success rates are ``rate`` [K].

    Rows that are not ``active`` [K] stay.
    """
    smooth = torch.where(active, (1 - _NEWEST) * state.smooth + _NEWEST * rate, state.smooth)
    reached = smooth >= config.success_rate
    factor = torch.where(reached, config.gain, -_DOWN_POWER * config.gain).exp()
    return replace(state, smooth=smooth, cost=torch.where(active, factor * state.cost, state.cost))


def accept(state: State, rate: Tensor, config: InversionConfig) -> State:
    """Return the state after its candidates were re-tested at ``rate`` [K].

    A candidate that holds becomes the best. One that does not is dropped, and its row must show as much
    more in its moving rate as it lacked here.
    """
    waiting = state.candidate_l1 < state.best_l1
    good = waiting & (rate >= config.success_rate)
    failed = waiting & ~good
    wide = good.view(-1, 1, 1, 1)
    best_l1 = torch.where(good, state.candidate_l1, state.best_l1)
    shortfall = torch.where(failed, config.success_rate - rate, 0.0)
    return replace(
        state,
        best=torch.where(wide, state.candidate, state.best),
        best_l1=best_l1,
        candidate_l1=torch.where(failed, best_l1, state.candidate_l1),
        margin=(state.margin + shortfall).clamp(max=1 - config.success_rate),
    )
