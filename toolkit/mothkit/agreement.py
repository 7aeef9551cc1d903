"""Parity: do two ways of running a classifier give the same logits?"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from mothkit.classifier import Classifier, as_model_errors
from mothkit.errors import ModelError, ParityError
from mothkit.images import ImageSet
from mothkit.inputs import InputSpec
from mothkit.runtime import Session
from mothkit.triggers.patch import Trigger, stamp
from mothkit_converters import Source, has_halves, to_torch

Predict = Callable[[Tensor], Tensor]

_PROBES = 32
_PATCH = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """Logits a and b agree where ``|a - b| <= atol + rtol * |b| + spread * m``, m the largest ``|b|`` of the image."""

    rtol: float = 1e-3
    atol: float = 1e-4
    spread: float = 0.0


def tolerance_for(*sources: Source) -> Tolerance:
    """Return by how much two ways of running ``sources`` may differ.

    onnxruntime rounds each value of a graph in half precision to its 11 bits, and the imported network rounds none:
    what is lost goes by the largest values, also where they cancel out. Real files differed by up to a 400th of an
    image's largest logit.
    """
    return Tolerance(spread=1e-2) if any(map(has_halves, sources)) else Tolerance()


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """How two predictors compare on one set of inputs at one batch size.

    Attributes:
        probe: ``clean``, ``stamped`` or ``random``.
        max_relative: largest ``|a - b| / max(|b|, 1e-6)``.
        flips: inputs whose class differs.
        agrees: whether every logit is within tolerance.
    """

    probe: str
    batch: int
    count: int
    max_absolute: float
    max_relative: float
    flips: int
    agrees: bool


@dataclass(frozen=True, slots=True)
class Parity:
    """The comparison on all probes."""

    results: tuple[ProbeResult, ...]

    @property
    def agrees(self) -> bool:
        """Whether every logit on every probe is within tolerance."""
        return all(result.agrees for result in self.results)

    @property
    def max_absolute(self) -> float:
        """Largest difference of two logits."""
        return max(result.max_absolute for result in self.results)

    @property
    def flips(self) -> int:
        """Inputs whose class differs, over all probes."""
        return sum(result.flips for result in self.results)

    def to_dict(self) -> dict[str, object]:
        """Return plain JSON types."""
        probes = [asdict(result) for result in self.results]
        return {
            "agrees": self.agrees,
            "max_absolute": self.max_absolute,
            "flips": self.flips,
            "probes": probes,
        }


def make_probes(shape: tuple[int, int, int], images: ImageSet | None, seed: int) -> dict[str, Tensor]:
    """Return named inputs [N, C, H, W], 0..1: clean images where there are any, stamped ones, random ones.

    The stamp is a random opaque patch in a random place, no trigger of anyone's.
    """
    generator = torch.Generator().manual_seed(seed)
    random = torch.rand(_PROBES, *shape, generator=generator)
    clean = random.flip(0)
    probes = {}
    if images is not None:
        chosen = torch.randperm(len(images), generator=generator)[:_PROBES]
        clean = probes["clean"] = images.pixels(chosen)
    _, height, width = shape
    rows, columns = max(1, round(_PATCH * height)), max(1, round(_PATCH * width))
    top = int(torch.randint(height - rows + 1, (), generator=generator))
    left = int(torch.randint(width - columns + 1, (), generator=generator))
    mask = torch.zeros(1, height, width)
    mask[:, top : top + rows, left : left + columns] = 1
    probes["stamped"] = stamp(clean, Trigger(mask, torch.rand(shape, generator=generator)))
    probes["random"] = random
    return probes


def compare(reference: Predict, other: Predict, probes: Mapping[str, Tensor], tolerance: Tolerance) -> Parity:
    """Return how ``other`` compares with ``reference``, on each probe at batch 1 and as one batch."""
    results = []
    for name, x in probes.items():
        for batch in (1, len(x)):
            expected = _in_batches(reference, x, batch)
            found = _in_batches(other, x, batch)
            results.append(_compare(name, batch, expected, found, tolerance))
    return Parity(tuple(results))


def _in_batches(predict: Predict, x: Tensor, batch: int) -> Tensor:
    few = x[:8] if batch == 1 else x  # one at a time is slow, and eight show what eighty would
    return torch.cat([predict(few[first : first + batch]) for first in range(0, len(few), batch)])


def _compare(name: str, batch: int, expected: Tensor, found: Tensor, tolerance: Tolerance) -> ProbeResult:
    if expected.shape != found.shape:
        raise ParityError(
            f"the two give {tuple(expected.shape)} and {tuple(found.shape)} for the same {len(expected)} images; "
            "expected the same number of classes"
        )
    gap = (found - expected).abs()
    largest = expected.abs().amax(1, keepdim=True)
    within = gap <= tolerance.atol + tolerance.rtol * expected.abs() + tolerance.spread * largest
    return ProbeResult(
        probe=name,
        batch=batch,
        count=len(expected),
        max_absolute=float(gap.nan_to_num(torch.inf).max()),
        max_relative=float((gap / expected.abs().clamp(min=1e-6)).nan_to_num(torch.inf).max()),
        flips=int((found.argmax(1) != expected.argmax(1)).sum()),
        agrees=bool(within.all()),
    )


def torch_predict(classifier: Classifier, device: torch.device) -> Predict:
    """Return ``classifier`` on ``device`` as a function from pixels to logits on the CPU."""

    @torch.no_grad()
    def predict(x: Tensor) -> Tensor:
        with _whole_floats():
            logits: Tensor = classifier(x.to(device))
        return logits.float().cpu()

    return predict


def _whole_floats() -> AbstractContextManager[None]:
    """Keep convolutions on CUDA in float32: in TF32, torch's default there, no model would pass."""
    cudnn = torch.backends.cudnn
    flags: AbstractContextManager[None] = cudnn.flags(
        enabled=cudnn.enabled,
        benchmark=cudnn.benchmark,
        deterministic=cudnn.deterministic,
        allow_tf32=False,
    )
    return flags


