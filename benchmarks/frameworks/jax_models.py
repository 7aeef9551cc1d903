"""Flax networks through jax2onnx."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
from common import CLASSES, SEED, Export, export_all, images
from flax import nnx
from jax2onnx import to_onnx

SIZE = 16


class Mlp(nnx.Module):
    """Dense layers with LayerNorm, BatchNorm and Dropout."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.first, self.second = nnx.Linear(20, 32, rngs=rngs), nnx.Linear(32, 16, rngs=rngs)
        self.norm, self.layer_norm = nnx.BatchNorm(32, momentum=0.3, rngs=rngs), nnx.LayerNorm(16, rngs=rngs)
        self.dropout, self.head = nnx.Dropout(0.3, rngs=rngs), nnx.Linear(16, CLASSES, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.dropout(nnx.relu(self.norm(self.first(x))))
        return nnx.softmax(self.head(nnx.gelu(self.layer_norm(self.second(x)))))


class Cnn(nnx.Module):
    """Two convolutions with BatchNorm, a max pool, an average pool, and two dense layers."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.first = nnx.Conv(3, 8, (3, 3), use_bias=False, rngs=rngs)
        self.second = nnx.Conv(8, 12, (3, 3), strides=2, rngs=rngs)
        self.norms = nnx.List([nnx.BatchNorm(n, momentum=0.3, rngs=rngs) for n in (8, 12)])
        self.dense, self.head = nnx.Linear(48, 16, rngs=rngs), nnx.Linear(16, CLASSES, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.max_pool(nnx.relu(self.norms[0](self.first(x))), window_shape=(2, 2), strides=(2, 2))
        x = nnx.avg_pool(nnx.silu(self.norms[1](self.second(x))), window_shape=(2, 2), strides=(2, 2))
        return self.head(nnx.relu(self.dense(x.reshape(x.shape[0], -1))))


class Separable(nnx.Module):
    """Depthwise and transposed convolutions with GroupNorm, and a mean over the image."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.first = nnx.Conv(3, 8, (3, 3), padding="VALID", rngs=rngs)
        self.depthwise = nnx.Conv(8, 8, (3, 3), feature_group_count=8, use_bias=False, rngs=rngs)
        self.norm, self.up = (
            nnx.GroupNorm(8, num_groups=4, rngs=rngs),
            nnx.ConvTranspose(8, 6, (2, 2), (2, 2), rngs=rngs),
        )
        self.head = nnx.Linear(6, CLASSES, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.elu(self.norm(self.depthwise(nnx.leaky_relu(self.first(x)))))
        return self.head(jnp.mean(nnx.tanh(self.up(x)), axis=(1, 2)))


class Encoder(nnx.Module):
    """A patch embedding, attention and a dense block: a very small vision transformer."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.patches = nnx.Conv(3, 16, (4, 4), strides=4, padding="VALID", rngs=rngs)
        self.positions = nnx.Param(jax.random.normal(rngs.params(), (1, 16, 16)) * 0.1)
        self.attention = nnx.MultiHeadAttention(4, 16, decode=False, rngs=rngs)
        self.norms = nnx.List([nnx.LayerNorm(16, rngs=rngs) for _ in range(3)])
        self.up, self.down = nnx.Linear(16, 32, rngs=rngs), nnx.Linear(32, 16, rngs=rngs)
        self.head = nnx.Linear(16, CLASSES, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.patches(x)
        x = x.reshape(x.shape[0], 16, 16) + self.positions[...]
        x = x + self.attention(self.norms[0](x))
        x = x + self.down(nnx.gelu(self.up(self.norms[1](x))))
        return self.head(self.norms[2](x).mean(axis=1))


MODELS: dict[str, tuple[Callable[[nnx.Rngs], nnx.Module], tuple[int, ...]]] = {
    "mlp": (Mlp, (20,)),
    "cnn": (Cnn, (SIZE, SIZE, 3)),
    "separable": (Separable, (SIZE, SIZE, 3)),
    "vit": (Encoder, (SIZE, SIZE, 3)),
}


def settled(make: Callable[[nnx.Rngs], nnx.Module], x: Any) -> nnx.Module:
    """Return a model with seeded weights whose BatchNorm statistics follow ``x``."""
    model = make(nnx.Rngs(SEED))
    generator = np.random.default_rng(SEED)
    for _, module in nnx.iter_modules(model):
        if isinstance(module, nnx.BatchNorm):
            module.scale[...] = jnp.asarray(generator.uniform(0.5, 1.5, module.scale.shape), jnp.float32)
            module.bias[...] = jnp.asarray(generator.normal(0, 0.1, module.bias.shape), jnp.float32)
    model.train()
    model(x)
    model.eval()
    return model


def export(path: Path, *, name: str, batch: int | str, **options: Any) -> tuple[list[Any], list[Any]]:
    make, shape = MODELS[name]
    x = images(4, *shape)
    model = settled(make, jnp.asarray(x))
    proto = to_onnx(model, [(batch, *shape)], **options)
    onnx.save(proto, str(path))
    x = x if isinstance(batch, str) else x[:batch]
    return [x.transpose(0, 3, 1, 2) if "inputs_as_nchw" in options else x], [
        np.asarray(model(jnp.asarray(x)))
    ]


def exports() -> Iterator[tuple[str, Export]]:
    for name in MODELS:
        yield f"jax-{name}", partial(export, name=name, batch="B")
        yield f"jax-{name}-batch1", partial(export, name=name, batch=1)
    yield "jax-cnn-opset21", partial(export, name="cnn", batch="B", opset=21)
    yield "jax-cnn-nchw", partial(export, name="cnn", batch="B", inputs_as_nchw=[0])


if __name__ == "__main__":
    export_all(exports())
