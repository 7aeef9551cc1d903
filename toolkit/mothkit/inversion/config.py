"""What an inversion run is asked to do: its task list and its numbers."""

from dataclasses import dataclass

from torch import Tensor

from mothkit.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class InversionConfig:
    """Numbers of one inversion (defaults: the paper's, for measuring class distance).

    Attributes:
        steps: passes over a trigger's images (paper: 1000).
        success_rate: share of a trigger's images that must become the target class (paper: 0.9).
        images_per_update: images of one trigger in one Adam update (paper: 32).
        learning_rate: Adam's, on the logits of mask and pattern (paper: 0.1; betas 0.5 and 0.9).
        initial_cost: weight of the mask's size at the start (paper: 1e-3).
        patience: steps in a row, below or above the rate, before the cost moves (paper: 10).
        cost_up: factor when the rate was held (paper: 1.5); down it goes by its 1.5th power.
        restart_noise: half width of the uniform noise added to a new best (paper: 0.01).
        start_margin: a given start is kept this far from 0 and 1, so that no entry is frozen
            at the flat end of tanh (paper: 0, see docs/moth.md).
        images_per_forward: bound on triggers x images in one forward pass; None to go by the device and the
            size of the images (see ``engine.forward_images``).
    """

    steps: int = 1000
    success_rate: float = 0.9
    images_per_update: int = 32
    learning_rate: float = 0.1
    initial_cost: float = 1e-3
    patience: int = 10
    cost_up: float = 1.5
    restart_noise: float = 0.01
    start_margin: float = 0.0
    images_per_forward: int | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "images_per_update", "patience", "images_per_forward"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ConfigError(f"{name} is {value}, not at least 1")
        if not 0 < self.success_rate <= 1:
            raise ConfigError(f"success_rate is {self.success_rate}, not in (0, 1]")
        if self.cost_up <= 1 or self.initial_cost <= 0 or self.learning_rate <= 0:
            raise ConfigError(
                f"cost_up {self.cost_up}, initial_cost {self.initial_cost} and learning_rate "
                f"{self.learning_rate} must be above 1, 0 and 0"
            )
        for name in ("start_margin", "restart_noise"):
            if not 0 <= getattr(self, name) < 0.5:
                raise ConfigError(f"{name} is {getattr(self, name)}, not in [0, 0.5)")


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
