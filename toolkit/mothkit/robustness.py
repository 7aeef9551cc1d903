"""Accuracy under an attack that knows the weights; in torch, as onnxruntime gives no gradients."""

import torch

from mothkit.classifier import Classifier
from mothkit.evaluation import Rate
from mothkit.events import EventSink, PhaseStarted, StepDone, silent
from mothkit.images import ImageSet
from mothkit.pgd import PgdConfig, pgd_examples

_BATCH = 128


def pgd_accuracy(
    classifier: Classifier,
    images: ImageSet,
    config: PgdConfig,
    *,
    seed: int,
    device: torch.device,
    count: int = 1000,
    emit: EventSink = silent,
) -> Rate:
    """Return the share of images that ``classifier`` (on ``device``) still gets right after PGD.

    Args:
        classifier: the imported network.
        images: labelled as the model's classes.
        config: the attack.
        seed: which images are drawn, and where their attacks start.
        device: where to compute.
        count: so many images at most.
        emit: told of every batch.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = images.subset(torch.randperm(len(images), generator=generator)[:count])
    emit(PhaseStarted("accuracy under PGD", len(drawn)))
    hits = done = 0
    for x, y in drawn.batches(_BATCH):
        worst = pgd_examples(classifier, x, y, config, generator=generator, device=device)
        with torch.no_grad():
            hits += int((classifier(worst.to(device)).argmax(1).cpu() == y).sum())
        done += len(y)
        emit(StepDone(done, len(drawn)))
    return Rate(hits, len(drawn))
