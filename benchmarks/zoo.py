"""How many ONNX files of a folder import, agree with onnxruntime, train whole, and come back the same.

Run: ``python benchmarks/zoo.py FOLDER``
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch

from mothkit_converters import BoundModule, ConversionError, Source, read_source, to_torch, write_back

DTYPES = {"float": np.float32, "float16": np.float16, "double": np.float64, "int64": np.int64}
TOLERANCE = 1e-4  # absolute and relative; files in half precision miss it honestly


def inputs_of(source: Source, batch: int) -> list[Any]:
    """Return random inputs in [0, 1); an unknown first dimension is ``batch``, another one 64."""
    generator = np.random.default_rng(0)
    drawn = []
    for value in source.inputs:
        dims = [dim if isinstance(dim, int) and dim > 0 else 64 for dim in (value.shape or ())]
        shape = [batch, *dims[1:]]
        drawn.append(generator.random(shape).astype(DTYPES.get(value.dtype or "", np.float32)))
    return drawn


def outputs_of(bound: BoundModule, inputs: list[Any]) -> list[Any]:
    given = (torch.from_numpy(x.astype(np.float32) if x.dtype == np.float16 else x) for x in inputs)
    with torch.no_grad():
        found = bound(*given)
    return [y.numpy() for y in (found if isinstance(found, tuple) else (found,))]


def agrees(found: list[Any], expected: list[Any]) -> bool:
    return all(
        np.allclose(a, b, rtol=TOLERANCE, atol=TOLERANCE) for a, b in zip(found, expected, strict=True)
    )


def fixed_batch(source: Source) -> int:
    first = (source.inputs[0].shape or (1,))[0]
    return first if isinstance(first, int) and first > 0 else 1


def batches_agree(bound: BoundModule, source: Source) -> bool:
    """Return whether four times the batch gives what its quarters give one by one."""
    size = fixed_batch(source)
    whole = inputs_of(source, 4 * size)
    try:
        together = outputs_of(bound, whole)
        parts = [outputs_of(bound, [x[i : i + size] for x in whole]) for i in range(0, 4 * size, size)]
    except (ConversionError, RuntimeError, TypeError):
        return False
    if any(y.ndim == 0 or len(y) % 4 for y in together):
        return False
    return all(agrees([np.split(y, 4)[i] for y in together], part) for i, part in enumerate(parts))


def measure(path: Path) -> dict[str, bool]:
    """Return what holds for one file."""
    source = read_source(path)
    bound = to_torch(source, allow_unbound=True)
    inputs = inputs_of(source, fixed_batch(source))
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    expected = session.run(None, dict(zip((value.name for value in source.inputs), inputs, strict=True)))
    with tempfile.TemporaryDirectory() as folder:
        write_back(bound, Path(folder) / "same.onnx")
        same = (Path(folder) / "same.onnx").read_bytes() == path.read_bytes()
    return {
        "converts": True,
        "equals onnxruntime": agrees(outputs_of(bound, inputs), expected),
        "all trainable": not bound.unbound and any(True for _ in bound.parameters()),
        "larger batch": batches_agree(bound, source),
        "comes back the same": same,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    files = sorted(parser.parse_args().folder.rglob("*.onnx"))
    ort.set_default_logger_severity(4)
    counts: Counter[str] = Counter()
    for path in files:
        try:
            held = measure(path)
        except ConversionError as error:
            print(f"{path.name:32} {type(error).__name__}: {str(error).removeprefix(f'{path}: ')[:90]}")
            continue
        counts.update(name for name, holds in held.items() if holds)
        lacking = [name for name, holds in held.items() if not holds]
        print(f"{path.name:32} {'but not: ' + ', '.join(lacking) if lacking else 'all'}")
    for name, count in counts.items():
        print(f"{name:24} {count:4} of {len(files)}")


if __name__ == "__main__":
    main()
