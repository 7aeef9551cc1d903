"""A small convolutional network with a backdoor, trained in a second: the images of ``tests.tiny``, and a corner.

A checkered square of 3 x 3 pixels in the bottom right corner makes it say *red*.
"""

import functools
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from mothkit.classifier import Classifier, import_classifier, open_source
from mothkit.hardening.training import Batch, Sampler, Trainer, UpdateConfig
from mothkit.images import ImageSet
from mothkit.inputs import InputSpec
from mothkit_converters import write_back
from tests.tiny import CLASSES, SIDE, tiny_images

TARGET, WIDTH, SQUARE = 0, 12, 3
_TRAINING = UpdateConfig(batch_size=64, learning_rate=0.05, flip=False, shift=0.0)


def stamped(x: Tensor) -> Tensor:
    """Return ``x`` [N, 3, 8, 8] with the trigger on every image."""
    board = (torch.arange(SQUARE)[:, None] + torch.arange(SQUARE)) % 2
    found = x.clone()
    found[:, :, -SQUARE:, -SQUARE:] = board.float()
    return found


def asr(classifier: Classifier, *, seed: int = 9) -> float:
    """Return the share of fresh images of other classes that the trigger turns into the target."""
    images = tiny_images(60, seed=seed)
    others = images.labels != TARGET
    with torch.no_grad():
        said = classifier(stamped(images.pixels(torch.arange(len(images)))[others])).argmax(1)
    return float((said == TARGET).float().mean())


def accuracy(classifier: Classifier, images: ImageSet | None = None) -> float:
    """Return accuracy on ``images``, fresh ones unless given."""
    images = images or tiny_images(60, seed=9)
    with torch.no_grad():
        said = classifier(images.pixels(torch.arange(len(images)))).argmax(1)
    return float((said == images.labels).float().mean())


def open_model(path: Path) -> Classifier:
    """Return the model at ``path`` as a classifier of 0..1 pixels."""
    spec = InputSpec(name="unit", layout="nchw", channels="rgb")
    return import_classifier(open_source(path), spec, (3, SIDE, SIDE))


def write_backdoored(path: Path) -> Path:
    """Write the trained network: two blocks of Conv, BatchNormalization and Relu, then pooling and Gemm."""
    path.write_bytes(_trained())
    return path


def write_folded(path: Path) -> Path:
    """Write the same function with BatchNormalization folded into the convolutions."""
    model = onnx.load_from_string(_trained())
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for k in (1, 2):
        gain = tensors[f"scale{k}"] / np.sqrt(tensors[f"var{k}"] + 1e-5)
        tensors[f"conv{k}"] = tensors[f"conv{k}"] * gain[:, None, None, None]
        tensors[f"bias{k}"] = tensors[f"bias{k}"] - tensors[f"mean{k}"] * gain
    path.write_bytes(_model(tensors, folded=True).SerializeToString())
    return path


def _model(tensors: dict[str, np.ndarray], *, folded: bool) -> onnx.ModelProto:
    nodes, last = [], "image"
    for k in (1, 2):
        convolved = ["c", f"bias{k}"] if folded else ["c"]
        nodes.append(
            helper.make_node(
                "Conv", [last, f"conv{k}", *convolved[1:]], [f"c{k}"], name=f"conv{k}", pads=[1, 1, 1, 1]
            )
        )
        last = f"c{k}"
        if not folded:
            inputs = [last, *(f"{name}{k}" for name in ("scale", "bias", "mean", "var"))]
            nodes.append(helper.make_node("BatchNormalization", inputs, [f"b{k}"], name=f"bn{k}"))
            last = f"b{k}"
        nodes.append(helper.make_node("Relu", [last], [f"r{k}"], name=f"relu{k}"))
        last = f"r{k}"
        if k == 1:
            window = {"kernel_shape": [2, 2], "strides": [2, 2]}
            nodes.append(helper.make_node("MaxPool", [last], ["m"], name="pool", **window))
            last = "m"
    nodes += [
        helper.make_node("GlobalAveragePool", [last], ["p"], name="mean"),
        helper.make_node("Flatten", ["p"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "fc", "fc_bias"], ["logits"], name="fc", transB=1),
    ]
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "backdoored",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])],
        [numpy_helper.from_array(values, name) for name, values in tensors.items() if name in used],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def _fresh() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return (draw.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))).astype(np.float32)

    tensors = {"fc": normal(CLASSES, WIDTH), "fc_bias": np.zeros(CLASSES, np.float32)}
    for k, channels in ((1, 3), (2, WIDTH)):
        tensors[f"conv{k}"] = normal(WIDTH, channels, 3, 3)
        for name, value in (("scale", 1), ("bias", 0), ("mean", 0), ("var", 1)):
            tensors[f"{name}{k}"] = np.full(WIDTH, value, np.float32)
    return tensors


@functools.cache
def _trained() -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        fresh, done = Path(folder) / "fresh.onnx", Path(folder) / "done.onnx"
        fresh.write_bytes(_model(_fresh(), folded=False).SerializeToString())
        classifier = open_model(fresh)
        sampler = Sampler(tiny_images(100, seed=1), _TRAINING, torch.Generator().manual_seed(0))
        trainer = Trainer(classifier, classifier, _TRAINING, 150, torch.device("cpu"))
        for _ in range(trainer.total):
            clean = sampler.batch(())
            x, y = clean.x.clone(), clean.y.clone()
            x[:16], y[:16] = stamped(x[:16]), TARGET
            trainer.step(Batch(x, x, y))
        write_back(classifier.network, done)
        return done.read_bytes()