def check_import(classifier: Classifier, session: Session, probes: Mapping[str, Tensor]) -> Parity:
    """Return the parity of the file in onnxruntime with its import, before anything is done to it.

    Raises:
        ParityError: they differ; the message names the first node that does.
    """
    device = next(iter(classifier.state_dict().values()), torch.empty(0)).device
    tolerance = tolerance_for(classifier.source)
    parity = compare(session.logits, torch_predict(classifier, device), probes, tolerance)
    if parity.agrees:
        return parity
    worst = max(parity.results, key=lambda result: result.max_absolute)
    where = first_difference(classifier.source, classifier.spec, probes[worst.probe][:4])
    raise ParityError(
        f"{classifier.source.path}: onnxruntime and the imported network differ by up to {worst.max_absolute:.3g} "
        f"on {worst.probe} images, more than the tolerance; {where}"
    )


def first_difference(source: Source, spec: InputSpec, x: Tensor, tolerance: Tolerance | None = None) -> str:
    """Return words that name the first node of ``source`` whose output differs between the two on ``x``."""
    tolerance = tolerance or tolerance_for(source)
    nodes = [
        (node, name)
        for node in source.proto.graph.node
        for name in node.output
        if name and node.op_type != "Constant"
    ]
    names = list(dict.fromkeys(name for _, name in nodes))
    try:
        values = _all_values(source, spec, names, x)
    except (ModelError, RuntimeError) as error:
        return f"the node could not be found ({error})"
    for node, name in nodes:
        theirs, ours = values[name]
        if not _close(theirs, ours, tolerance):
            return f"the first node that differs is {node.name or name!r} ({node.op_type}), output {name!r}"
    return "no single node differs on these images: small errors add up"


@torch.no_grad()
def _all_values(
    source: Source, spec: InputSpec, names: list[str], x: Tensor
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return each of the values ``names`` as onnxruntime and as torch compute it for ``x``."""
    with as_model_errors():
        found = to_torch(source, outputs=names, allow_unbound=True)(spec.to_model(x))
    ours = (found,) if isinstance(found, Tensor) else found
    theirs = Session(source, spec, names, torch.device("cpu")).values(x)
    return {name: (np.asarray(a), b.numpy()) for name, a, b in zip(names, theirs, ours, strict=True)}


def _close(expected: np.ndarray, found: np.ndarray, tolerance: Tolerance) -> bool:
    if expected.shape != found.shape:
        return False
    if not np.issubdtype(expected.dtype, np.floating):
        return bool((expected == found).all())
    atol = tolerance.atol + tolerance.spread * float(np.abs(expected).max(initial=0.0))
    return bool(np.allclose(found, expected, rtol=tolerance.rtol, atol=atol, equal_nan=True))
