"""Paddle networks through paddle2onnx."""

from __future__ import annotations

import os

os.environ["POLYGRAPHY_AUTOINSTALL_DEPS"] = (
    "0"  # its optimiser would install what it lacks, from elsewhere too
)

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from common import CLASSES, SEED, Export, export_all, images
from paddle import nn
from paddle.static import InputSpec

SIZE = 16


def cnn() -> nn.Layer:
    return nn.Sequential(
        nn.Conv2D(3, 8, 3, padding=1, bias_attr=False), nn.BatchNorm2D(8), nn.ReLU(), nn.MaxPool2D(2),
        nn.Conv2D(8, 12, 3, padding=1, groups=4), nn.BatchNorm2D(12), nn.Hardswish(),
        nn.AdaptiveAvgPool2D(1), nn.Flatten(), nn.Dropout(0.3), nn.Linear(12, CLASSES), nn.Softmax(),
    )  # fmt: skip


def mixed() -> nn.Layer:
    """Return a network of other kinds; of LeakyReLU and GroupNorm paddle2onnx 2.1 loses slope and epsilon."""
    return nn.Sequential(
        nn.Conv2D(3, 8, 3, stride=2, padding=1), nn.PReLU(8),
        nn.Conv2DTranspose(8, 6, 2, stride=2), nn.Silu(),
        nn.Upsample(size=[2 * SIZE, 2 * SIZE], mode="nearest"),
        nn.AvgPool2D(4), nn.Flatten(), nn.Linear(6 * 64, 16), nn.LayerNorm(16), nn.GELU(), nn.Linear(16, CLASSES),
    )  # fmt: skip


def mlp() -> nn.Layer:
    return nn.Sequential(
        nn.Linear(20, 32),
        nn.BatchNorm1D(32),
        nn.Tanh(),
        nn.Linear(32, 16),
        nn.Sigmoid(),
        nn.Linear(16, CLASSES),
    )


MODELS: dict[str, tuple[Callable[[], nn.Layer], tuple[int, ...]]] = {
    "cnn": (cnn, (3, SIZE, SIZE)),
    "mixed": (mixed, (3, SIZE, SIZE)),
    "mlp": (mlp, (20,)),
    "mobilenet_v2": (partial(paddle.vision.models.mobilenet_v2, scale=0.5, num_classes=CLASSES), (3, 64, 64)),
    "resnet18": (partial(paddle.vision.models.resnet18, num_classes=CLASSES), (3, 64, 64)),
}


def settled(make: Callable[[], nn.Layer], x: Any) -> nn.Layer:
    """Return a model with seeded weights whose BatchNorm statistics follow ``x``, in eval mode."""
    paddle.seed(SEED)
    model = make()
    generator = np.random.default_rng(SEED)
    for layer in model.sublayers(include_self=True):
        if isinstance(layer, nn.BatchNorm2D | nn.BatchNorm1D):
            layer.weight.set_value(generator.uniform(0.5, 1.5, layer.weight.shape).astype("float32"))
            layer.bias.set_value(generator.normal(0, 0.1, layer.bias.shape).astype("float32"))
            layer._momentum = 0.3  # noqa: SLF001 - the way that has no name of its own
    model.train()
    model(x)
    model.eval()
    return model


def export(path: Path, *, name: str, batch: int | None, **options: Any) -> tuple[list[Any], list[Any]]:
    make, shape = MODELS[name]
    whole = paddle.to_tensor(images(4, *shape))
    model, x = settled(make, whole), whole[:batch]
    stem = str(path.with_suffix(""))
    paddle.onnx.export(model, stem, input_spec=[InputSpec([batch, *shape], "float32", "x")], **options)
    if not path.exists():  # its reason went to the log
        raise RuntimeError("paddle2onnx wrote no file")
    return [x.numpy()], [model(x).numpy()]


def exports() -> Iterator[tuple[str, Export]]:
    for name in MODELS:
        yield f"paddle-{name}", partial(export, name=name, batch=None)
        yield f"paddle-{name}-batch1", partial(export, name=name, batch=1, opset_version=11)


if __name__ == "__main__":
    export_all(exports())
