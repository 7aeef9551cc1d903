"""The MOTH authors' own ResNet20 models, their published distances, and the images to measure on."""

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pieces import Record, timed, told
from torch import Tensor, nn

from mothkit.classifier import Classifier
from mothkit.images import ImageSet
from mothkit.inversion.config import QUICK, InversionConfig, InversionTask
from mothkit.inversion.engine import invert
from mothkit.opening import OpenModel, Settings, open_model
from mothkit.runtime import Session
from mothkit.triggers.patch import Trigger, stamp

Pair = tuple[int, int]
MODELS = {"nat": "natural", "adv": "adversarially trained"}
CONFIGS = {"default profile": QUICK, "paper profile": InversionConfig()}
IMAGES = 100  # of a class, at most
RATE = 0.9  # of these that a trigger must turn
PAIRS = [
    (source, (source + k) % 10) for source in range(10) for k in (1, 4, 7)
]  # each class thrice on each side


def sample(count: int) -> list[Pair]:
    """Return ``count`` of the 30 ``PAIRS``, evenly spread."""
    return [PAIRS[k * len(PAIRS) // count] for k in range(count)]


@dataclass(frozen=True, slots=True, eq=False)
class Study:
    """One of the authors' models, with what is measured on it.

    Attributes:
        classifier: on ``device``.
        session: the same in onnxruntime, where triggers are tried again.
        images: ``measure``, part of the authors' own measuring set; ``held_out``: test images.
        published: their matrix, the smallest of three runs.
    """

    classifier: Classifier
    session: Session
    images: ImageSet
    held_out: ImageSet
    published: dict[Pair, float]
    device: torch.device

    def draw(self, pair: Pair, seed: int) -> Tensor:
        """Return the positions [n] of the images that ``seed`` draws for ``pair``; everybody gets the same."""
        members = torch.nonzero(self.images.labels == pair[0])[:, 0]
        return members[torch.randperm(len(members), generator=seeded(seed, *pair))[:IMAGES]]

    def invert(self, draws: Sequence[tuple[Pair, int]], config: InversionConfig) -> Record:
        """Return what the engine finds for these pairs with these seeds, all at once, and what it took."""
        used = [self.draw(pair, seed) for pair, seed in draws]
        members = torch.cat(used).unique()
        tasks = [
            InversionTask(torch.searchsorted(members, mine), pair[1])
            for mine, (pair, _) in zip(used, draws, strict=True)
        ]
        pool, generator = self.images.pixels(members), seeded(draws[0][1], *draws[0][0])
        with count_gradients(self.classifier) as gradients, timed() as seconds:
            found = invert(self.classifier, pool, tasks, config, generator=generator, device=self.device)
        entries = [
            self.entry(pair, seed, found.trigger(k), found=bool(found.found[k]))
            for k, (pair, seed) in enumerate(draws)
        ]
        return {"config": told(config), **seconds, "gradients": sum(gradients), "entries": entries}

    def entry(self, pair: Pair, seed: int, trigger: Trigger, *, found: bool) -> Record:
        """Return the size of a trigger, and its success when tried again."""
        size = trigger.mask_l1 * self.images.shape[0]
        retested = self.retest(pair, self.draw(pair, seed), trigger)
        return {"pair": pair, "seed": seed, "found": found, "distance": size, **retested}

    def retest(self, pair: Pair, used: Tensor, trigger: Trigger) -> dict[str, float]:
        """Return the success of ``trigger`` in onnxruntime: on the images ``used`` [n], and on the test images."""
        others = torch.nonzero(self.held_out.labels == pair[0])[:, 0]
        sets = {"success": (self.images, used), "held_out": (self.held_out, others)}
        return {name: self._success(x.pixels(chosen), pair[1], trigger) for name, (x, chosen) in sets.items()}

    def _success(self, x: Tensor, target_class: int, trigger: Trigger) -> float:
        hits = self.session.logits(stamp(x, trigger)).argmax(1) == target_class
        return int(hits.sum()) / len(x)


def seeded(*numbers: int) -> torch.Generator:
    """Return a generator whose seed is made of ``numbers``."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence(numbers).generate_state(1)[0]))


def open_study(shared: Path, name: str, device: str = "cpu") -> Study:
    """Return the model ``nat`` or ``adv`` in ``shared``."""
    settings = Settings(preprocess="byte", device=device)
    model: OpenModel = open_model(shared / f"models/moth_resnet20_{name}.onnx", settings)
    images, held_out = (
        model.images(f"{shared}/data/cifar10_lossless.npz:{part}") for part in ("measure", "test")
    )
    classifier = model.classifier(images.shape)
    return Study(
        classifier,
        model.session(classifier.head.value),
        images,
        held_out,
        published(shared / f"models/moth_resnet20_{name}_distance.csv"),
        model.device,
    )


def published(path: Path) -> dict[Pair, float]:
    """Return the matrix in ``path``: a heading, then a row a source, the source first and the diagonal empty."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        (int(row["source\\target"]), int(target)): float(size)
        for row in rows
        for target, size in row.items()
        if size and target != "source\\target"
    }


@contextmanager
def count_gradients(model: nn.Module) -> Iterator[list[int]]:
    """Yield a list that grows by the number of images of each forward pass that a gradient may follow."""
    counts: list[int] = []

    def count(_: nn.Module, given: tuple[Tensor, ...]) -> None:
        if torch.is_grad_enabled():
            counts.append(len(given[0]))

    handle = model.register_forward_pre_hook(count)
    try:
        yield counts
    finally:
        handle.remove()


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the rank correlation of two lists without ties; NaN for fewer than three."""
    if len(first) < 3:
        return float("nan")
    ranks = [np.argsort(np.argsort(sizes)) for sizes in (first, second)]
    return float(np.corrcoef(*ranks)[0, 1])
