"""What the export scripts share: where files go, and the pair of input and output beside each.

These scripts run in other environments than mothkit's, so nothing of it is imported here.
"""

from __future__ import annotations

import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

OUT = Path(__file__).parents[2] / "build" / "frameworks" / "out"
CLASSES = 10
SEED = 7

Export = Callable[[Path], tuple[Sequence[Any], Sequence[Any]]]
"""Writes a model to a path; returns an input for each of its inputs, and what the framework answers."""


def images(*shape: int) -> Any:
    """Return float32 images in [0, 1)."""
    return np.random.default_rng(SEED).random(shape, dtype=np.float32)


def export_all(exports: Iterable[tuple[str, Export]]) -> None:
    """Write each model and its pair, those alone whose name begins with an argument where there are any.

    A model that its framework cannot export is told and passed over.
    """
    warnings.simplefilter("ignore")  # exporters warn of their own ways
    OUT.mkdir(parents=True, exist_ok=True)
    wanted = tuple(sys.argv[1:])
    failed = 0
    for name, export in exports:
        path = OUT / f"{name}.onnx"
        pair = path.with_suffix(".npz")
        if pair.exists() or (wanted and not name.startswith(wanted)):
            continue
        try:
            inputs, outputs = export(path)
        except (Exception, SystemExit) as error:  # whatever an exporter stumbles over
            failed += 1
            path.unlink(missing_ok=True)
            print(f"{name}: not exported ({type(error).__name__}: {str(error).splitlines()[:1]})")
            traceback.print_exc(limit=-3)
            continue
        arrays = {f"input_{i}": np.asarray(x) for i, x in enumerate(inputs)}
        arrays |= {f"output_{i}": np.asarray(y) for i, y in enumerate(outputs)}
        np.savez(pair, **arrays)
        print(f"{name}: {path.stat().st_size} bytes", flush=True)
    sys.exit(1 if failed else 0)
