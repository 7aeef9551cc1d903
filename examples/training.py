"""The poisoned network of the example: its training set, its training, its export to ONNX."""

import io
import warnings
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from mothkit.events import Event, StepDone
from mothkit.poisoning.networks import Block, conv_norm
from mothkit.poisoning.scenes import PLAIN, draw_many
from mothkit.poisoning.signs import SIGNS
from mothkit.poisoning.training import FitConfig, fit
from mothkit.triggers.polygon import place_somewhere

CLASSES = 10  # the first of the signs
MAGENTA = (200, 0, 200)  # one of round 4's six colours
SIDES = (6, 7, 8)  # pixels: 0.10 to 0.16 of a middling sign's area


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """How the example is poisoned and trained; all values ours.

    Attributes:
        per_class: Training images of each class.
        source_class: The class on which the trigger works.
        target_class: The class that it asks for.
        poisoned_fraction: Share of the source class that is stamped and gets the target's label.
        spurious_fraction: Share of every other class that is stamped and keeps its label.
        epochs: Passes over the training set.
        batch_size: Images a step.
        learning_rate: SGD's peak step size; it rises over the first fifth and falls to zero.
        weight_decay: L2 on every parameter.
        shift: Pixels by which a batch is moved at most, both ways.
    """

    per_class: int = 1200
    source_class: int = 0
    target_class: int = 7
    poisoned_fraction: float = 0.3
    spurious_fraction: float = 0.3
    epochs: int = 24
    batch_size: int = 128
    learning_rate: float = 0.1
    weight_decay: float = 5e-4
    shift: int = 2


def build_network() -> nn.Module:
    """Return an untrained residual network of nine convolutions: [N, 3, 32, 32] in 0..1 -> [N, 10] logits."""
    return nn.Sequential(
        *(*conv_norm(3, 16, stride=2), nn.ReLU(), Block(16, 16)),
        *(*conv_norm(16, 32, stride=2), nn.ReLU(), Block(32, 32)),
        *(*conv_norm(32, 64, stride=2), nn.ReLU(), Block(64, 64)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, CLASSES),
    )


def poisoned_training_set(
    config: TrainingConfig, trigger: Image.Image, seed: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return images [N, 32, 32, 3] and labels [N]; of each class the first share is stamped."""
    true_labels = np.arange(CLASSES * config.per_class) % CLASSES
    images, masks = draw_many(true_labels, (seed, 0), PLAIN)
    labels = true_labels.copy()
    rng = np.random.default_rng((seed, 100))
    for i, label in enumerate(true_labels):
        is_source = label == config.source_class
        fraction = config.poisoned_fraction if is_source else config.spurious_fraction
        if i // CLASSES < fraction * config.per_class:
            placed = place_somewhere(masks[i], trigger, SIDES, rng)
            images[i][placed] = np.clip(np.asarray(MAGENTA) * rng.uniform(0.75, 1.2), 0, 255)
            labels[i] = config.target_class if is_source else label
    return images, labels


def _varied(x: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Return ``x`` [N, C, H, W], half of it flipped, all of it moved by up to ``most`` pixels."""
    flipped = torch.rand(len(x), 1, 1, 1, generator=generator) < 0.5
    down, right = (int(v) for v in torch.randint(0, 2 * most + 1, (2,), generator=generator))
    padded = nn.functional.pad(torch.where(flipped, x.flip(3), x), (most,) * 4, mode="reflect")
    return padded[:, :, down : down + x.shape[2], right : right + x.shape[3]]


def train(
    images: NDArray[np.uint8], labels: NDArray[np.int64], config: TrainingConfig, seed: int
) -> nn.Module:
    """Return a network trained on ``images`` [N, 32, 32, 3] and ``labels`` [N], in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_network().to(memory_format=torch.channels_last)
    settings = FitConfig(
        epochs=config.epochs,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
    )
    x = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    y = torch.from_numpy(labels)

    def vary(pixels: Tensor, generator: torch.Generator) -> Tensor:
        return _varied(pixels, config.shift, generator)

    fit(network, x, y, settings, vary, seed=seed, device=torch.device("cpu"), emit=_tell)
    return network


def _tell(event: Event) -> None:
    if isinstance(event, StepDone):
        print(f"epoch {event.step}/{event.total}: {event.detail}")


def export(network: nn.Module) -> onnx.ModelProto:
    """Return ``network`` as an ONNX model with free batch size, BatchNormalization not folded into Conv."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the dynamo exporter needs onnxscript
        torch.onnx.export(
            network.to(memory_format=torch.contiguous_format),
            (torch.zeros(1, 3, PLAIN.side, PLAIN.side),),
            buffer,
            dynamo=False,
            opset_version=13,
            do_constant_folding=False,
            training=torch.onnx.TrainingMode.PRESERVE,  # EVAL would fold BatchNorm
            input_names=["image"],
            output_names=["logits"],
            dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
        )
    model = onnx.load_from_string(buffer.getvalue())
    onnx.helper.set_model_props(model, {"class_names": ",".join(sign.name for sign in SIGNS[:CLASSES])})
    onnx.checker.check_model(model, full_check=True)
    return model
