"""What an inversion run is asked to do: its task list and its numbers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from torch import Tensor

from mothkit.errors import ConfigError

Control = Literal["passes", "updates"]
"""When the weight of the mask's size moves: after ``patience`` passes in a row, or a little after every update."""

Loss = Literal["cross-entropy", "linear"]
"""What pulls an image to the target: -ln p, or 16.118 (1 - p), which the published Keras code minimises."""

Precision = Literal["auto", "float32", "bfloat16"]
"""In which numbers a network's products are computed while triggers move."""

_TRIED = 1 / 6  # share of the steps after which the order of sizes hardly changes any more

_RANGES: tuple[tuple[tuple[str, ...], Callable[[Any], bool], str], ...] = (
    (
        ("steps", "starts", "images_per_update", "patience", "images_per_forward", "cell"),
        lambda n: n >= 1,
        "at least 1",
    ),
    (("stall", "roam"), lambda n: n >= 0, "at least 0"),
    (("success_rate", "start_mask", "settle"), lambda x: 0 < x <= 1, "in (0, 1]"),
    (("start_margin", "restart_noise", "spare"), lambda x: 0 <= x < 0.5, "in [0, 0.5)"),
    (("initial_cost", "learning_rate", "gain"), lambda x: x > 0, "above 0"),
    (("cost_up",), lambda x: x > 1, "above 1"),
    (("control",), lambda word: word in get_args(Control), f"one of {', '.join(get_args(Control))}"),
    (("loss",), lambda word: word in get_args(Loss), f"one of {', '.join(get_args(Loss))}"),
    (("precision",), lambda word: word in get_args(Precision), f"one of {', '.join(get_args(Precision))}"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class InversionConfig:
    """Numbers of one inversion (defaults: the paper's, for measuring class distance; ``QUICK`` is ours).

    Attributes:
        steps: passes over a trigger's images (paper: 1000).
        starts: random starts, each tried for a sixth of the steps; the search goes on from the one with the
            smallest trigger (paper: 1). A given start is the only one, and so is that of a search of one step.
        success_rate: share of a trigger's images that must become the target class (paper: 0.9).
        images_per_update: images of one trigger in one Adam update (paper: 32).
        learning_rate: Adam's, on the logits of mask and pattern (paper: 0.1; betas 0.5 and 0.9).
        settle: share of the steps after which the learning rate falls to a tenth; 1 for never (paper: 1).
        spare: share of an update's images, those that are furthest from the target, that do not pull once a fifth of
            the steps is done: the rate asks only for the others (paper: 0).
        initial_cost: weight of the mask's size at the start (paper: 1e-3).
        loss: what pulls an image to the target (paper: cross-entropy, its published distances linear).
        control: when the cost moves (paper: passes).
        gain: of control by updates: each that is at the rate makes the cost e^gain times as much, each that is
            below it e^(-1.5 gain) times. What counts is the rate smoothed over about five updates.
        patience: steps in a row, below or above the rate, before the cost moves (paper: 10).
        cost_up: factor when the rate was held (paper: 1.5); down it goes by its 1.5th power.
        restart_noise: of control by passes: half width of the uniform noise added to a new best, from which the
            search goes on (paper: 0.01); 0 lets it go on from where it is.
        start_mask: a random start's mask is uniform in 0 to this (paper: 1).
        stall: steps without a trigger 1 % smaller, once one was found, after which a search ends; 0 for never
            (paper: 0).
        start_margin: a given start is kept this far from 0 and 1, so that no entry is frozen
            at the flat end of tanh (paper: 0, see docs/moth.md).
        cell: edge of the squares, in pixels, on which mask and pattern are constant (paper: 1).
        roam: in every update each image carries the trigger elsewhere, up to this many pixels away in both directions
            (paper: 0). Re-tests and reports are of the trigger in its middle place.
        images_per_forward: bound on triggers x images in one forward pass; None to go by the device and the
            size of the images (see ``plan.forward_images``).
        precision: of the network's products; re-tests are in float32 always. ``auto``: see ``plan.make_plan``.
    """

    steps: int = 1000
    starts: int = 1
    success_rate: float = 0.9
    images_per_update: int = 32
    learning_rate: float = 0.1
    settle: float = 1.0
    spare: float = 0.0
    initial_cost: float = 1e-3
    loss: Loss = "cross-entropy"
    control: Control = "passes"
    gain: float = 0.03
    patience: int = 10
    cost_up: float = 1.5
    restart_noise: float = 0.01
    start_mask: float = 1.0
    stall: int = 0
    start_margin: float = 0.0
    cell: int = 1
    roam: int = 0
    images_per_forward: int | None = None
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        for names, fits, range_ in _RANGES:
            for name in names:
                if (value := getattr(self, name)) is not None and not fits(value):
                    raise ConfigError(f"{name} is {value!r}, not {range_}")

    @property
    def trial_steps(self) -> int:
        """Steps of each of several starts; not those of the search that goes on from the best."""
        return max(1, round(_TRIED * self.steps))


QUICK = InversionConfig(
    steps=250,
    starts=3,
    images_per_update=16,
    settle=0.5,
    spare=0.1,
    control="updates",
    initial_cost=0.02,
    gain=0.015,
    start_mask=0.3,
)
"""Ours: the best of three starts, a cost that follows every update, the hardest tenth of the images let go, small steps
at the end; see docs/engine.md."""


@dataclass(frozen=True, slots=True, eq=False)
class InversionTask:
    """One trigger to find: from the images at ``indices`` [n] of the pool to ``target_class``."""

    indices: Tensor
    target_class: int

    def __post_init__(self) -> None:
        if self.indices.ndim != 1 or len(self.indices) == 0:
            raise ConfigError(
                f"an inversion to class {self.target_class} has image indices {tuple(self.indices.shape)}; "
                "expected [n], n >= 1"
            )
