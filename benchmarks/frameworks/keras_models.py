"""Keras models through Keras's own export, and TensorFlow functions through tf2onnx."""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import tensorflow as tf
import tf2onnx
from common import CLASSES, SEED, Export, export_all, images
from keras import layers

WORDS = 50
SIZE = 16


def cnn(activation: str | None = "softmax") -> keras.Model:
    return keras.Sequential([
        keras.Input((SIZE, SIZE, 3)),
        layers.Conv2D(8, 3, padding="same", use_bias=False), layers.BatchNormalization(), layers.ReLU(),
        layers.MaxPooling2D(), layers.Conv2D(12, 3, strides=2, padding="same"), layers.BatchNormalization(),
        layers.LeakyReLU(0.2), layers.Flatten(), layers.Dropout(0.4), layers.Dense(16, activation="relu"),
        layers.Dense(CLASSES, activation=activation),
    ])  # fmt: skip


def separable() -> keras.Model:
    return keras.Sequential([
        keras.Input((SIZE, SIZE, 3)),
        layers.Rescaling(1 / 127.5, offset=-1), layers.SeparableConv2D(8, 3, padding="same"),
        layers.BatchNormalization(), layers.PReLU(shared_axes=(1, 2)),
        layers.DepthwiseConv2D(3, strides=2, padding="same", use_bias=False), layers.BatchNormalization(),
        layers.Activation("relu6"), layers.Conv2D(8, 3, dilation_rate=2, padding="same", activation="swish"),
        layers.AveragePooling2D(3, strides=2, padding="same"), layers.GlobalAveragePooling2D(),
        layers.Dense(CLASSES),
    ])  # fmt: skip


def transposed() -> keras.Model:
    return keras.Sequential([
        keras.Input((SIZE, SIZE, 3)),
        layers.Conv2D(8, 3, strides=2, padding="same", activation="softplus"), layers.GroupNormalization(4),
        layers.Conv2DTranspose(6, 3, strides=2, padding="same"), layers.LayerNormalization(),
        layers.UpSampling2D(2, interpolation="bilinear"), layers.ZeroPadding2D(1), layers.Cropping2D(2),
        layers.Conv2D(8, 5, padding="valid", activation="elu"), layers.GlobalMaxPooling2D(),
        layers.Dense(CLASSES, activation="softmax"),
    ])  # fmt: skip


def residual() -> keras.Model:
    """Branches joined by Add, Concatenate and a squeeze-and-excite Multiply; two outputs."""
    given = keras.Input((SIZE, SIZE, 3), name="image")
    x = layers.BatchNormalization()(layers.Conv2D(8, 3, padding="same", use_bias=False)(given))
    y = layers.Conv2D(8, 3, padding="same", activation="relu")(x)
    x = layers.Concatenate()([layers.Add()([x, y]), layers.MaxPooling2D(2, strides=1, padding="same")(y)])
    gate = layers.Dense(4, activation="relu")(layers.GlobalAveragePooling2D(keepdims=True)(x))
    x = layers.Multiply()([x, layers.Dense(16, activation="sigmoid")(gate)])
    x = layers.Flatten()(layers.AveragePooling2D(4)(x))
    scores = layers.Dense(CLASSES, activation="softmax", name="scores")(x)
    return keras.Model(given, [scores, layers.Dense(1, activation="sigmoid", name="confidence")(x)])


def one_logit() -> keras.Model:
    return keras.Sequential([
        keras.Input((SIZE, SIZE, 1)), layers.Conv2D(6, 3), layers.BatchNormalization(), layers.ReLU(),
        layers.GlobalAveragePooling2D(), layers.Dense(1, activation="sigmoid"),
    ])  # fmt: skip


def mlp() -> keras.Model:
    return keras.Sequential([
        keras.Input((20,)), layers.Dense(32), layers.BatchNormalization(), layers.Activation("selu"),
        layers.Dense(16, activation="tanh"), layers.Dense(CLASSES, activation="softmax"),
    ])  # fmt: skip


def text(layer: Callable[[], Any]) -> keras.Model:
    return keras.Sequential([
        keras.Input((9,), dtype="int32"), layers.Embedding(WORDS, 12), layer(),
        layers.Dense(CLASSES, activation="softmax"),
    ])  # fmt: skip


def attention() -> keras.Model:
    given = keras.Input((9,), dtype="int32")
    x = layers.Embedding(WORDS, 16)(given)
    x = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 8)(x, x))
    return keras.Model(given, layers.Dense(CLASSES)(layers.GlobalAveragePooling1D()(x)))


def conv1d() -> keras.Model:
    return keras.Sequential([
        keras.Input((32, 4)), layers.Conv1D(8, 5, padding="causal", activation="relu"), layers.BatchNormalization(),
        layers.MaxPooling1D(2), layers.Conv1D(8, 3, strides=2, padding="same"), layers.GlobalAveragePooling1D(),
        layers.Dense(CLASSES, activation="log_softmax"),
    ])  # fmt: skip


def application(name: str, size: int, **options: Any) -> keras.Model:
    make = getattr(keras.applications, name)
    return make(weights=None, input_shape=(size, size, 3), classes=CLASSES, **options)


