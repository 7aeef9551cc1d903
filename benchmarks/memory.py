"""Peak memory of reading, importing and writing back a file, over its size with external data.

Run: ``python benchmarks/memory.py [--sizes 100 500]``. Each step of each file runs in a process of its own; the peak is
the kernel's high-water mark above that of the idle process. The bound is four times the files and 200 MB.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

MB = 10**6
STEPS = ("read_source", "to_torch", "write_back")
LAYOUTS = ("raw", "external", "typed", "constant", "half", "one")


def make(folder: Path, size: int, layout: str) -> Path:
    """Write a chain of dense layers with about ``size`` bytes of weights, and return its path."""
    count = 1 if layout == "one" else 10
    width = round((size / count / (2 if layout == "half" else 4)) ** 0.5)
    element = TensorProto.FLOAT16 if layout == "half" else TensorProto.FLOAT
    generator = np.random.default_rng(0)
    nodes, weights, value = [], [], "x"
    for i in range(count):
        values = generator.standard_normal((width, width), dtype=np.float32)
        tensor = numpy_helper.from_array(values.astype(np.float16) if layout == "half" else values, f"w{i}")
        if layout == "typed":
            tensor = helper.make_tensor(f"w{i}", element, values.shape, values.ravel())
        if layout == "constant":
            nodes.append(helper.make_node("Constant", [], [f"w{i}"], value=tensor))
        else:
            weights.append(tensor)
        nodes += [
            helper.make_node("MatMul", [value, f"w{i}"], [f"m{i}"]),
            helper.make_node("Relu", [f"m{i}"], [f"r{i}"]),
        ]
        value = f"r{i}"
    inputs = [helper.make_tensor_value_info("x", element, ["N", width])]
    outputs = [helper.make_tensor_value_info(value, element, ["N", width])]
    graph = helper.make_graph(nodes, "dense", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = folder / "model.onnx"
    outside = {"save_as_external_data": True, "location": "weights.bin"} if layout == "external" else {}
    onnx.save(model, path, **outside)
    return path


def peak() -> int:
    """Return the highest resident set of this process so far, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def work(path: Path, step: str) -> None:
    """Print by how many bytes the peak rises over the idle process."""
    import torch

    from mothkit_converters import read_source, to_torch, write_back

    small = path.with_name("small.onnx")  # everything is loaded and warm before the idle peak is taken
    write_back(to_torch(small), path.with_name("same.onnx"))
    idle = peak()
    source = read_source(path)
    if step != "read_source":
        bound = to_torch(source)
    if step == "write_back":
        with torch.no_grad():
            for parameter in bound.parameters():
                parameter.add_(1)
        (path.parent / "out").mkdir(exist_ok=True)
        write_back(bound, path.parent / "out" / "out.onnx")
    print(peak() - idle)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 500], help="MB of weights")
    parser.add_argument("--layouts", nargs="+", default=LAYOUTS, choices=LAYOUTS)
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(Path(options.work[0]), options.work[1])
        return
    print(f"{'weights':10} {'MB':>6}  " + "  ".join(f"{step:>18}" for step in STEPS))
    for layout in options.layouts:
        for size in options.sizes:
            with tempfile.TemporaryDirectory() as folder:
                (Path(folder) / "small").mkdir()
                make(Path(folder) / "small", 10_000, "raw").rename(Path(folder) / "small.onnx")
                path = make(Path(folder), size * MB, layout)
                weight = sum(file.stat().st_size for file in path.parent.iterdir() if file.is_file())
                told = []
                for step in STEPS:
                    command = [sys.executable, __file__, "--work", str(path), step]
                    run = subprocess.run(command, capture_output=True, text=True, check=False)
                    if run.returncode:
                        told.append(f"{run.stderr.strip().splitlines()[-1][-40:]:>18}")
                        continue
                    used = int(run.stdout)
                    held = "" if used <= 4 * weight + 200 * MB else "!"
                    told.append(f"{used / MB:8.0f} {used / weight:7.2f}x{held or ' '}")
                print(f"{layout:10} {weight / MB:6.0f}  " + "  ".join(told), flush=True)


if __name__ == "__main__":
    main()
