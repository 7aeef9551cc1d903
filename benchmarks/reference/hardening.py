"""MOTH's hardening as the PyTorch code of its authors runs it.

Source: Tao et al., "Model Orthogonalization", IEEE S&P 2022; see docs/moth.md for where mothkit departs from it.

Kept as they are, since they shape the result:
- the loss after the warm-up's inversions is never recorded, so that every pair counts as equally easy;
- the first inversion leaves the model in inference mode: BatchNorm keeps its statistics from then on;
- each universal trigger but the first starts from that of class 0, and cannot move if that one failed;
- a random pair in descending order takes and leaves its two triggers exchanged;
- a pair's first size, where its universal trigger failed, makes the table of growth the table of sizes itself;
- the batch of the pair inversion shrinks to the smallest number of images seen, for good;
- a batch in which either class has fewer than ten images stamps nothing, and a period without any inversion goes on
  without training until there is one;
- the warm-up takes its steps from the epochs, and the last weights are the result.
"""

import copy
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from .inversion import BATCH, Published, invert
from .pairs import BestOf, Pair, invert_pair

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The published defaults.

    Attributes:
        epochs, batch, learning_rate: of training.
        warm_share: of a warm-up batch's images of other classes that carry the universal trigger.
        portion: of the scarcer class's images in a batch that are stamped.
        random_share: of the periods whose pair is drawn.
        period: training steps with one pair.
        warm_passes, pair_passes, refresh_passes: of the inversions.
        pair_cost, refresh_cost: weight of the mask's size at first.
    """

    epochs: int = 2
    batch: int = 128
    learning_rate: float = 1e-4
    warm_share: float = 0.5
    portion: float = 0.1
    random_share: float = 0.3
    period: int = 3
    warm_passes: int = 500
    pair_passes: int = 200
    refresh_passes: int = 50
    pair_cost: float = 1e-3
    refresh_cost: float = 1e-2


PUBLISHED = Settings()


@dataclass(slots=True, eq=False)
class Table:
    """What is known of pairs: [K, K] each, row = source.

    Attributes:
        ease: how easily the source is turned, as the warm-up should have measured it.
        sizes: of the triggers, mask times channels.
        growth: of these, a running average.
        triggers: masks [2, 1, H, W] and patterns [2, C, H, W] of each unordered pair, the smaller class first.
    """

    ease: Tensor
    sizes: Tensor
    growth: Tensor
    triggers: dict[Pair, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def choose(self, step: int, random_share: float, generator: torch.Generator) -> Pair:
        """Return the pair of the next period; ``step`` counts from 0."""
        count = len(self.ease)
        if float(torch.rand((), generator=generator)) < random_share:
            source, target = torch.randperm(count, generator=generator)[:2].tolist()
            return source, target
        alpha = min(step / 1000, 1)
        score = (1 - alpha) * (self.ease + self.ease.T) + alpha * (self.growth + self.growth.T)
        return divmod(int(score.argmax()), count)

    def keep(self, pair: Pair, mask: Tensor, pattern: Tensor) -> None:
        """Store a trigger of one direction."""
        masks, patterns = self.triggers[min(pair), max(pair)]
        side = int(pair[0] > pair[1])
        masks[side], patterns[side] = mask, pattern

    def learn(self, pair: Pair, sizes: Tensor) -> None:
        """Take up the mean ``sizes`` [2] of a period's triggers, from source to target and back."""
        source, target = pair
        if self.sizes[source, target] == 0:
            self.sizes[source, target], self.sizes[target, source] = sizes
            self.growth = self.sizes  # one array under two names, as published
            return
        for (s, t), size in zip((pair, pair[::-1]), sizes, strict=True):
            self.growth[s, t] = (self.growth[s, t] + (size - self.sizes[s, t]) / self.sizes[s, t]) / 2
            self.sizes[s, t] = size


@dataclass(slots=True, eq=False)
class Period:
    """A pair's turn.

    Attributes:
        pair: source and target.
        triggers: its own in the table, not copies.
        sizes: [2] each, after every inversion.
        is_first: whether no training step of the period is done yet.
        failed: whether the last inversion missed a direction.
    """

    pair: Pair
    triggers: tuple[Tensor, Tensor]
    sizes: list[Tensor] = field(default_factory=list)
    is_first: bool = True
    failed: bool = False

    def take(self, found: BestOf) -> None:
        """Keep the triggers that were found, and the sizes that are there now."""
        masks, patterns = self.triggers
        successes = [bool(mask.sum() > 0) for mask in found.masks]
        for k in (0, 1):
            if successes[k]:
                masks[k], patterns[k] = found.masks[k], found.patterns[k]
        self.is_first, self.failed = False, not all(successes)
        self.sizes.append(patterns.shape[1] * masks.sum((1, 2, 3)))


