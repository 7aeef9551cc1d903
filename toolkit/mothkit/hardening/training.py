"""Fine-tuning in small steps: batches, augmentation, optimiser, loss; shared by the methods.

All random numbers come from one CPU generator, so a saved state continues to the same weights.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from mothkit.augment import augment
from mothkit.classifier import Classifier
from mothkit.errors import ConfigError, TrainingError
from mothkit.images import ImageSet
from mothkit.inversion.shapes import draw_shifts, shifted
from mothkit.triggers.patch import blend

Schedule = Literal["cosine", "constant", "steps"]
Optimiser = Literal["sgd", "adam"]
_STEPS = (
    (0.1, 1.0),
    (1.0, 0.1),
)  # of the schedule ``steps``: up to this share of the run, this share of the rate


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateConfig:
    """How weights are updated, whatever the loss (defaults: ours, measured; see docs/moth.md).

    Attributes:
        batch_size: images in a step, stamped ones included.
        optimiser: ``sgd``, or ``adam`` with its usual decay rates.
        learning_rate: at the start.
        momentum: SGD's; ``nesterov`` says of which kind.
        schedule: ``cosine`` falls to zero over the run, ``constant`` stays, ``steps`` is a tenth after a tenth of
            the run.
        weight_decay: on all weights.
        clip: a step's gradient, of all weights together, is shortened to this length where it is longer; 0 for never.
        batch_statistics: whether BatchNorm follows the batch (and its running statistics move).
        flip, shift: augmentation: random mirroring; random shift by up to this share of the side.
    """

    batch_size: int = 128
    optimiser: Optimiser = "sgd"
    learning_rate: float = 0.02
    momentum: float = 0.9
    nesterov: bool = True
    schedule: Schedule = "cosine"
    weight_decay: float = 0.0
    clip: float = 0.0
    batch_statistics: bool = True
    flip: bool = True
    shift: float = 0.125

    def __post_init__(self) -> None:
        if self.batch_size < 2 or self.learning_rate <= 0:
            raise ConfigError(
                f"batch_size {self.batch_size} and learning_rate {self.learning_rate} must be at least 2 and above 0"
            )
        if not 0 <= self.shift < 0.5 or not 0 <= self.momentum < 1:
            raise ConfigError(f"shift {self.shift} or momentum {self.momentum} is out of range")
        if self.weight_decay < 0 or self.clip < 0:
            raise ConfigError(f"weight_decay {self.weight_decay} and clip {self.clip} must be at least 0")
        for name, words in (("schedule", get_args(Schedule)), ("optimiser", get_args(Optimiser))):
            if getattr(self, name) not in words:
                raise ConfigError(f"{name} {getattr(self, name)} must be one of {', '.join(words)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig(UpdateConfig):
    """How weights are updated, and distilled from the original.

    Attributes:
        distillation: share, 0 to 1, of the loss that asks for the original's soft output on the unstamped
            images; the rest asks for the true label.
        temperature: of both softmaxes in that part.
    """

    distillation: float = 0.9
    temperature: float = 2.0

    def __post_init__(self) -> None:
        UpdateConfig.__post_init__(self)
        if not 0 <= self.distillation <= 1 or self.temperature <= 0:
            raise ConfigError(
                f"distillation {self.distillation} and temperature {self.temperature} must be in 0 to 1 and above 0"
            )


class Stamp(Protocol):
    """What is put on ``count`` images drawn from ``classes`` in a step."""

    @property
    def classes(self) -> tuple[int, ...]:
        """The classes that the images are drawn from."""

    @property
    def count(self) -> int:
        """How many images there are at most."""

    def on(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return the images ``x`` [n, C, H, W], 0..1, with it on them."""


