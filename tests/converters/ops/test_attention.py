"""Attention and RotaryEmbedding against onnx's reference and, where it has them, onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from onnx import helper

from mothkit_converters import UnsupportedOpError
from tests.converters.ops.single import Array, assert_same, imported, model_of, ours, reference, runtime

N, HEADS, KEY_HEADS, QUERIES, KEYS, PAST, SIZE, VALUE_SIZE = 2, 6, 3, 5, 7, 3, 4, 3
ORDER = ("q", "k", "v", "attn_mask", "past_key", "past_value", "nonpad_kv_seqlen")


def drawn(**more: Array) -> dict[str, Array]:
    generator = np.random.default_rng(5)
    shapes = {
        "q": (N, HEADS, QUERIES, SIZE),
        "k": (N, KEY_HEADS, KEYS, SIZE),
        "v": (N, KEY_HEADS, KEYS, VALUE_SIZE),
        "past_key": (N, KEY_HEADS, PAST, SIZE),
        "past_value": (N, KEY_HEADS, PAST, VALUE_SIZE),
    }
    return {name: generator.normal(size=shape).astype("f4") for name, shape in shapes.items()} | more


def given(*names: str, **more: Array) -> dict[str, Array]:
    inputs = drawn(**more)
    return {name: inputs[name] for name in ORDER if name in ("q", "k", "v", *names, *more)}


def model(inputs: dict[str, Array], opset: int, outputs: int = 1, **attributes: Any) -> Any:
    names = [name if name in inputs else "" for name in ORDER[: 6 if opset == 23 else 7]]
    results = ["y", "present_key", "present_value", "scores"][:outputs]
    return model_of(helper.make_node("Attention", names, results, **attributes), inputs, opset, ir=11)


def flat(inputs: dict[str, Array]) -> dict[str, Array]:
    return {
        name: x.swapaxes(1, 2).reshape(N, x.shape[2], -1) if name in "qkv" else x
        for name, x in inputs.items()
    }


def bools(*shape: int) -> Array:
    mask = np.random.default_rng(2).random(shape) > 0.4
    mask[..., 0, :] = False  # a query that may look at nothing
    return mask


def floats(*shape: int) -> Array:
    mask = np.random.default_rng(2).normal(size=shape).astype("f4")
    mask[..., 1:3] = -np.inf
    return mask


PASTS = ("past_key", "past_value")
CASES: dict[str, tuple[dict[str, Array], dict[str, Any]]] = {
    "plain": (given(), {}),
    "scaled": (given(), {"scale": 0.3}),
    "causal": (given(), {"is_causal": 1}),
    "causal with a past": (given(*PASTS), {"is_causal": 1}),
    "bool mask": (given(attn_mask=bools(QUERIES, KEYS)), {}),
    "bool mask of all ranks": (given(attn_mask=bools(N, 1, QUERIES, KEYS)), {}),
    "bool mask, causal": (given(attn_mask=bools(HEADS, QUERIES, KEYS)), {"is_causal": 1}),
    "float mask": (given(attn_mask=floats(N, HEADS, QUERIES, KEYS)), {}),
    "float mask, causal, with a past": (
        given(*PASTS, attn_mask=floats(QUERIES, KEYS + PAST)),
        {"is_causal": 1},
    ),
    "softcap": (given(attn_mask=floats(QUERIES, KEYS)), {"softcap": 0.7}),
    "softmax in double": (given(attn_mask=bools(QUERIES, KEYS)), {"softmax_precision": 11}),
}


@pytest.mark.parametrize("opset", [23, 24, 25])
@pytest.mark.parametrize("case", CASES)
def test_attention_is_the_references(case: str, opset: int) -> None:
    inputs, attributes = CASES[case]
    for outputs in (1, 3):
        four = model(inputs, opset, outputs, **attributes)
        assert_same(ours(four, inputs), reference(four, inputs))
        heads = {"q_num_heads": HEADS, "kv_num_heads": KEY_HEADS}
        three = model(flat(inputs), opset, outputs, **attributes, **heads)
        assert_same(ours(three, flat(inputs)), reference(three, flat(inputs)))


@pytest.mark.parametrize("mode", range(4))
@pytest.mark.parametrize("case", ["plain", "causal", "bool mask", "float mask", "softmax in double"])
def test_what_the_fourth_output_shows(case: str, mode: int) -> None:
    inputs, attributes = CASES[case]
    shown = model(inputs, 24, 4, qk_matmul_output_mode=mode, **attributes)
    assert_same(ours(shown, inputs), reference(shown, inputs))


def test_the_fourth_output_before_and_after_the_cap() -> None:
    inputs = given(attn_mask=floats(QUERIES, KEYS))
    raw, capped, biased = (
        ours(model(inputs, 24, 4, softcap=0.7, qk_matmul_output_mode=mode), inputs)[3] for mode in range(3)
    )
    assert_same([capped], [0.7 * np.tanh(raw / np.float32(0.7))])
    assert_same([biased], [capped + inputs["attn_mask"]])


@pytest.mark.parametrize("opset", [24, 25])
@pytest.mark.parametrize("attributes", [{}, {"is_causal": 1}])
@pytest.mark.parametrize(
    "mask", [None, bools(QUERIES, 6), floats(N, 1, QUERIES, 6)], ids=["", "bool", "float"]
)
def test_padded_keys_and_masks_that_do_not_reach_all(
    mask: Any, attributes: dict[str, Any], opset: int
) -> None:
    more = {} if mask is None else {"attn_mask": mask}
    inputs = given(**more, nonpad_kv_seqlen=np.array([6, 3]))
    padded = model(inputs, opset, **attributes)
    assert_same(ours(padded, inputs), reference(padded, inputs))


@pytest.mark.parametrize(
    ("windows", "causal"),
    [((2, -1), 0), ((-1, 1), 0), ((1, 2), 0), ((0, 0), 0), ((2, -1), 1), ((0, 0), 1)],
)
@pytest.mark.parametrize("names", [(), PASTS, ("nonpad_kv_seqlen",)], ids=["", "past", "padded"])
def test_windows(names: tuple[str, ...], windows: tuple[int, int], causal: int) -> None:
    inputs = (
        given(*names, nonpad_kv_seqlen=np.array([6, 3])) if "nonpad_kv_seqlen" in names else given(*names)
    )
    sizes = {"left_window_size": windows[0], "right_window_size": windows[1]}
    windowed = model(inputs, 25, is_causal=causal, **sizes)
    assert_same(ours(windowed, inputs), reference(windowed, inputs))


@pytest.mark.parametrize("case", ["plain", "causal", "bool mask", "float mask", "softcap"])
def test_onnxruntime_agrees_too(case: str) -> None:
    inputs, attributes = CASES[case]
    four = model(inputs, 23, **attributes)
    assert_same(ours(four, inputs), runtime(four, inputs))


@pytest.mark.parametrize("attributes", [{}, {"softcap": 2.0}], ids=["fused", "in stages"])
def test_gradients_are_numbers_where_a_query_sees_nothing(attributes: dict[str, Any]) -> None:
    inputs = given(attn_mask=bools(QUERIES, KEYS))
    bound = imported(model(inputs, 23, **attributes))
    tensors = [torch.from_numpy(inputs[name]).requires_grad_() for name in "qkv"]
    bound(*tensors, torch.from_numpy(inputs["attn_mask"])).square().sum().backward()
    for tensor in tensors:
        assert tensor.grad.isfinite().all()
        assert tensor.grad.any()


def test_a_precision_that_there_is_not_is_refused() -> None:
    with pytest.raises(UnsupportedOpError, match="softmax_precision is 7"):
        imported(model(given(), 23, softmax_precision=7))


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("turned", [0, 4])
@pytest.mark.parametrize("rank", [3, 4])
@pytest.mark.parametrize("places", [False, True])
def test_rotary_embedding(places: bool, rank: int, turned: int, interleaved: int) -> None:
    generator = np.random.default_rng(1)
    size = 6
    angles = generator.normal(size=(11 if places else 2, *(() if places else (5,)), (turned or size) // 2))
    inputs = {
        "x": generator.normal(size=(2, 3, 5, size) if rank == 4 else (2, 5, 3 * size)).astype("f4"),
        "cos": np.cos(angles).astype("f4"),
        "sin": np.sin(angles).astype("f4"),
    }
    if places:
        inputs["places"] = generator.integers(0, 11, (2, 5))
    attributes = {"interleaved": interleaved, "rotary_embedding_dim": turned, "num_heads": 3}
    node = helper.make_node("RotaryEmbedding", list(inputs), ["y"], **attributes)
    rotary = model_of(node, inputs, 23, stored=["cos", "sin"] if places else [], ir=11)
    assert_same(ours(rotary, inputs), reference(rotary, inputs))
    assert not list(imported(rotary).parameters())