def harden(
    original: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    classes: int,
    settings: Settings = PUBLISHED,
    generator: torch.Generator,
) -> nn.Module:
    """Return a hardened copy of ``original``.

    Args:
        original: pixels [N, C, H, W], 0 to 1, to logits; all parameters that require gradients are trained.
        images: [N, C, H, W], on its device.
        labels: [N].
        classes: how many there are.
        settings: the published ones.
        generator: on the CPU.
    """
    model = copy.deepcopy(original).eval()
    optimiser = torch.optim.SGD(
        [p for p in model.parameters() if p.requires_grad],
        lr=settings.learning_rate,
        momentum=0.9,
        nesterov=True,
    )
    samples = _warm_up_samples(images, labels, classes, settings, generator)
    feed = _batches(images, labels, settings, generator)
    table = _warm_up(model, optimiser, samples, feed, images, settings, generator)
    step, batch_size = 0, BATCH
    period = _begin(table, step, settings, generator)
    for x, y in feed:
        stamped, batch_size = _stamp_pair(model, x, y, period, batch_size, settings, generator)
        is_last = step % settings.period == settings.period - 1
        if is_last and not period.sizes:
            continue
        if is_last:
            table.learn(period.pair, torch.stack(period.sizes).mean(0))
        _train(model, optimiser, stamped, y)
        step += 1
        if is_last:
            period = _begin(table, step, settings, generator)
    return model


def _begin(table: Table, step: int, settings: Settings, generator: torch.Generator) -> Period:
    pair = table.choose(step, settings.random_share, generator)
    return Period(pair, table.triggers[min(pair), max(pair)])


def _batches(
    images: Tensor, labels: Tensor, settings: Settings, generator: torch.Generator
) -> Iterator[Batch]:
    for _ in range(settings.epochs):
        for part in torch.randperm(len(images), generator=generator).split(settings.batch):
            yield images[part], labels[part]


def _train(model: nn.Module, optimiser: torch.optim.Optimizer, x: Tensor, y: Tensor) -> None:
    optimiser.zero_grad()
    cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
    optimiser.step()


def _warm_up_samples(
    images: Tensor, labels: Tensor, classes: int, settings: Settings, generator: torch.Generator
) -> list[Tensor]:
    """Return the positions of ten images of each class at most, of the first five batches of a first order."""
    first = torch.randperm(len(images), generator=generator)[: 5 * settings.batch]
    return [first[labels[first].cpu() == each][:10] for each in range(classes)]


def _warm_up(
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    samples: list[Tensor],
    feed: Iterator[Batch],
    images: Tensor,
    settings: Settings,
    generator: torch.Generator,
) -> Table:
    """Return the table after one universal trigger, and one step of training, for each class."""
    classes, (channels, height, width) = len(samples), images.shape[1:]
    table = Table(1 - torch.eye(classes), torch.zeros(classes, classes), torch.zeros(classes, classes))
    for s, t in itertools.combinations(range(classes), 2):
        table.triggers[s, t] = torch.zeros(2, 1, height, width), torch.zeros(2, channels, height, width)
    start = None
    for target in range(classes):
        others = torch.cat([samples[source] for source in range(classes) if source != target])
        found = invert(
            model,
            images[others],
            target,
            passes=settings.warm_passes,
            bound=0.99,
            start=start,
            generator=generator,
        )
        start = start or (found.mask, found.pattern)
        for source in range(classes):
            if source != target:
                table.keep((source, target), found.mask, found.pattern)
                table.sizes[source, target] = table.growth[source, target] = channels * found.mask.sum()
        x, y = next(feed)
        _train(model, optimiser, _stamp_universal(x, y, target, found, settings, generator), y)
    table.growth /= table.growth.max()
    return table


def _stamp_universal(
    x: Tensor, y: Tensor, target: int, found: Published, settings: Settings, generator: torch.Generator
) -> Tensor:
    """Return ``x`` with the trigger on a share of the images of other classes."""
    others = torch.nonzero(y.cpu() != target)[:, 0]
    chosen = others[torch.randperm(len(others), generator=generator)]
    return _stamp(x, chosen[: int(settings.warm_share * len(others))], found.mask, found.pattern)


def _stamp(x: Tensor, chosen: Tensor, mask: Tensor, pattern: Tensor) -> Tensor:
    """Return ``x`` with a trigger on the images ``chosen``; one that is too large is left out, as published."""
    if len(pattern) * mask.sum() >= mask.numel() * 3 / 4:
        return x
    stamped, mask, pattern = x.clone(), mask.to(x), pattern.to(x)
    stamped[chosen] = ((1 - mask) * x[chosen] + mask * pattern).clamp(0, 1)
    return stamped


def _stamp_pair(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    period: Period,
    batch_size: int,
    settings: Settings,
    generator: torch.Generator,
) -> tuple[Tensor, int]:
    """Return ``x`` with the period's triggers, inverted anew, on some images; and the batch size from now on."""
    members = [torch.nonzero(y.cpu() == each)[:, 0] for each in period.pair]
    count = int(settings.portion * min(map(len, members)))
    if count == 0:
        period.is_first = False
        return x, batch_size
    both = torch.cat(members)
    batch_size = min(batch_size, len(both))
    is_long = period.is_first or period.failed
    found = invert_pair(
        model,
        x[both],
        torch.arange(len(both)) >= len(members[0]),
        period.pair,
        period.triggers,
        batch=batch_size,
        passes=settings.pair_passes if is_long else settings.refresh_passes,
        initial_cost=settings.pair_cost if is_long else settings.refresh_cost,
        generator=generator,
    )
    period.take(found)
    for k, mine in enumerate(members):
        chosen = mine[torch.randperm(len(mine), generator=generator)[:count]]
        x = _stamp(x, chosen, found.masks[k], found.patterns[k])
    return x, batch_size