MODELS: dict[str, Callable[[], keras.Model]] = {
    "cnn": cnn,
    "cnn_logits": partial(cnn, None),
    "separable": separable,
    "transposed": transposed,
    "residual": residual,
    "one_logit": one_logit,
    "mlp": mlp,
    "lstm": partial(text, lambda: layers.LSTM(10)),
    "gru": partial(text, lambda: layers.GRU(10)),
    "bilstm": partial(text, lambda: layers.Bidirectional(layers.LSTM(10))),
    "attention": attention,
    "conv1d": conv1d,
    "mobilenet_v2": partial(application, "MobileNetV2", 64, alpha=0.35),
    "mobilenet_v3_small": partial(application, "MobileNetV3Small", 64),
    "resnet50": partial(application, "ResNet50", 64),
    "resnet50_v2": partial(application, "ResNet50V2", 64),
    "efficientnet_b0": partial(application, "EfficientNetB0", 64),
    "densenet121": partial(application, "DenseNet121", 64),
    "xception": partial(application, "Xception", 75),
    "inception_v3": partial(application, "InceptionV3", 75),
    "nasnet_mobile": partial(application, "NASNetMobile", 64),
    "vgg16": partial(application, "VGG16", 32),
}


def settled(make: Callable[[], keras.Model], x: Any) -> keras.Model:
    """Return a model with seeded weights whose BatchNorm statistics are those of ``x``."""
    keras.utils.set_random_seed(SEED)
    model = make()
    generator = np.random.default_rng(SEED)
    norms = [layer for layer in model._flatten_layers() if isinstance(layer, layers.BatchNormalization)]  # noqa: SLF001
    for norm in norms:
        momentum, norm.momentum = norm.momentum, 0.3
        norm._before = momentum  # noqa: SLF001
        if norm.scale:
            norm.gamma.assign(generator.uniform(0.5, 1.5, norm.gamma.shape))
        if norm.center:
            norm.beta.assign(generator.normal(0, 0.1, norm.beta.shape))
    for layer in model._flatten_layers():  # noqa: SLF001
        if isinstance(layer, layers.PReLU):
            layer.alpha.assign(generator.uniform(0.1, 0.4, layer.alpha.shape))
    model(x, training=bool(norms))  # Keras exports only what was called
    for norm in norms:
        norm.momentum = norm._before  # noqa: SLF001
    return model


def sample(model: keras.Model) -> Any:
    shape = model.inputs[0].shape[1:]
    x = images(4, *shape)
    return (x * WORDS).astype(np.int32) if model.inputs[0].dtype == "int32" else x


def with_keras(path: Path, *, make: Callable[[], keras.Model], **options: Any) -> tuple[list[Any], list[Any]]:
    keras.utils.set_random_seed(SEED)
    x = sample(make())
    model = settled(make, x)
    model.export(str(path), format="onnx", verbose=False, **options)
    return [x, *leaked(model, path)], outputs(model(x, training=False))


def leaked(model: keras.Model, path: Path) -> list[Any]:
    """Return the statistics of Normalization layers, which this export leaves as inputs without values."""
    names = [value.name for value in onnx.load(path, load_external_data=False).graph.input[1:]]
    held = [layer for layer in model._flatten_layers() if isinstance(layer, layers.Normalization)]  # noqa: SLF001
    return [np.asarray(held[0].mean if "Sub" in name else held[0].variance, np.float32) for name in names]


def with_tf2onnx(
    path: Path, *, make: Callable[[], keras.Model], batch: int | None, **options: Any
) -> tuple[list[Any], list[Any]]:
    keras.utils.set_random_seed(SEED)
    x = sample(make())
    model = settled(make, x)
    x = x[:batch]
    function = tf.function(lambda given: model(given, training=False))
    signature = [tf.TensorSpec((batch, *x.shape[1:]), x.dtype, name="input")]
    tf2onnx.convert.from_function(function, signature, output_path=str(path), **options)
    return [x.transpose(0, 3, 1, 2) if "inputs_as_nchw" in options else x], outputs(function(x))


def with_label(path: Path) -> tuple[list[Any], list[Any]]:
    """A bare TensorFlow function that returns logits, probabilities and the label."""
    generator = tf.random.Generator.from_seed(SEED)
    kernel = tf.Variable(generator.normal((3, 3, 3, 8)) * 0.3)
    dense, bias = tf.Variable(generator.normal((8, CLASSES))), tf.Variable(generator.normal((CLASSES,)))

    signature = [tf.TensorSpec((None, SIZE, SIZE, 3), tf.float32, name="image")]

    @tf.function(input_signature=signature)
    def classify(x: Any) -> dict[str, Any]:
        y = tf.nn.relu(tf.nn.conv2d((x - 0.5) * 2, kernel, strides=2, padding="SAME"))
        logits = tf.matmul(tf.reduce_mean(y, [1, 2]), dense) + bias
        return {
            "label": tf.argmax(logits, axis=1),
            "logits": logits,
            "probabilities": tf.nn.softmax(logits),
        }

    x = images(4, SIZE, SIZE, 3)
    tf2onnx.convert.from_function(classify, signature, output_path=str(path))
    found = classify(x)
    return [x], [found[name].numpy() for name in sorted(found)]


def outputs(y: Any) -> list[Any]:
    return [np.asarray(value) for value in (y if isinstance(y, list | tuple) else [y])]


def exports() -> Iterator[tuple[str, Export]]:
    for name, make in MODELS.items():
        yield f"keras-{name}", partial(with_keras, make=make)
    for name in ("cnn", "separable", "transposed", "residual", "lstm", "gru", "mobilenet_v2", "resnet50_v2"):
        yield f"tf2onnx-{name}", partial(with_tf2onnx, make=MODELS[name], batch=None)
    for name in ("cnn", "mobilenet_v2", "lstm"):
        yield f"tf2onnx-{name}-batch1", partial(with_tf2onnx, make=MODELS[name], batch=1)
        yield f"tf2onnx-{name}-opset11", partial(with_tf2onnx, make=MODELS[name], batch=None, opset=11)
    yield (
        "tf2onnx-cnn-nchw",
        partial(with_tf2onnx, make=MODELS["cnn"], batch=None, inputs_as_nchw=["input:0"]),
    )
    yield "tf2onnx-function", with_label


if __name__ == "__main__":
    export_all(exports())
