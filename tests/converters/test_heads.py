"""Finding the logits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mothkit_converters import find_head, logits_value, read_source

Save = Callable[..., Path]


def graph(body: str, outputs: str = "float[N, 4] y", inputs: str = "float[N, 4] x") -> str:
    return f'<ir_version: 8, opset_import: ["" : 17]> g ({inputs}) => ({outputs}) {{ {body} }}'


@pytest.mark.parametrize(
    ("body", "value", "stripped"),
    [
        ("h = Relu(x) y = Softmax(h)", "h", ("Softmax",)),
        ("h = Relu(x) y = LogSoftmax(h)", "h", ("LogSoftmax",)),
        ("h = Relu(x) y = Relu(h)", "y", ()),
        ("h = Relu(x) y = Sigmoid(h)", "y", ()),
        ("h = Relu(x) s = Softmax(h) i = Identity(s) y = Flatten(i)", "h", ("Softmax",)),
        ("h = Relu(x) i = Identity(h) y = Softmax(i)", "i", ("Softmax",)),
        ("h = Relu(x) s = Softmax(h) y = Relu(s)", "y", ()),
    ],
)
def test_the_tensor_before_a_softmax_is_taken(
    save: Save, body: str, value: str, stripped: tuple[str]
) -> None:
    head = find_head(read_source(save(graph(body))))
    assert (head.value, head.stripped, head.output) == (value, stripped, "y")
    assert head.classes == 4


def test_an_argmax_of_a_softmax_is_stripped_whole(save: Save) -> None:
    path = save(graph("h = Relu(x) s = Softmax(h) y = ArgMax<axis = 1, keepdims = 0>(s)", "int64[N] y"))
    head = find_head(read_source(path))
    assert (head.value, head.stripped) == ("h", ("ArgMax", "Softmax"))


def test_of_label_and_scores_the_scores_are_taken(save: Save) -> None:
    body = "h = Relu(x) label = ArgMax<axis = 1, keepdims = 0>(h) scores = Softmax(h)"
    head = find_head(read_source(save(graph(body, "int64[N] label, float[N, 4] scores"))))
    assert (head.value, head.output) == ("h", "scores")


def test_classes_are_unknown_where_the_output_is_a_map(save: Save) -> None:
    path = save(graph("y = Relu(x)", "float[N, 4, 8, 8] y", "float[N, 4, 8, 8] x"))
    assert find_head(read_source(path)).classes is None


def test_trailing_ones_do_not_count_as_classes(save: Save) -> None:
    path = save(graph("y = Softmax<axis = 1>(x)", "float[N, 7, 1, 1] y", "float[N, 7, 1, 1] x"))
    assert find_head(read_source(path)).classes == 7


def test_the_logits_have_a_name_of_their_own(cnn: Path) -> None:
    assert logits_value(read_source(cnn)) == "logits"
