"""Where a classifier's logits are: the tensor before a final Softmax, LogSoftmax or ArgMax."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onnx import NodeProto

from mothkit_converters.shapes import inferred, known_dims
from mothkit_converters.source import Source

STRIPPED = frozenset({"Softmax", "LogSoftmax", "ArgMax"})
ORDER_KEPT = frozenset({"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Cast", "Dropout"})


@dataclass(frozen=True, slots=True)
class Head:
    """How a classifier ends.

    Attributes:
        value: Name of the value that is the logits.
        output: The graph output that it was found from.
        stripped: Operators between them that were taken off, last first.
        classes: Number of classes, where the graph's shapes say it.
    """

    value: str
    output: str
    stripped: tuple[str, ...]
    classes: int | None


def logits_value(source: Source) -> str:
    """Return the name of the value that holds the logits of ``source``."""
    return find_head(source).value


def find_head(source: Source) -> Head:
    """Return how ``source`` ends; of several outputs, the first that is a score per class.

    Scores before a Softmax come first, then an output that is taken as it is, then what an ArgMax picks from:
    a graph that returns label and scores is entered through its scores.
    """
    graph = source.proto.graph
    producers = {name: node for node in graph.node for name in node.output}
    shapes = known_dims(inferred(source.proto).graph)
    heads = [_trace(info.name, producers, shapes) for info in graph.output]
    return min(heads, key=_preference)


def _preference(head: Head) -> int:
    if "Softmax" in head.stripped or "LogSoftmax" in head.stripped:
        return 0
    if head.classes is not None and head.classes > 1 and not head.stripped:
        return 1
    return 2 if head.stripped else 3


def _trace(output: str, producers: dict[str, NodeProto], shapes: Mapping[str, Sequence[int]]) -> Head:
    """Walk from ``output`` back through what keeps the order of elements."""
    logits, stripped, value = output, [], output
    while (node := producers.get(value)) is not None and node.op_type in STRIPPED | ORDER_KEPT:
        value = node.input[0]
        if node.op_type in STRIPPED:
            logits = value
            stripped.append(node.op_type)
    return Head(logits, output, tuple(stripped), _classes(shapes.get(logits)))


def _classes(shape: Sequence[int] | None) -> int | None:
    """Return how many scores an image gets from a value of ``shape`` (0 is unknown), None where unclear."""
    if shape is None or len(shape) < 2 or 0 in shape[1:]:
        return None
    scores = math.prod(shape[1:])
    return scores if scores == max(shape[1:]) else None
