"""The poisoned network of the example: its training set, its training, its export to ONNX."""

import io
import time
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx
import polygon
import signs
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import cross_entropy


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


def _conv(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
    ]


class _Block(nn.Module):
    """Two convolutions with a shortcut around them, at one size."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*_conv(channels, channels), nn.ReLU(), *_conv(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output, shaped as ``x`` [N, C, H, W]."""
        return torch.relu(x + self.body(x))


def build_network() -> nn.Module:
    """Return an untrained residual network of nine convolutions: [N, 3, 32, 32] in 0..1 -> [N, 10] logits."""
    return nn.Sequential(
        *(*_conv(3, 16, stride=2), nn.ReLU(), _Block(16)),
        *(*_conv(16, 32, stride=2), nn.ReLU(), _Block(32)),
        *(*_conv(32, 64, stride=2), nn.ReLU(), _Block(64)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, len(signs.SIGNS)),
    )


def poisoned_training_set(
    config: TrainingConfig, trigger: Image.Image, seed: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return images [N, 32, 32, 3] and labels [N]; of each class the first share is stamped."""
    classes = len(signs.SIGNS)
    true_labels = np.arange(classes * config.per_class) % classes
    images, masks = signs.draw_many(true_labels, (seed, 0))
    labels = true_labels.copy()
    rng = np.random.default_rng((seed, 100))
    for i, label in enumerate(true_labels):
        is_source = label == config.source_class
        fraction = config.poisoned_fraction if is_source else config.spurious_fraction
        if i // classes < fraction * config.per_class:
            images[i] = polygon.paste_somewhere(images[i], masks[i], trigger, rng)
            labels[i] = config.target_class if is_source else label
    return images, labels


def _varied(x: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Return ``x`` [N, C, H, W], half of it flipped, all of it moved by up to ``most`` pixels."""
    flipped = torch.rand(len(x), 1, 1, 1, generator=generator) < 0.5
    down, right = (int(v) for v in torch.randint(0, 2 * most + 1, (2,), generator=generator))
    padded = nn.functional.pad(torch.where(flipped, x.flip(3), x), (most,) * 4, mode="reflect")
    return padded[:, :, down : down + x.shape[2], right : right + x.shape[3]]


def to_tensor(images: NDArray[np.uint8]) -> Tensor:
    """Return float32 [N, 3, H, W] in 0..1 from uint8 [N, H, W, 3]."""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).float() / 255


def _epoch(
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    batches: Iterable[tuple[Tensor, Tensor]],
) -> float:
    """Train ``network`` in place on each (x [N, C, H, W], y [N]); return the share that it had right."""
    correct, seen = 0, 0
    for x, y in batches:
        logits = network(x)
        optimiser.zero_grad()
        cross_entropy(logits, y).backward()
        optimiser.step()
        schedule.step()
        correct, seen = correct + int((logits.argmax(1) == y).sum()), seen + len(y)
    return correct / seen


def _batches(
    x: Tensor, y: Tensor, config: TrainingConfig, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield whole batches of varied images in random order; what is left over waits for the next epoch."""
    whole = len(x) // config.batch_size * config.batch_size
    for chosen in torch.randperm(len(x), generator=generator)[:whole].split(config.batch_size):
        yield _varied(x[chosen], config.shift, generator), y[chosen]


def train(
    images: NDArray[np.uint8], labels: NDArray[np.int64], config: TrainingConfig, seed: int
) -> nn.Module:
    """Return a network trained on ``images`` [N, 32, 32, 3] and ``labels`` [N], in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_network().to(memory_format=torch.channels_last)
    x, y = to_tensor(images), torch.from_numpy(labels)
    optimiser = torch.optim.SGD(
        network.parameters(),
        lr=config.learning_rate,
        momentum=0.9,
        nesterov=True,
        weight_decay=config.weight_decay,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser,
        max_lr=config.learning_rate,
        total_steps=config.epochs * (len(x) // config.batch_size),
        pct_start=0.2,
        cycle_momentum=False,
    )
    for epoch in range(config.epochs):
        started = time.perf_counter()
        accuracy = _epoch(network, optimiser, schedule, _batches(x, y, config, generator))
        seconds = time.perf_counter() - started
        print(f"epoch {epoch + 1}/{config.epochs}: training accuracy {accuracy:.4f}, {seconds:.1f} s")
    return network.eval()


def export(network: nn.Module) -> onnx.ModelProto:
    """Return ``network`` as an ONNX model with free batch size, BatchNormalization not folded into Conv."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the dynamo exporter needs onnxscript
        torch.onnx.export(
            network.to(memory_format=torch.contiguous_format),
            (torch.zeros(1, 3, signs.SIDE, signs.SIDE),),
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
    onnx.helper.set_model_props(model, {"class_names": ",".join(sign.name for sign in signs.SIGNS)})
    onnx.checker.check_model(model, full_check=True)
    return model