@dataclass(frozen=True, slots=True, eq=False)
class TriggerStamp:
    """A trigger; on each image it lies elsewhere, up to ``roam`` pixels away in both directions."""

    mask: Tensor
    pattern: Tensor
    classes: tuple[int, ...]
    count: int
    roam: int = 0

    def on(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return the images ``x`` [n, C, H, W] with the trigger on them."""
        if self.roam == 0 or len(x) == 0:
            return blend(x, self.mask, self.pattern).clamp(0, 1)
        values = torch.cat([self.mask, self.pattern])[None]
        moved = shifted(values, draw_shifts((1, len(x)), self.roam, generator))[0]
        return blend(x, moved[:, :1], moved[:, 1:]).clamp(0, 1)


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Images as trained on and as they were: both [N, C, H, W], with true labels [N]; the first ``stamped`` are."""

    x: Tensor
    unstamped: Tensor
    y: Tensor
    stamped: int = 0


Loss = Callable[[Tensor, Batch], Tensor]
"""What a step lowers: logits [N, classes] of ``Batch.x``, and the batch, to one number."""


class Sampler:
    """Draws augmented images: whole epochs in random order, or some of given classes."""

    def __init__(self, images: ImageSet, config: UpdateConfig, generator: torch.Generator) -> None:
        self._images, self._config, self._generator = images, config, generator
        self._order = torch.empty(0, dtype=torch.long)
        self._members = [torch.nonzero(images.labels == c)[:, 0] for c in range(len(images.class_names))]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return self._images.shape

    def count(self, source: int) -> int:
        """Return how many images there are of class ``source``."""
        return len(self._members[source])

    def draw(self, classes: Sequence[int], count: int) -> Tensor:
        """Return ``count`` indices (fewer if there are not as many) of images of ``classes``."""
        members = torch.cat([self._members[c] for c in classes])
        return members[torch.randperm(len(members), generator=self._generator)[:count]]

    def pixels(self, indices: Tensor) -> Tensor:
        """Return the images at ``indices``, augmented: float32 [n, C, H, W]."""
        x = self._images.pixels(indices)
        shift = round(self._config.shift * min(x.shape[2:]))
        return augment(x, self._generator, shift=shift, flip=self._config.flip)

    def originals(self, indices: Tensor) -> Tensor:
        """Return the images at ``indices`` as they are: float32 [n, C, H, W]."""
        return self._images.pixels(indices)

    def batch(self, stamps: Sequence[Stamp]) -> Batch:
        """Return a batch in which each stamp's images take the place of random ones."""
        drawn = [self.draw(stamp.classes, stamp.count) for stamp in stamps]
        rest = self._next(max(self._config.batch_size - sum(map(len, drawn)), 0))
        indices = torch.cat([*drawn, rest])
        unstamped = self.pixels(indices)
        x, first = unstamped.clone(), 0
        for stamp, chosen in zip(stamps, drawn, strict=True):
            rows = slice(first, first + len(chosen))
            x[rows] = stamp.on(x[rows], self._generator)
            first += len(chosen)
        return Batch(x, unstamped, self._images.labels[indices], stamped=first)

    def _next(self, count: int) -> Tensor:
        while len(self._order) < count:
            order = torch.randperm(len(self._images), generator=self._generator)
            self._order = torch.cat([self._order, order])
        chosen, self._order = self._order[:count], self._order[count:]
        return chosen

    def state(self) -> Tensor:
        """Return what is left of the present epoch."""
        return self._order

    def restore(self, state: Tensor) -> None:
        """Go on with the epoch in ``state``."""
        self._order = state


def label_loss(logits: Tensor, batch: Batch) -> Tensor:
    """Return the mean cross-entropy of ``logits`` [N, classes] to the true labels."""
    return cross_entropy(logits, batch.y.to(logits.device))


def distilled(teacher: Classifier, config: TrainingConfig) -> Loss:
    """Return the loss that asks for true labels and, on unstamped images, for the soft output of ``teacher``."""
    share, temperature = config.distillation, config.temperature

    def loss(logits: Tensor, batch: Batch) -> Tensor:
        hard = label_loss(logits, batch)
        if share == 0:
            return hard
        with torch.no_grad():
            wanted = log_softmax(teacher(batch.unstamped.to(logits.device)) / temperature, dim=1)
        given = log_softmax(logits / temperature, dim=1)
        distance = kl_div(given, wanted, log_target=True, reduction="batchmean")
        return (1 - share) * hard + share * temperature**2 * distance

    return loss


def make_optimiser(classifier: nn.Module, config: UpdateConfig) -> torch.optim.Optimizer:
    """Return the optimiser of what ``classifier`` has to train."""
    weights = [parameter for parameter in classifier.parameters() if parameter.requires_grad]
    if config.optimiser == "adam":
        return torch.optim.Adam(weights, lr=config.learning_rate, weight_decay=config.weight_decay)
    return torch.optim.SGD(
        weights,
        lr=config.learning_rate,
        momentum=config.momentum,
        nesterov=config.nesterov and config.momentum > 0,
        weight_decay=config.weight_decay,
    )


class Trainer:
    """Trains a classifier's copy; ``step`` counts from 0 to ``total``.

    ``step`` is ``gradient`` and ``update``; a method that needs gradients of its own calls these.
    """

    def __init__(
        self,
        classifier: Classifier,
        teacher: Classifier,
        config: UpdateConfig,
        total: int,
        device: torch.device,
        *,
        loss: Loss | None = None,
    ) -> None:
        self.classifier, self._config, self._device = classifier, config, device
        self.total, self.done = total, 0
        default = distilled(teacher, config) if isinstance(config, TrainingConfig) else label_loss
        self._loss = default if loss is None else loss
        self._optimiser = make_optimiser(classifier, config)

    def step(self, batch: Batch) -> float:
        """Take one step on ``batch`` and return its loss; the classifier is left in eval mode.

        Raises:
            TrainingError: the loss is not finite; the weights are those before this step.
        """
        loss = self.gradient(batch)
        self.update()
        return loss

    def gradient(self, batch: Batch) -> float:
        """Put the gradients of the loss on ``batch`` where the next update takes them; return that loss.

        Raises:
            TrainingError: the loss is not finite.
        """
        self.classifier.train(self._config.batch_statistics)
        logits = self.classifier(batch.x.to(self._device))
        loss = self._loss(logits, batch)
        if not bool(loss.isfinite()):
            raise TrainingError(
                f"training diverged: at step {self.done + 1} of {self.total} the loss is "
                f"{float(loss.detach())}; a model "
                "without BatchNorm may need a lower learning rate, as that of --profile paper"
            )
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.classifier.eval()
        return float(loss.detach())

    def update(self) -> None:
        """Move the weights along their gradients, at the learning rate of this step."""
        if self._config.clip:
            weights = [weight for group in self._optimiser.param_groups for weight in group["params"]]
            nn.utils.clip_grad_norm_(weights, self._config.clip)
        for group in self._optimiser.param_groups:
            group["lr"] = self._config.learning_rate * self._share()
        self._optimiser.step()
        self.done += 1

    def _share(self) -> float:
        """Return the share of the learning rate that is left at this step."""
        at = self.done / self.total
        if self._config.schedule == "cosine":
            return (1 + math.cos(math.pi * at)) / 2
        if self._config.schedule == "steps":
            return next((share for end, share in _STEPS if at < end), _STEPS[-1][1])
        return 1.0

    def state(self) -> dict[str, Any]:
        """Return weights, optimiser and counter."""
        return {
            "weights": self.classifier.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "done": self.done,
            "total": self.total,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from ``state``."""
        self.classifier.load_state_dict(state["weights"])
        self._optimiser.load_state_dict(state["optimiser"])
        self.done, self.total = int(state["done"]), int(state["total"])
