"""Whether a network that was made for one batch size keeps images apart at another.

A file of batch one may well take an axis for its tokens, its channels or its single image: at another size the
same operators run across images, and no shape tells. So the network is asked: images together, and alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from onnx import GraphProto
from torch import Tensor, nn

from mothkit_converters.scopes import all_nodes

_ROUNDING = 1e-3  # of the largest number: what other kernels for another size may change
_STEPS = 0.1  # of what sets images apart: what a step to another integer may change, or a scale for all
_STEPPING = frozenset({"Ceil", "Floor", "Round", "Sign"})


def steps(graph: GraphProto) -> bool:
    """Return whether ``graph`` rounds, so that next to nothing can make a difference."""
    ops = {node.op_type for node in all_nodes(graph)}
    return any(op in _STEPPING or "Quantize" in op or op.startswith("QLinear") for op in ops)


def mixes(
    network: nn.Module, inputs: Sequence[Tensor], size: int, places: Sequence[int], *, stepping: bool
) -> bool | None:
    """Return whether images come out otherwise together than alone; None if these images cannot tell.

    At most two batches of the file's own size are tried, in eval mode; ``network`` is left as it was.

    Args:
        network: Returns a tuple of tensors.
        inputs: What it takes, of another batch size.
        size: The batch size that the file fixes.
        places: Which inputs have the batch first.
        stepping: Whether the network rounds.
    """
    count = min(len(inputs[places[0]]), 2 * size)
    starts = range(0, count, size)
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.no_grad():
            together = network.forward(*_rows(inputs, places, range(count)))
            chunks = [[(start + i) % count for i in range(size)] for start in starts]
            alone = [network.forward(*_rows(inputs, places, chunk)) for chunk in chunks]
    finally:
        for module, mode in modes.items():
            module.training = mode
    found = [
        _mixed(whole, parts, size, count, _STEPS if stepping else 0.0)
        for whole, *parts in zip(together, *alone, strict=True)
    ]
    return True if True in found else False if False in found else None


def _rows(inputs: Sequence[Tensor], places: Sequence[int], rows: Sequence[int]) -> list[Tensor]:
    return [x[list(rows)] if place in places else x for place, x in enumerate(inputs)]


def _mixed(whole: Tensor, parts: Sequence[Tensor], size: int, count: int, share: float) -> bool | None:
    """Return the same for one output: ``whole`` of ``count`` images, ``parts`` of ``size`` each."""
    alike = [_expected(parts, count, axis) for axis in range(parts[0].dim()) if parts[0].shape[axis] == size]
    alike += [torch.stack(list(parts))] if size == 1 else []  # an axis that was squeezed away
    apart = max((_distance(part, parts[0]) for part in parts[1:]), default=0.0)
    same = len(parts) > 1 and apart == 0  # the images may be one, or nothing come of them
    fits = [expected for expected in (*alike, *parts[:same]) if expected.shape == whole.shape]
    if whole.is_floating_point():  # labels may change where two are next to equal
        bound = _ROUNDING * max(float(part.abs().max()) for part in parts) + share * apart
        fits = [expected for expected in fits if not _distance(whole, expected) > bound]
    return (None if same else False) if fits else True


def _expected(parts: Sequence[Tensor], count: int, axis: int) -> Tensor:
    """Return ``parts`` one after the other, without what only fills the last."""
    return torch.cat(list(parts), axis).narrow(axis, 0, count)


def _distance(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).abs().max()) if a.numel() else 0.0
