"""Operators of onnxruntime's own, against onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from mothkit_converters import Role, UnsupportedOpError, to_torch
from tests.converters.ops.single import Array, assert_same, imported, model_of, ours, runtime


def drawn(*shape: int, seed: int = 4) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype("f4")


def check(op: str, *inputs: Array | None, outputs: int = 1, atol: float = 1e-5, **attributes: Any) -> None:
    names = ["" if x is None else f"i{place}" for place, x in enumerate(inputs)]
    given = {f"i{place}": x for place, x in enumerate(inputs) if x is not None}
    results = [f"o{place}" for place in range(outputs)]
    node = helper.make_node(op, names, results, domain="com.microsoft", **attributes)
    model = model_of(node, given, 17)
    if op == "EmbedLayerNormalization":
        model.graph.output[1].type.tensor_type.elem_type = TensorProto.INT32
    assert_same(ours(model, given), runtime(model, given), atol=atol)


X, KERNEL, BIAS = drawn(2, 3, 7, 6), drawn(4, 3, 3, 2, seed=1), drawn(4, seed=2)
ACTIVATIONS: list[tuple[str, list[float]]] = [
    ("Relu", []),
    ("Tanh", []),
    ("Sigmoid", []),
    ("LeakyRelu", [0.3]),
    ("Clip", [-0.5, 0.8]),
    ("HardSigmoid", [0.3, 0.4]),
]


@pytest.mark.parametrize(("activation", "numbers"), ACTIVATIONS)
def test_fused_convolutions(activation: str, numbers: list[float]) -> None:
    more = {"activation_params": numbers} if numbers else {}
    check("FusedConv", X, KERNEL, BIAS, activation=activation, pads=[1, 0, 2, 1], strides=[2, 1], **more)
    check("FusedConv", X, KERNEL, activation=activation, auto_pad="SAME_UPPER", **more)


def test_fused_convolutions_with_a_summand() -> None:
    check("FusedConv", X, KERNEL, BIAS, drawn(2, 4, 5, 5, seed=3), activation="Relu")


@pytest.mark.parametrize(("activation", "alpha"), [("Relu", None), ("LeakyRelu", 0.3), ("Elu", 0.6)])
@pytest.mark.parametrize("turned", [0, 1])
def test_fused_gemm(activation: str, alpha: float | None, turned: int) -> None:
    more = {} if alpha is None else {"activation_alpha": alpha}
    b = drawn(4, 5, seed=1) if turned else drawn(5, 4, seed=1)
    check("FusedGemm", drawn(3, 5), b, drawn(4), activation=activation, transB=turned, beta=0.5, **more)


@pytest.mark.parametrize(
    ("a", "b", "turns"),
    [
        ((2, 3, 4, 5), (2, 3, 5, 6), {}),
        ((2, 3, 5, 4), (2, 3, 6, 5), {"transA": 1, "transB": 1}),
        ((4, 2, 3, 5), (2, 3, 5, 6), {"transBatchA": 1}),
        ((5, 2, 3, 4), (6, 2, 3, 5), {"transBatchA": 1, "transA": 1, "transBatchB": 1, "transB": 1}),
        ((2, 4, 5), (5, 6), {}),
    ],
)
def test_fused_products_of_matrices(a: Any, b: Any, turns: dict[str, int]) -> None:
    check("FusedMatMul", drawn(*a), drawn(*b, seed=1), alpha=0.3, **turns)


def test_gelus() -> None:
    x = drawn(2, 3, 8)
    check("Gelu", x)
    check("BiasGelu", x, drawn(8, seed=1))
    check("FastGelu", x, atol=1e-4)
    check("FastGelu", x, drawn(8, seed=1), atol=1e-4)
    check("QuickGelu", x)
    check("QuickGelu", x, alpha=1.1)


@pytest.mark.parametrize("extra", [(), (drawn(8, seed=5),), (drawn(8, seed=5), drawn(8, seed=6))])
def test_layers_are_normalised_after_a_skip(extra: tuple[Array, ...]) -> None:
    check("SkipLayerNormalization", drawn(2, 3, 8), drawn(2, 3, 8, seed=1), drawn(8, seed=2), *extra)
    if len(extra) < 2:
        given = (drawn(2, 3, 8), drawn(2, 3, 8, seed=1), drawn(8, seed=2), *extra)
        check("SkipSimplifiedLayerNormalization", *given, epsilon=1e-3)


def test_the_sum_before_a_skip_normalisation() -> None:
    given = {"x": drawn(2, 3, 8), "skip": drawn(2, 3, 8, seed=1), "scale": drawn(8, seed=2)}
    for op in ("SkipLayerNormalization", "SkipSimplifiedLayerNormalization"):
        node = helper.make_node(op, list(given), ["y", "", "", "sum"], domain="com.microsoft")
        model = model_of(node, given, 17)
        assert_same(ours(model, given), runtime(model, given))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("placed", [False, True])
@pytest.mark.parametrize("segmented", [False, True])
def test_embeddings_are_normalised(segmented: bool, placed: bool, masked: bool) -> None:
    generator = np.random.default_rng(0)
    words, segments, places = (generator.integers(0, n, (2, 5)).astype("i4") for n in (11, 2, 7))
    check(
        "EmbedLayerNormalization",
        words,
        segments if segmented else None,
        drawn(11, 8),
        drawn(7, 8, seed=1),
        drawn(2, 8, seed=2) if segmented else None,
        drawn(8, seed=3),
        drawn(8, seed=5),
        np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 0]], "i4") if masked else None,
        places if placed else None,
        outputs=2,
    )


MASKS = {
    "none": None,
    "ends": np.array([3, 5], "i4"),
    "ends and beginnings": np.array([3, 5, 1, 2], "i4"),
    "keys": np.array([[1, 1, 0, 1, 0], [1, 1, 1, 1, 0]], "i4"),
    "queries and keys": (np.random.default_rng(0).random((2, 5, 5)) > 0.4).astype("i4"),
}


@pytest.mark.parametrize("causal", [0, 1])
@pytest.mark.parametrize("mask", MASKS)
def test_packed_attention(mask: str, causal: int) -> None:
    given = (drawn(2, 5, 12), drawn(12, 36, seed=1), drawn(36, seed=2), MASKS[mask])
    check("Attention", *given, num_heads=3, unidirectional=causal, atol=1e-4)


def test_packed_attention_of_other_sizes_with_an_addend_and_a_past() -> None:
    x, bias = drawn(2, 5, 12), drawn(28, seed=2)
    check("Attention", x, drawn(12, 28, seed=1), bias, num_heads=2, qkv_hidden_sizes=[8, 8, 12], atol=1e-4)
    weight, bias, past = drawn(12, 36, seed=1), drawn(36, seed=2), drawn(2, 2, 3, 4, 4, seed=3)
    check("Attention", x, weight, bias, None, past, outputs=2, num_heads=3, unidirectional=1, atol=1e-4)
    added = drawn(1, 3, 5, 5, seed=3)
    check("Attention", x, weight, bias, None, None, added, num_heads=3, scale=0.2, atol=1e-4)


@pytest.mark.parametrize("biased", [False, True])
def test_attention_of_many_heads(biased: bool) -> None:
    q, k, v = drawn(2, 5, 12), drawn(2, 7, 12, seed=1), drawn(2, 7, 9, seed=2)
    bias = drawn(33, seed=3) if biased else None
    check("MultiHeadAttention", q, k, v, bias, num_heads=3, atol=1e-4)
    mask = np.array([[1] * 5 + [0] * 2, [1] * 7], "i4")
    check("MultiHeadAttention", q, k, v, bias, mask, num_heads=3, atol=1e-4)
    added = drawn(2, 3, 5, 7, seed=5)
    check("MultiHeadAttention", q, k, v, bias, None, added, num_heads=3, scale=0.3, atol=1e-4)


def test_their_weights_are_weights() -> None:
    given = {"x": X, "w": KERNEL, "b": BIAS}
    node = helper.make_node("FusedConv", list(given), ["y"], domain="com.microsoft", activation="Relu")
    bound = imported(model_of(node, given, 17, stored="wb"))
    assert {name for name, tie in bound.ties.items() if tie.role is Role.WEIGHT} == {"w", "b"}


@pytest.mark.parametrize(
    ("op", "attributes", "why"),
    [
        ("FusedConv", {"activation": "Swish"}, "activation is 'swish'"),
        ("FusedConv", {"activation": "LeakyRelu"}, "has 0 parameters, expected 1"),
        ("Attention", {"num_heads": 2, "do_rotary": 1}, "do_rotary is set"),
        ("NhwcMaxPool", {}, "no converter for it"),
    ],
)
def test_what_is_not_served_is_refused_by_name(op: str, attributes: dict[str, Any], why: str) -> None:
    node = helper.make_node(op, ["x", "w"], ["y"], domain="com.microsoft", **attributes)
    with pytest.raises(UnsupportedOpError, match=f"operator {op} .*{why}"):
        imported(model_of(node, {"x": X, "w": KERNEL}, 17, stored="w"))


@pytest.mark.parametrize("op", ["LayerNormalization", "SimplifiedLayerNormalization"])
def test_operators_that_onnxruntime_writes_into_onnxs_domain(op: str) -> None:
    given = {"x": drawn(2, 3, 8), "scale": drawn(8, seed=1)}
    model = model_of(helper.make_node(op, list(given), ["y"], axis=-1), given, 14, stored=["scale"])
    assert_same(ours(model, given), runtime(model, given))
    assert set(imported(model).bindings) == {"scale"}


def test_the_shape_of_what_they_make_is_not_taken_for_known(tmp_path: Path) -> None:
    """ONNX infers no rank behind them, which is not the rank 0."""
    text = """<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
        g (float[N, 3, 4] x) => (float[N, 12] y) {
        z = com.microsoft.Gelu(x) s = Shape(z) n = Slice(s, zero, one) t = Concat<axis = 0>(n, rest)
        y = Reshape(z, t) }"""
    model = onnx.parser.parse_model(text)
    stored = {"zero": np.array([0]), "one": np.array([1]), "rest": np.array([12])}
    model.graph.initializer.extend(numpy_helper.from_array(x, name) for name, x in stored.items())
    given = {"x": drawn(2, 3, 4)}
    assert_same(ours(model, given), runtime(model, given))


def test_a_file_that_onnxruntime_optimised(cnn: Path, tmp_path: Path) -> None:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath, options.log_severity_level = str(tmp_path / "optimised.onnx"), 4
    session = ort.InferenceSession(cnn, options, providers=["CPUExecutionProvider"])
    bound = to_torch(tmp_path / "optimised.onnx")
    assert "FusedConv" in bound.source.operators
    assert len(bound.bindings) == 4  # the normalisation went into the convolution
    x = drawn(3, 3, 8, 8)
    np.testing.assert_allclose(
        bound(torch.from_numpy(x)).detach(), session.run(None, {"x": x})[0], rtol=1e-4, atol=1e-5
    )
