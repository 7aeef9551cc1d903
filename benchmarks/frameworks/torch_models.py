"""torchvision's classifiers and small networks of other kinds, through both of torch's ONNX exporters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torchvision
from common import CLASSES, SEED, Export, export_all, images
from torch import Tensor, nn

models = torchvision.models
WORDS = 50

NETS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "resnet18": (models.resnet18, 64),
    "mobilenet_v2": (models.mobilenet_v2, 64),
    "densenet121": (models.densenet121, 64),
    "inception_v3": (partial(models.inception_v3, init_weights=False), 75),
    "inception_v3_scaled": (partial(models.inception_v3, init_weights=False, transform_input=True), 75),
    "googlenet": (partial(models.googlenet, init_weights=False), 64),
    "squeezenet1_1": (models.squeezenet1_1, 64),
    "shufflenet_v2_x1_0": (models.shufflenet_v2_x1_0, 64),
    "mnasnet1_0": (models.mnasnet1_0, 64),
    "vgg11_bn": (models.vgg11_bn, 224),  # its adaptive pool is exported at this size alone
    "wide_resnet50_2": (models.wide_resnet50_2, 64),
    "efficientnet_b0": (models.efficientnet_b0, 64),
    "mobilenet_v3_small": (models.mobilenet_v3_small, 64),
    "regnet_y_400mf": (models.regnet_y_400mf, 64),
    "vit_b_32": (partial(models.vit_b_32, image_size=96), 96),
    "swin_t": (models.swin_t, 64),
    "convnext_tiny": (models.convnext_tiny, 64),
}


class Small(nn.Module):
    """Convolutions with the norms and activations that the large ones lack."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.PReLU(8),
            nn.Conv2d(8, 8, 3, padding="same", groups=8), nn.GroupNorm(4, 8), nn.GELU(approximate="tanh"),
            nn.AvgPool2d(2, ceil_mode=True), nn.Conv2d(8, 12, 1), nn.InstanceNorm2d(12, affine=True), nn.Mish(),
            nn.ConvTranspose2d(12, 6, 2, stride=2), nn.LeakyReLU(0.1), nn.Dropout(0.3),
            nn.Upsample(scale_factor=2, mode="bilinear"), nn.ZeroPad2d(1), nn.MaxPool2d(3, stride=2),
        )  # fmt: skip
        self.head = nn.Sequential(nn.Linear(6, 16), nn.LayerNorm(16), nn.ELU(), nn.Linear(16, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean(dim=(2, 3)))


class Probabilities(nn.Module):
    """A small classifier that ends in Softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8 * 36, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(self.norm(self.conv(x)).relu(), 2)
        return self.head(x.flatten(1)).softmax(dim=1)


class Recurrent(nn.Module):
    """Embedding, a recurrent layer of two directions, and a head on its last step."""

    def __init__(self, layer: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, 12)
        self.layer = layer(12, 10, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(20, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(self.embedding(x))[0][:, -1])


class Transformer(nn.Module):
    """Embedding, two encoder layers, and a head on the mean."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, 16)
        layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.embedding(x)).mean(dim=1))


class OneLogit(nn.Module):
    """A binary classifier with a single score."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.conv(x)).relu().mean(dim=(2, 3))).sigmoid()


SMALL: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "small_cnn": (Small, (3, 16, 16)),
    "small_softmax": (Probabilities, (3, 14, 14)),
    "small_one_logit": (OneLogit, (3, 14, 14)),
    "lstm": (partial(Recurrent, nn.LSTM), (9,)),
    "gru": (partial(Recurrent, nn.GRU), (9,)),
    "rnn": (partial(Recurrent, nn.RNN), (9,)),
    "transformer": (Transformer, (9,)),
}


def settled(make: Callable[[], nn.Module], x: Tensor) -> nn.Module:
    """Return a model with seeded weights, and BatchNorm statistics that follow ``x``, in eval mode."""
    torch.manual_seed(SEED)
    model = make()
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]  # noqa: SLF001
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.1)
    for name, parameter in model.named_parameters():
        if "layer_scale" in name or name.endswith(("heads.head.weight", "class_token")):  # made as nothing
            nn.init.normal_(parameter, std=0.2)
    model.eval()
    for norm in norms:
        norm.train()
    with torch.no_grad():
        model(x)
    return model.eval()


def sample(shape: tuple[int, ...], batch: int) -> Tensor:
    x = torch.from_numpy(images(max(batch, 4), *shape))
    return (x * WORDS).long() if len(shape) == 1 else x


def export(
    path: Path, *, make: Callable[[], nn.Module], shape: tuple[int, ...], batch: int, **options: Any
) -> tuple[list[Tensor], list[Tensor]]:
    whole = sample(shape, batch)
    model, x = settled(make, whole), whole[:batch]
    if batch > 1 and options["dynamo"]:
        options["dynamic_shapes"] = ({0: torch.export.Dim("batch", min=1, max=64)},)
    elif batch > 1:
        options["dynamic_axes"] = {"input": {0: "batch"}, "output": {0: "batch"}}
    torch.onnx.export(
        model, (x,), str(path), input_names=["input"], output_names=["output"], verbose=False, **options
    )
    with torch.no_grad():
        return [x], [model(x)]


def exports() -> Iterator[tuple[str, Export]]:
    shapes = {
        name: (partial(make, num_classes=CLASSES), (3, size, size)) for name, (make, size) in NETS.items()
    }
    for name, (make, shape) in (SMALL | shapes).items():
        net = partial(export, make=make, shape=shape)
        yield f"torch-ts-{name}", partial(net, batch=3, dynamo=False)
        yield f"torch-dynamo-{name}", partial(net, batch=3, dynamo=True)
        if name in ("small_cnn", "lstm", "resnet18", "mobilenet_v2", "shufflenet_v2_x1_0", "vit_b_32"):
            yield f"torch-ts-{name}-batch1", partial(net, batch=1, dynamo=False)
            yield f"torch-dynamo-{name}-batch1", partial(net, batch=1, dynamo=True)
    for name, opset in (
        ("small_softmax", 9), ("resnet18", 11), ("small_cnn", 11), ("mobilenet_v2", 13), ("lstm", 13), ("vit_b_32", 14),
        ("convnext_tiny", 17), ("small_cnn", 17), ("efficientnet_b0", 18), ("gru", 18),
    ):  # fmt: skip
        make, shape = (SMALL | shapes)[name]
        yield (
            f"torch-ts-{name}-opset{opset}",
            partial(export, make=make, shape=shape, batch=3, dynamo=False, opset_version=opset),
        )
    for name in ("resnet18", "small_cnn"):  # BatchNorm and Dropout left in the graph
        make, shape = (SMALL | shapes)[name]
        kept = {"training": torch.onnx.TrainingMode.PRESERVE, "do_constant_folding": False}
        yield (
            f"torch-ts-{name}-preserved",
            partial(export, make=make, shape=shape, batch=3, dynamo=False, **kept),
        )


if __name__ == "__main__":
    export_all(exports())
