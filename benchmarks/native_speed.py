"""How fast imported networks run against the torchvision modules that they were exported from.

Run: ``python benchmarks/native_speed.py [MODEL ...] [--size 64] [--batch 32] [--compile]``

Both run in turn, forward alone and forward with backward, in eval mode (BatchNorm kept as a layer). The ratio
is imported / native, of the medians; ``--compile`` says whether torch.compile(fullgraph=True) takes the import.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn

from mothkit_converters import to_torch

MODELS = (
    "resnet18",
    "mobilenet_v2",
    "densenet121",
    "shufflenet_v2_x1_0",
    "efficientnet_b0",
    "vit_b_32",
)


def built(name: str, size: int) -> nn.Module:
    torch.manual_seed(0)
    settings = {"image_size": size} if name.startswith("vit") else {}
    return torchvision.models.get_model(name, weights=None, **settings).eval()


def imported(network: nn.Module, size: int) -> nn.Module:
    """Return ``network`` after a way through a file that keeps its BatchNorm."""
    for module in network.modules():  # equal tensors would become one initializer
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                tensor.data += 0.1 * torch.rand_like(tensor)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "model.onnx"
        torch.onnx.export(
            network,
            (torch.randn(2, 3, size, size),),
            path,
            dynamo=False,
            opset_version=17,
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
            input_names=["x"],
            dynamic_axes={"x": {0: "N"}},
        )
        return to_torch(path)


def forward(network: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        network(x)


def backward(network: nn.Module, x: Tensor) -> None:
    network.zero_grad()
    network(x).square().mean().backward()


def ratio(
    work: Callable[[nn.Module, Tensor], None], ours: nn.Module, theirs: nn.Module, x: Tensor, repeats: int
) -> float:
    """Return how much longer ``ours`` takes, by the medians of turns taken alternately."""
    times: dict[str, list[float]] = {"ours": [], "theirs": []}
    for turn in range(repeats + 1):
        for name, network in (("ours", ours), ("theirs", theirs)):
            start = time.perf_counter()
            work(network, x)
            if x.is_cuda:
                torch.cuda.synchronize()
            if turn:
                times[name].append(time.perf_counter() - start)
    return statistics.median(times["ours"]) / statistics.median(times["theirs"])


def compiles(network: nn.Module, x: Tensor) -> str:
    """Return whether torch.compile traces ``network`` whole, and gives the same."""
    torch._dynamo.reset()  # noqa: SLF001 - nothing public does it
    try:
        with torch.no_grad():
            found = torch.compile(network, fullgraph=True)(x)
            torch.testing.assert_close(found, network(x), rtol=1e-3, atol=1e-4)
    except Exception as error:
        return f"no: {type(error).__name__}"
    return "yes"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print("| model | forward | forward and backward | compiles |\n|---|---|---|---|")
    for name in options.models:
        native = built(name, options.size)
        ours = imported(native, options.size).to(options.device)
        x = torch.randn(options.batch, 3, options.size, options.size, device=options.device)
        native.to(options.device)
        ahead, both = (ratio(work, ours, native, x, options.repeats) for work in (forward, backward))
        compiled = compiles(ours, x) if options.compile else "not tried"
        print(f"| {name} | {ahead:.2f} | {both:.2f} | {compiled} |", flush=True)


if __name__ == "__main__":
    main()
