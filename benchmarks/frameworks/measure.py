"""What mothkit makes of each exported file, the whole way: into torch, trained, and back into the same graph.

Run: ``python benchmarks/frameworks/measure.py [--json FILE] [NAME ...]`` after ``make frameworks``
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from torch import Tensor

from mothkit_converters import (
    BoundModule,
    ConversionError,
    Head,
    Source,
    diff,
    expose,
    find_head,
    read_source,
    to_torch,
    write_back,
)

OUT = Path(__file__).parents[2] / "build" / "frameworks" / "out"
TOLERANCE = 1e-4  # absolute and relative
HALF_TOLERANCE = 2e-3  # of float16: two units in the last place
STEPS = 20
RATES = (1e-2, 1e-3, 1e-4, 1e-5, 1.0)  # the first that lets the loss fall is enough
WAY = (
    "converts",
    "equals_onnxruntime",
    "equals_framework",
    "all_trainable",
    "loss_falls",
    "written_back",
    "equal_again",
)
REFUSED = ("forest", "tree", "boosting", "lightgbm")
"""What a file's name says where nothing in it has a gradient: to be refused in a sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What holds for one file; False also where an earlier step failed.

    Attributes:
        file: Its name.
        converts: It becomes a torch module.
        equals_onnxruntime: That gives onnxruntime's outputs.
        equals_framework: And those of the framework that made the file.
        all_trainable: Every weight is a parameter, and there are some.
        loss_falls: In 20 steps of SGD.
        written_back: The file with the new weights differs from the old one in weights alone.
        equal_again: In onnxruntime it gives what the trained module gives.
        refused: It was to be refused, and was.
        why: The first thing that failed, or the refusal.
    """

    file: str
    converts: bool = False
    equals_onnxruntime: bool = False
    equals_framework: bool = False
    all_trainable: bool = False
    loss_falls: bool = False
    written_back: bool = False
    equal_again: bool = False
    refused: bool = False
    why: str = ""

    @property
    def whole_way(self) -> bool:
        """Whether all of it holds, or a refusal was right."""
        return self.refused or all(getattr(self, step) for step in WAY)


def rows(files: Sequence[Path] | None = None) -> Iterator[dict[str, Any]]:
    """Yield what holds for each of ``files``; for every exported one unless told otherwise."""
    ort.set_default_logger_severity(4)
    for path in sorted(OUT.glob("*.onnx")) if files is None else files:
        row = measure(path)
        yield {**asdict(row), "whole_way": row.whole_way}


def measure(path: Path) -> Row:
    """Return what holds for one file, up to the first thing that does not."""
    held: dict[str, bool] = {}
    why = ""
    try:
        for name, holds, words in steps(path, *pair(path)):
            held[name] = holds
            why = why or ("" if holds else words)
    except ConversionError as error:
        why = why or f"{type(error).__name__}: {str(error).removeprefix(f'{path}: ')}"
        held["refused"] = "converts" not in held and any(kind in path.stem for kind in REFUSED)
    except Exception as error:  # a crash is a row as well
        why = why or f"crash: {type(error).__name__}: {str(error)[:200]}"
    return Row(file=path.name, why=why.strip(), **held)


def steps(
    path: Path, inputs: Sequence[Any], answers: Sequence[Any] | None = None
) -> Iterator[tuple[str, bool, str]]:
    """Yield what holds, step by step, with words on what does not; ``answers`` are the framework's own."""
    source = read_source(path)
    head = find_head(source)
    names = outputs_to_compare(source, head)
    bound = to_torch(source, outputs=names, allow_unbound=True)
    yield "converts", True, ""
    found, expected = outputs_of(bound, inputs), run(source, names, inputs)
    yield "equals_onnxruntime", agree(found, expected), f"onnxruntime: {gap(found, expected)}"
    if answers is not None:
        numbers = [y for y in answers if y.dtype.kind == "f"]
        ours = [y for y in found if y.dtype.kind == "f"]
        same = all(any(agree([y], [x]) for x in ours) for y in numbers)
        yield "equals_framework", same, f"framework: {gap(ours, numbers)}"
    some = any(True for _ in bound.parameters())
    words = f"untrainable: {', '.join(bound.unbound[:4])}" if some else "it has no parameter"
    yield "all_trainable", some and not bound.unbound, words
    trained, why = train(source, names, head, inputs)
    yield "loss_falls", trained is not None, why
    if trained is None:
        return
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / path.name
        write_back(trained, written)
        difference = diff(path, written)
        words = "; ".join(difference.differences) or "no weight changed"
        yield "written_back", difference.only_weights and bool(difference.changes), words
        after, again = outputs_of(trained, inputs), run(read_source(written), names, inputs)
        yield "equal_again", agree(after, again), f"written: {gap(after, again)}"


