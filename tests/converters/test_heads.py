"""Finding the logits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch

from mothkit_converters import UnknownValueError, expose, find_head, logits_value, read_source, to_torch

Save = Callable[..., Path]


def graph(body: str, outputs: str = "float[N, 4] y", inputs: str = "float[N, 4] x") -> str:
    return f'<ir_version: 8, opset_import: ["" : 17]> g ({inputs}) => ({outputs}) {{ {body} }}'


@pytest.mark.parametrize(
    ("body", "value", "stripped"),
    [
        ("h = Relu(x) y = Softmax(h)", "h", ("Softmax",)),
        ("h = Relu(x) y = LogSoftmax(h)", "h", ("LogSoftmax",)),
        ("h = Relu(x) y = Relu(h)", "y", ()),
        ("h = Relu(x) y = Sigmoid(h)", "h", ("Sigmoid",)),
        ("h = Relu(x) y = Hardmax(h)", "h", ("Hardmax",)),
        ("h = Relu(x) y = Tanh(h)", "y", ()),
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


def test_a_single_score_before_a_sigmoid_stands_for_two_classes(save: Save) -> None:
    path = save(graph("h = Relu(x) y = Sigmoid(h)", "float[N, 1] y", "float[N, 1] x"))
    head = find_head(read_source(path))
    assert (head.value, head.classes, head.one_logit) == ("h", 2, True)
    many = find_head(read_source(save(graph("h = Relu(x) y = Sigmoid(h)"))))
    assert (many.value, many.classes, many.one_logit) == ("h", 4, False)


ONE = {"one": np.ones(1, np.float32)}
TWO_COLUMNS = "h = Relu(x) p = Sigmoid(h) q = Sub(one, p) "


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (TWO_COLUMNS + "y = Concat<axis = 1>(q, p)", "h"),
        (TWO_COLUMNS + "y = Concat<axis = 1>(p, q)", "y"),  # class 1 is the other
        ("h = Relu(x) p = Sigmoid(h) q = Sub(p, one) y = Concat<axis = 1>(q, p)", "y"),
        ("h = Relu(x) p = Tanh(h) q = Sub(one, p) y = Concat<axis = 1>(q, p)", "y"),
        ("h = Relu(x) p = Sigmoid(h) r = Tanh(h) q = Sub(one, r) y = Concat<axis = 1>(q, p)", "y"),
    ],
)
def test_two_columns_of_one_probability_are_one_logit(save: Save, body: str, value: str) -> None:
    path = save(graph(body, "float[N, 2] y", "float[N, 1] x"), ONE)
    head = find_head(read_source(path))
    assert (head.value, head.classes, head.one_logit) == (value, 2, value == "h")


def test_two_columns_of_several_probabilities_are_left(save: Save) -> None:
    path = save(graph(TWO_COLUMNS + "y = Concat<axis = 1>(q, p)", "float[N, 8] y"), ONE)
    assert find_head(read_source(path)).value == "y"


def test_a_label_that_is_looked_up_leads_to_what_picked_it(save: Save) -> None:
    body = "h = Relu(x) i = ArgMax<axis = 1, keepdims = 0>(h) y = Gather(names, i)"
    path = save(graph(body, "int64[N] y"), {"names": np.array([7, 3, 5, 1])})
    head = find_head(read_source(path))
    assert (head.value, head.stripped) == ("h", ("ArgMax",))


def test_the_best_few_lead_to_all_scores(save: Save) -> None:
    body = "h = Relu(x) s = Softmax(h) best, y = TopK(s, k)"
    path = save(graph(body, "float[N, 2] best, int64[N, 2] y"), {"k": np.array([2])})
    assert find_head(read_source(path)).value == "h"


def test_an_output_is_chosen_by_name(save: Save) -> None:
    body = "h = Relu(x) y = Softmax(h) z = Tanh(h)"
    source = read_source(save(graph(body, "float[N, 4] y, float[N, 4] z")))
    assert find_head(source).output == "y"
    assert find_head(source, "z").value == "z"
    assert find_head(source, "h").value == "h"  # any value will do
    with pytest.raises(UnknownValueError, match="no value 'w'; its outputs are 'y', 'z'"):
        find_head(source, "w")


@pytest.mark.parametrize(
    ("transform", "value", "stripped"),
    [("SOFTMAX", "label#scores", ("LinearClassifier",)), ("NONE", "scores", ())],
)
def test_a_linear_classifier_is_entered_before_its_transform(
    save: Save, transform: str, value: str, stripped: tuple[str]
) -> None:
    text = (
        '<ir_version: 8, opset_import: ["" : 17, "ai.onnx.ml" : 1]> g (float[N, 4] x) => '
        "(int64[N] label, float[N, 3] scores) { label, scores = ai.onnx.ml.LinearClassifier<"
        f'post_transform = "{transform}", classlabels_ints = [0, 1, 2], coefficients = {[0.5] * 12}, '
        "intercepts = [0.0, 1.0, 2.0]>(x) }"
    )
    source = read_source(save(text))
    for output in ("label", "scores"):
        assert find_head(source, output).value == value
    assert find_head(source, "scores").stripped == stripped


@pytest.mark.parametrize("rows", [1, 3])
def test_a_runtime_can_be_shown_the_logits_of_a_linear_classifier(save: Save, rows: int) -> None:
    labels, weights = [0, 1, 2][: max(rows, 2)], np.arange(4.0 * rows) / 8
    text = (
        '<ir_version: 8, opset_import: ["" : 17, "ai.onnx.ml" : 1]> g (float[N, 4] x) => '
        "(int64[N] label, float[N, K] scores) { label, scores = ai.onnx.ml.LinearClassifier<"
        f'post_transform = "LOGISTIC", classlabels_ints = {labels}, coefficients = {weights.tolist()}, '
        f"intercepts = {[0.5] * rows}>(x) }}"
    )
    source = read_source(save(text))
    names = ["scores", find_head(source).value]
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    session = ort.InferenceSession(expose(source, names).SerializeToString())
    scores, logits = session.run(names, {"x": x})
    np.testing.assert_allclose(scores[:, -1:], 1 / (1 + np.exp(-logits[:, -1:])), rtol=1e-5)
    ours = to_torch(source, outputs=names)(torch.from_numpy(x))
    for found, expected in zip(ours, (scores, logits), strict=True):
        np.testing.assert_allclose(found.detach(), expected, rtol=1e-5)
    assert [value.name for value in source.outputs] == ["label", "scores"]  # the source is left alone


def test_the_logits_have_a_name_of_their_own(cnn: Path) -> None:
    assert logits_value(read_source(cnn)) == "logits"


def test_a_training_graphs_accuracy_leads_to_its_logits(save: Save) -> None:
    body = """h = MatMul(x, w) s = Softmax(h) guess = ArgMax<axis = 1>(s) truth = ArgMax<axis = 1>(labels)
              same = Equal(guess, truth) number = Cast<to = 1>(same) y = ReduceMean<axes = [0], keepdims = 0>(number)"""
    inputs = "float[N, 4] labels, float[N, 6] x"
    path = save(graph(body, "float[1] y", inputs), {"w": np.ones((6, 4), "f4")})
    source = read_source(path)
    head = find_head(source)
    assert (head.value, head.classes) == ("h", 4)
    assert head.stripped == ("ReduceMean", "Equal", "ArgMax", "Softmax")
    bound = to_torch(source, outputs=[head.value])
    assert bound.input_names == ("x",)  # labels are for the accuracy alone
    assert bound(torch.ones(2, 6)).tolist() == [[6] * 4] * 2


def test_a_comparison_without_a_learned_side_is_no_head(save: Save) -> None:
    body = """guess = ArgMax<axis = 1>(x) truth = ArgMax<axis = 1>(labels) same = Equal(guess, truth)
              number = Cast<to = 1>(same) y = ReduceMean<axes = [0], keepdims = 0>(number)"""
    path = save(graph(body, "float[1] y", "float[N, 4] labels, float[N, 4] x"))
    assert find_head(read_source(path)).value == "y"
