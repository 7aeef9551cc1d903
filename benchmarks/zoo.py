"""How many ONNX files of a folder go the whole way: into torch, trained, and back into the same graph.

Run: ``python benchmarks/zoo.py FOLDER``
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from frameworks.measure import agree, outputs_of, steps

from mothkit_converters import BoundModule, ConversionError, Source, read_source, to_torch

DTYPES = {"float": "f4", "float16": "f2", "double": "f8", "bool": "?", "uint8": "u1"}
DTYPES |= {f"int{bits}": f"i{bits // 8}" for bits in (8, 16, 32, 64)}
Array = np.ndarray[Any, Any]
WAY = (
    "converts",
    "equals onnxruntime",
    "all trainable",
    "loss falls",
    "written back",
    "equal again",
    "four times the batch",
)


@dataclass(frozen=True, slots=True)
class Row:
    """What holds for one file, and the first thing that does not."""

    file: str
    held: dict[str, bool]
    why: str


def inputs_of(source: Source, batch: int) -> list[Any]:
    """Return random inputs in [0, 1); an unknown first dimension is ``batch``, another one 64."""
    generator = np.random.default_rng(0)
    drawn = []
    for value in source.inputs:
        dims = [dim if isinstance(dim, int) and dim > 0 else 64 for dim in (value.shape or ())]
        shape = [batch, *dims[1:]]
        drawn.append(generator.random(shape).astype(DTYPES[value.dtype or "float"]))
    return drawn


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
    return all(_is_joined(y, [part[k] for part in parts]) for k, y in enumerate(together))


def _is_joined(whole: Array, parts: Sequence[Array]) -> bool:
    """Return whether ``whole`` is ``parts`` one after the other, along the axis that is four times theirs."""
    if whole.ndim == parts[0].ndim + 1:
        return agree([whole], [np.stack(parts)])
    axes = [axis for axis, size in enumerate(whole.shape) if size == 4 * parts[0].shape[axis]]
    return len(axes) == 1 and agree([whole], [np.concatenate(parts, axes[0])])


def measure(path: Path) -> Row:
    """Return what holds for one file."""
    held: dict[str, bool] = {}
    why = ""
    try:
        source = read_source(path)
        for name, holds, words in steps(path, inputs_of(source, fixed_batch(source))):
            held[name.replace("_", " ")] = holds
            why = why or ("" if holds else words)
        held["four times the batch"] = batches_agree(to_torch(source, allow_unbound=True), source)
    except ConversionError as error:
        why = why or f"{type(error).__name__}: {str(error).removeprefix(f'{path}: ')}"
    except Exception as error:  # a crash is a row as well
        why = why or f"crash: {type(error).__name__}: {str(error)[:200]}"
    return Row(path.name, held, why)


def measured(folder: Path) -> Iterator[Row]:
    """Yield what holds for each file in ``folder`` and below."""
    ort.set_default_logger_severity(4)
    torch.manual_seed(0)
    for path in sorted(folder.rglob("*.onnx")):
        yield measure(path)


def summary(rows: Sequence[Row]) -> str:
    counts = Counter(step for row in rows for step, holds in row.held.items() if holds)
    return "\n".join(f"{step:24} {counts[step]:4} of {len(rows)}" for step in WAY)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    rows = []
    for row in measured(parser.parse_args().folder):
        rows.append(row)
        lacking = [step for step in WAY if not row.held.get(step)]
        print(
            f"{row.file:32} {'but not: ' + ', '.join(lacking) if lacking else 'all'} {row.why[:140]}",
            flush=True,
        )
    print(summary(rows))


if __name__ == "__main__":
    main()