def pair(path: Path) -> tuple[list[Any], list[Any]]:
    """Return the inputs and outputs that the framework left beside the file."""
    with np.load(path.with_suffix(".npz")) as held:
        inputs = [held[name] for name in held.files if name.startswith("input")]
        return inputs, [held[name] for name in held.files if name.startswith("output")]


def outputs_to_compare(source: Source, head: Head) -> list[str]:
    """Return the outputs that are no words, and the logits."""
    names = [value.name for value in source.outputs if value.dtype != "string"]
    return names if head.value in names else [*names, head.value]


def tensors_for(bound: BoundModule, inputs: Sequence[Any]) -> list[Tensor]:
    """Return those of the file's inputs that the values asked for depend on."""
    named = zip(bound.source.inputs, inputs, strict=True)
    return [torch.from_numpy(x) for value, x in named if value.name in bound.input_names]


def outputs_of(bound: BoundModule, inputs: Sequence[Any]) -> list[Any]:
    with torch.no_grad():
        found = bound(*tensors_for(bound, inputs))
    return [y.numpy() for y in (found if isinstance(found, tuple) else (found,))]


def run(source: Source, names: Sequence[str], inputs: Sequence[Any]) -> list[Any]:
    """Return what onnxruntime gives for ``names``, values within the graph as well."""
    options = ort.SessionOptions()  # its optimiser merges Pad into MaxPool as if zero were the least value
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", str(source.path.parent)
    )
    session = ort.InferenceSession(
        expose(source, names).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    given = dict(zip((value.name for value in source.inputs), inputs, strict=True))
    return [plain(y) for y in session.run(list(names), given)]


def plain(y: Any) -> Any:
    """Return an array of what onnxruntime gives, also where that is maps from label to score."""
    return np.array([list(scores.values()) for scores in y], np.float32) if isinstance(y, list) else y


def agree(found: Sequence[Any], expected: Sequence[Any]) -> bool:
    if len(found) != len(expected):
        return False
    return all(
        a.size == b.size and np.allclose(a, b.reshape(a.shape), rtol=bound, atol=bound)
        for a, b in zip(found, expected, strict=True)
        for bound in [TOLERANCE if a.dtype.itemsize > 2 else HALF_TOLERANCE]
    )


def gap(found: Sequence[Any], expected: Sequence[Any]) -> str:
    if [y.shape for y in found] != [y.shape for y in expected]:
        return f"shapes {[y.shape for y in found]}, expected {[y.shape for y in expected]}"
    gaps = (np.abs(a.astype(float) - b).max(initial=0) for a, b in zip(found, expected, strict=True))
    return f"differs by {max(gaps, default=0):.2g}"


def train(
    source: Source, names: Sequence[str], head: Head, inputs: Sequence[Any]
) -> tuple[BoundModule | None, str]:
    """Return a network that gives ``names`` after 20 steps that made the loss of its logits smaller."""
    losses: list[float] = []
    for rate in RATES:
        bound = to_torch(source, outputs=names, allow_unbound=True)
        if not bound.bindings:
            return None, "nothing to train"
        losses = descend(bound, tensors_for(bound, inputs), names.index(head.value), rate)
        if losses[-1] < losses[0]:
            return bound, ""
    return None, f"loss from {losses[0]:.4g} to {losses[-1]:.4g}"


def descend(bound: BoundModule, given: Sequence[Tensor], index: int, rate: float) -> list[float]:
    """Return the loss before each step of SGD, and after the last, on random labels."""
    optimiser = torch.optim.SGD(bound.parameters(), lr=rate)
    labels: Tensor | None = None
    losses: list[float] = []
    for step in range(STEPS + 1):
        outputs = bound(*given)
        logits = two_logits(outputs[index] if isinstance(outputs, tuple) else outputs)
        if labels is None:
            generator = torch.Generator().manual_seed(0)
            labels = torch.randint(logits.shape[1], (len(logits),), generator=generator)
        loss = torch.nn.functional.cross_entropy(logits, labels)
        losses.append(loss.item())
        if step < STEPS:
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return losses


def two_logits(y: Tensor) -> Tensor:
    """Return logits [N, K] of an output; a single one z stands for [0, z]."""
    y = y.reshape(len(y) if y.dim() else 1, -1).float()
    return torch.cat([torch.zeros_like(y), y], dim=1) if y.shape[1] == 1 else y


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="beginnings of file names")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    names = tuple(arguments.names) or ("",)
    table = []
    for row in rows([path for path in sorted(OUT.glob("*.onnx")) if path.name.startswith(names)]):
        table.append(row)
        print(f"{row['file']:44} {'whole way' if row['whole_way'] else row['why'][:150]}", flush=True)
    for name in (key for key, value in (table[0] if table else {}).items() if isinstance(value, bool)):
        print(f"{name:20} {sum(row[name] for row in table):4} of {len(table)}")
    if arguments.json:
        arguments.json.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
