"""Time and memory of a 43-class matrix: both must follow the chunk that is measured at once, not the matrix.

    OMP_NUM_THREADS=1 python benchmarks/matrix43.py [--pairs 100 200 400 1806] [--steps 3]

A small convolutional network with random weights, 16 random images of 3 x 32 x 32 a class, and few steps, since time
and memory of a step do not depend on what is found. Each row is a process of its own, which measures, keeps its draws
in a folder and writes all results; memory is its highest resident set above that before the first inversion. Writes
its table to docs/distance.md.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import torch
from memory import MB, peak
from onnx import TensorProto, helper, numpy_helper
from pieces import ROOT, table, timed, write_section

from mothkit.classifier import Classifier, import_classifier, open_source
from mothkit.distance import all_directions
from mothkit.events import silent
from mothkit.images import ImageSet
from mothkit.inputs import InputSpec
from mothkit.inversion.config import InversionConfig
from mothkit.matrix.draws import Sampling
from mothkit.matrix.files import write_results
from mothkit.matrix.run import MatrixSettings, Measurement, open_store

CLASSES, SIDE, IMAGES = 43, 32, 16
NAMES = tuple(f"sign {k}" for k in range(CLASSES))


def make(path: Path) -> Path:
    """Write the network: two convolutions of stride 2, mean, dense."""
    generator = np.random.default_rng(0)
    shapes = {"w1": (16, 3, 3, 3), "w2": (32, 16, 3, 3), "w3": (CLASSES, 32)}
    weights = [
        numpy_helper.from_array(generator.standard_normal(shape, dtype=np.float32) / 5, name)
        for name, shape in shapes.items()
    ]
    window = {"strides": [2, 2], "kernel_shape": [3, 3]}
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], **window),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], **window),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("GlobalAveragePool", ["r2"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "w3"], ["y"], transB=1),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", CLASSES])]
    graph = helper.make_graph(nodes, "signs", inputs, outputs, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def opened(folder: Path) -> tuple[Classifier, ImageSet]:
    """Return the network and its images."""
    spec = InputSpec(name="unit", layout="nchw", channels="rgb")
    classifier = import_classifier(open_source(make(folder / "signs.onnx")), spec, (3, SIDE, SIDE))
    x = np.random.default_rng(1).integers(0, 256, (CLASSES * IMAGES, SIDE, SIDE, 3), dtype=np.uint8)
    y = torch.arange(len(x)) % CLASSES
    return classifier, ImageSet.from_arrays(x, y, NAMES, "random images", layout="nhwc")


def measure(pairs: int, steps: int) -> dict[str, float]:
    """Return what a matrix of so many pairs takes: seconds, and bytes of memory."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        classifier, images = opened(folder)
        what = MatrixSettings(
            directions=all_directions(CLASSES)[:pairs],
            inversion=InversionConfig(steps=steps),
            sampling=Sampling(images_per_class=IMAGES, repeats=2),
        )
        measurement = Measurement(classifier, images, what, 0, torch.device("cpu"))
        before = peak()
        with timed() as seconds:
            store = open_store(folder / "draws", measurement, resume=False, emit=silent)
            distances = measurement.run(store, silent)
        inverted = peak()
        record = {"model_in": {"path": "signs.onnx", "sha256": ""}, "time": "", **distances.to_dict()}
        with timed() as writing:
            write_results(folder, distances, record, NAMES)
    memory = {"inverting": inverted - before, "in all": peak() - before}
    return {"draws": pairs + 20, "cpu": seconds["cpu"], "writing": writing["cpu"], **memory}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pairs", type=int, nargs="+", default=[100, 200, 400, 1806])
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--here", action="store_true", help="measure the one in this process")
    options = parser.parse_args()
    if options.here:
        print(json.dumps(measure(options.pairs[0], options.steps)))
        return
    rows = []
    for pairs in options.pairs:
        command = [sys.executable, __file__, "--here", "--steps", str(options.steps), "--pairs", str(pairs)]
        done = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        rows.append(
            [
                str(pairs),
                f"{done['draws']}",
                f"{done['cpu']:.1f} s",
                f"{1000 * done['cpu'] / done['draws']:.1f} ms",
                f"{done['inverting'] / MB:.0f} MB",
                f"{done['writing']:.1f} s",
                f"{done['in all'] / MB:.0f} MB",
            ]
        )
        print(rows[-1], flush=True)
    heading = ("pairs", "inversions", "CPU", "an inversion", "memory", "writing", "memory with it")
    write_section("matrix43", table(heading, rows), ROOT.parent / "docs" / "distance.md")


if __name__ == "__main__":
    main()
