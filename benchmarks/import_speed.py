"""Seconds to import a ResNet-50 file of 100 MB, side by side with onnx2torch alone.

Run: ``OMP_NUM_THREADS=2 python benchmarks/import_speed.py [--repeats 7]``. Both begin at the file: ``read_source`` and
``to_torch`` here, ``onnx.load`` and ``onnx2torch.convert`` there. They take turns; the ratio is that of the medians.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import onnx
import onnx2torch
import torch
import torchvision

from mothkit_converters import read_source, to_torch


def export(path: Path, name: str) -> None:
    """Write torchvision's model ``name`` with random weights, by torch's TorchScript exporter."""
    torch.manual_seed(0)
    model = getattr(torchvision.models, name)().eval()
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.dim() == 1:
            tensor.data.uniform_(
                0.5, 1.5
            )  # equal tensors are stored once, and onnx2torch does not follow that
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (torch.zeros(1, 3, 224, 224),), path, dynamo=False, opset_version=17)


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="resnet50", help="a model of torchvision")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export(path, options.model)
        works: dict[str, Callable[[], object]] = {
            "read_source": lambda: read_source(path),
            "read_source + to_torch": lambda: to_torch(read_source(path)),
            "onnx.load + onnx2torch.convert": lambda: onnx2torch.convert(onnx.load(path)),
        }
        for work in works.values():
            work()  # loads what is loaded once
        taken: dict[str, list[float]] = {name: [] for name in works}
        for _ in range(options.repeats):
            for name, work in works.items():
                taken[name].append(seconds(work))
        print(f"{options.model}, {path.stat().st_size / 1e6:.0f} MB, {options.repeats} repeats")
    for name, times in taken.items():
        print(f"{name:32} median {statistics.median(times):.2f} s, fastest {min(times):.2f} s")
    ours, theirs = (taken[name] for name in list(works)[1:])
    print(
        f"ratio of the medians {statistics.median(ours) / statistics.median(theirs):.2f}, "
        f"of the fastest {min(ours) / min(theirs):.2f}"
    )


if __name__ == "__main__":
    main()
