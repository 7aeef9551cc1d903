"""Where a classifier's logits are: the tensor before a final Softmax, Sigmoid, ArgMax or label."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from onnx import ModelProto, NodeProto, ValueInfoProto

from mothkit_converters.attributes import ML
from mothkit_converters.classical import scores_node, scores_value
from mothkit_converters.errors import UnknownValueError
from mothkit_converters.scopes import read_by
from mothkit_converters.shapes import inferred, known_dims
from mothkit_converters.source import Source, Value
from mothkit_converters.tensors import FLOATS, array_of, weight_tensors

PROBABILITIES = frozenset({"LogSoftmax", "Softmax"})
STRIPPED = PROBABILITIES | {"ArgMax", "Hardmax", "Sigmoid", "TopK"}
ORDER_KEPT = frozenset(
    {"Cast", "Dropout", "Flatten", "Identity", "Normalizer", "Reshape", "Squeeze", "Unsqueeze", "ZipMap"}
)
_LOOKUPS = frozenset({"ArrayFeatureExtractor", "Gather"})  # of a label, by its index


@dataclass(frozen=True, slots=True)
class Head:
    """How a classifier ends.

    Attributes:
        value: Name of the value that is the logits.
        output: The output that it was found from.
        stripped: Operators between them that were taken off, last first.
        classes: Number of classes, where the graph's shapes say it; 2 also where there is one logit.
        one_logit: Whether ``value`` is known to be a single logit for each image: that of class 1, where that of
            class 0 is zero.
    """

    value: str
    output: str
    stripped: tuple[str, ...]
    classes: int | None
    one_logit: bool = False


def logits_value(source: Source) -> str:
    """Return the name of the value that holds the logits of ``source``."""
    return find_head(source).value


def find_head(source: Source, output: str | None = None) -> Head:
    """Return how ``source`` ends; of several outputs, the first that is a score per class.

    Scores before a Softmax come first, then an output that is taken as it is or before a Sigmoid, then what an
    ArgMax picks from: a graph that returns label and scores is entered through its scores.

    Args:
        source: The model.
        output: The output to take; any value of the graph will do.

    Raises:
        UnknownValueError: The graph has no value ``output``.
    """
    tail = _Tail(source)
    if output is None:
        return min((tail.head(value.name) for value in source.outputs), key=_preference)
    if output not in tail.producers and output not in {value.name for value in source.inputs}:
        names = ", ".join(f"'{value.name}'" for value in source.outputs)
        raise UnknownValueError(source.path, f"the graph has no value '{output}'; its outputs are {names}")
    return tail.head(output)


def inputs_of(source: Source, values: Sequence[str]) -> tuple[Value, ...]:
    """Return the inputs of ``source`` that these values depend on, in its order.

    A TensorFlow graph may have others: labels, or what only its training read.
    """
    graph = source.proto.graph
    needed = set(values)
    for node in reversed(graph.node):
        scores = {scores_value(node)} if node.op_type == "LinearClassifier" else set()
        if needed.intersection({*node.output, *scores}):
            needed |= read_by(node)
    return tuple(value for value in source.inputs if value.name in needed)


def expose(source: Source, names: Sequence[str]) -> ModelProto:
    """Return a copy of ``source``'s model that shows these values as outputs too, for a runtime to give them.

    External data stay outside.

    Args:
        source: The model.
        names: Values of the graph, and logits that ``find_head`` found: what a LinearClassifier of scikit-learn
            computes before its post_transform has no name in the file, and is computed here by another node.
    """
    model: ModelProto = ModelProto.FromString(source.content)
    shown = {value.name for value in source.outputs}
    linear = [node for node in model.graph.node if node.op_type == "LinearClassifier" and node.domain == ML]
    for node in linear:
        if scores_value(node) in names and scores_value(node) not in node.output:
            model.graph.node.append(scores_node(node))
    hidden = dict.fromkeys(name for name in names if name not in shown)
    model.graph.output.extend(ValueInfoProto(name=name) for name in hidden)
    return model


def _preference(head: Head) -> int:
    if PROBABILITIES.intersection(head.stripped):
        return 0
    if head.classes is not None and not head.one_logit and set(head.stripped) <= {"Sigmoid"}:
        return 1
    return 2 if head.stripped else 3


class _Tail:
    """The way back from a value to the logits that it was made from."""

    def __init__(self, source: Source) -> None:
        graph = source.proto.graph
        self.producers: dict[str, NodeProto] = {name: node for node in graph.node for name in node.output}
        self._stored = weight_tensors(graph)
        self._shapes = known_dims(inferred(source.proto).graph)

    def head(self, output: str) -> Head:
        """Walk from ``output`` back through what keeps the order of scores, or picks the best."""
        logits, value = output, output
        stripped: list[str] = []
        while (step := self._behind(value)) is not None:
            value, taken = step
            if taken:
                logits = value
                stripped += taken
        scores = self._columns(logits)
        return Head(logits, output, tuple(stripped), 2 if scores == 1 else scores, scores == 1)

    def _columns(self, value: str) -> int | None:
        return _scores(self._shapes.get(value))

    def _behind(self, value: str) -> tuple[str, tuple[str, ...]] | None:
        """Return what ``value`` was made from, and the operators that were taken off for it, last first."""
        node = self.producers.get(value)
        if node is None:
            return None
        if node.op_type == "LinearClassifier" and node.domain == ML:
            return self._linear(node, value)
        if node.op_type in _LOOKUPS and node.input[0] in self._stored:
            return node.input[1], ()
        if node.op_type == "Concat":
            return self._two_columns(node)
        if node.op_type == "ReduceMean":
            return self._compared(node)
        if node.op_type in STRIPPED:
            return node.input[0], (node.op_type,)
        return (node.input[0], ()) if node.op_type in ORDER_KEPT else None

    def _linear(self, node: NodeProto, value: str) -> tuple[str, tuple[str, ...]] | None:
        scores = scores_value(node)
        return None if value == scores else (scores, ("LinearClassifier",))

    def _compared(self, node: NodeProto) -> tuple[str, tuple[str, ...]] | None:
        """Return what a training graph's accuracy compares with labels: the one side that weights lead to."""
        inner = self.producers.get(node.input[0])
        while inner is not None and inner.op_type == "Cast":
            inner = self.producers.get(inner.input[0])
        if inner is None or inner.op_type != "Equal":
            return None
        sides = [name for name in inner.input if self._is_learned(name)]
        return (sides[0], ("ReduceMean", "Equal")) if len(sides) == 1 else None

    def _is_learned(self, value: str) -> bool:
        """Return whether ``value`` depends on a stored float."""
        seen, waiting = set(), [value]
        while waiting:
            name = waiting.pop()
            tensor = self._stored.get(name)
            if tensor is not None and tensor.data_type in FLOATS:
                return True
            if name not in seen and name in self.producers:
                waiting += read_by(self.producers[name])
            seen.add(name)
        return False

    def _two_columns(self, node: NodeProto) -> tuple[str, tuple[str, ...]] | None:
        """Return z where ``node`` puts 1 - p and p side by side, and p is the Sigmoid of z."""
        rest, sigmoid = (self.producers.get(name) for name in (node.input[0], node.input[-1]))
        if len(node.input) != 2 or rest is None or sigmoid is None:
            return None
        if (rest.op_type, sigmoid.op_type) != ("Sub", "Sigmoid") or rest.input[1] != node.input[1]:
            return None
        one = self._stored.get(rest.input[0])
        if one is None or not (array_of(one) == 1).all() or self._columns(sigmoid.input[0]) not in (None, 1):
            return None
        return sigmoid.input[0], ("Concat", "Sigmoid")


def _scores(shape: Sequence[int] | None) -> int | None:
    """Return how many scores an image gets from a value of ``shape`` (0 is unknown), None where unclear."""
    if not shape or 0 in shape[1:]:
        return None
    if len(shape) == 1:
        return 1 if shape[0] <= 1 else None  # of one image, or of however many come
    scores = math.prod(shape[1:])
    return scores if scores == max(shape[1:]) else None
