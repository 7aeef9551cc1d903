"""Files of a fixed batch size at another one: image by image the same, or an error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mothkit_converters import BatchError, RunError, to_torch

Save = Callable[..., Path]
Run = Callable[..., list[Any]]


def drawn(*shape: int) -> Any:
    return np.random.default_rng(3).uniform(-1, 1, shape).astype("f4")


def graph(body: str, inputs: str, opset: int = 17) -> str:
    return f'<ir_version: 8, opset_import: ["" : {opset}]> g ({inputs}) => (float[] y) {{ {body} }}'


ATTENTION = """
    q = Reshape(x, heads) t = Transpose<perm = [0, 2, 1, 3]>(q)
    m = Reshape(t, merged) k = Transpose<perm = [0, 2, 1]>(m)
    s = MatMul(m, k) p = Softmax<axis = -1>(s) o = MatMul(p, m) r = Reshape(o, split)
    b = Transpose<perm = [0, 2, 1, 3]>(r) y = Reshape(b, flat)
"""
CASES = {
    "heads merged with the batch": (
        graph(ATTENTION, "float[1, 5, 6] x"),
        {"heads": [1, 5, 2, 3], "merged": [2, 5, 3], "split": [1, 2, 5, 3], "flat": [1, 5, 6]},
    ),
    "a stored token before the others": (
        graph("c = Concat<axis = 1>(token, x) y = Reshape(c, flat)", "float[1, 5, 6] x"),
        {"token": drawn(1, 1, 6), "flat": [1, 36]},
    ),
    "a token that is expanded first": (
        graph("e = Expand(token, one) y = Concat<axis = -2>(e, x)", "float[1, 5, 6] x"),
        {"token": drawn(1, 1, 6), "one": [1, 1, 6]},
    ),
    "a squeeze of every axis": (graph("y = Squeeze(x)", "float[1, 6, 1, 1] x"), {}),
    "a squeeze that names the batch": (
        graph("y = Squeeze(x, axes)", "float[1, 6, 1, 1] x"),
        {"axes": [0, 2, 3]},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_each_image_comes_out_as_it_does_alone(save: Save, run: Run, case: str) -> None:
    text, weights = CASES[case]
    path = save(text, {name: np.asarray(value) for name, value in weights.items()})
    bound = to_torch(path)
    x = drawn(4, *bound.source.inputs[0].shape[1:])
    together = bound(torch.from_numpy(x)).detach().numpy()
    alone = [run(path, image[None])[0] for image in x]
    np.testing.assert_allclose(
        bound(torch.from_numpy(x[:1])).detach().numpy(), alone[0], rtol=1e-5, atol=1e-6
    )
    assert together.size == 4 * alone[0].size
    for found, expected in zip(together, alone, strict=True):
        np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("opset", [11, 13])
def test_a_batch_of_any_size_goes_through_a_squeeze(save: Save, opset: int) -> None:
    body = "y = Squeeze<axes = [0, 2]>(x)" if opset == 11 else "y = Squeeze(x, axes)"
    path = save(graph(body, "float[1, 6, 1] x", opset), {"axes": np.array([0, 2])} if opset == 13 else {})
    assert to_torch(path)(torch.zeros(1, 6, 1)).shape == (6,)
    assert to_torch(path)(torch.zeros(3, 6, 1)).shape == (3, 6)


@pytest.mark.parametrize(
    ("body", "weights"),
    [
        ("t = Transpose<perm = [1, 0, 2]>(x) r = Reshape(t, s) y = Relu(r)", {"s": [5, 6]}),
        ("r = Reshape(x, s) y = Relu(r)", {"s": [5, 1, 6]}),
        (
            "t = Transpose<perm = [1, 0, 2]>(x) m = Reshape(t, s) y = Reshape(m, u)",
            {"s": [-1, 6], "u": [1, 5, 6]},
        ),
    ],
)
def test_a_batch_that_would_mix_with_others_is_an_error(
    save: Save, body: str, weights: dict[str, Any]
) -> None:
    path = save(graph(body, "float[1, 5, 6] x"), {name: np.asarray(value) for name, value in weights.items()})
    bound = to_torch(path)
    bound(torch.zeros(1, 5, 6))
    with pytest.raises(BatchError, match="fixes"):
        bound(torch.zeros(2, 5, 6))


MIXING = {
    "attention over tokens without a batch": (
        "m = Reshape(x, s) k = Transpose(m) a = MatMul(m, k) p = Softmax(a) o = MatMul(p, m) y = Reshape(o, u)",
        {"s": [5, 6], "u": [1, 5, 6]},
    ),
    "softmax over the first axis that is left": ("m = Squeeze(x, s) y = Softmax<axis = 0>(m)", {"s": [0]}),
    "one image picked": ("y = Gather<axis = 0>(x, i)", {"i": 0}),
    "one image cut out": ("y = Slice(x, s, e, s)", {"s": [0], "e": [1]}),
    "range of the whole batch": ("low = ReduceMin(x) y = Sub(x, low)", {}),
    "mean over the batch": ("m = ReduceMean<axes = [0], keepdims = 1>(x) y = Sub(x, m)", {}),
    "tokens first, then flat": (
        "t = Transpose<perm = [1, 0, 2]>(x) y = Reshape(t, s)",
        {"s": [-1, 30]},
    ),
    "all in one row": ("y = Flatten<axis = 0>(x)", {}),
    "images for the steps of a sequence": (
        "a, h = RNN<hidden_size = 3>(x, w, r) y = Squeeze(a, axes)",
        {"w": drawn(1, 3, 6), "r": drawn(1, 3, 3), "axes": [1]},
    ),
}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("case", MIXING)
def test_images_that_would_change_one_another_are_an_error(save: Save, case: str, training: bool) -> None:
    body, weights = MIXING[case]
    path = save(graph(body, "float[1, 5, 6] x"), {name: np.asarray(value) for name, value in weights.items()})
    bound = to_torch(path).train(training)
    bound(torch.zeros(1, 5, 6))
    for _ in range(2):
        with pytest.raises(BatchError, match="size 3, and the file fixes 1"):
            bound(torch.from_numpy(drawn(3, 5, 6)))
    assert bound.training == bound.network.training == training


def test_equal_images_do_not_settle_whether_others_are_mixed(save: Save) -> None:
    bound = to_torch(save(graph("m = ReduceMax(x) y = Mul(x, m)", "float[1, 6] x")))
    bound(torch.ones(2, 6))
    with pytest.raises(BatchError):
        bound(torch.from_numpy(drawn(2, 6)))


@pytest.mark.parametrize("count", [2, 3, 8, 9])
def test_a_file_of_a_larger_batch_takes_any(save: Save, run: Run, count: int) -> None:
    path = save(graph("m = MatMul(x, w) y = Transpose(m)", "float[4, 6] x"), {"w": drawn(6, 2)})
    x = drawn(count, 6)
    found = to_torch(path)(torch.from_numpy(x)).detach().numpy()
    for image, expected in zip(x, found.T, strict=True):
        np.testing.assert_allclose(run(path, np.stack([image] * 4))[0][:, 0], expected, rtol=1e-5)


def test_batch_statistics_do_not_count_as_mixing(save: Save) -> None:
    """In train mode images are normalised together; what is asked is whether the file does so."""
    weights = {name: np.abs(drawn(2)) + 1 for name in "sbmv"}
    path = save(graph("y = BatchNormalization(x, s, b, m, v)", "float[1, 2, 5] x"), weights)
    bound = to_torch(path).train()
    before = bound.tensor("m").clone()
    bound(torch.from_numpy(drawn(4, 2, 5)))
    moved = bound.tensor("m") - before
    torch.testing.assert_close(
        moved, 0.1 * (torch.from_numpy(drawn(4, 2, 5)).mean((0, 2)) - before), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("shape", [(1, 2, 8, 8), (1, 2, 4, 8), (1, 3, 4, 4), (2, 4, 4)])
def test_a_shape_that_the_file_does_not_declare_is_an_error(save: Save, run: Run, shape: Any) -> None:
    """The file's own arithmetic on sizes is done once; onnxruntime takes no other shape either."""
    body = "s = Shape<start = 2>(x) d = Mul(s, two) n = Shape<end = 2>(x) z = Concat<axis = 0>(n, d)"
    body += ' y = Resize<mode = "nearest">(x, , , z)'
    path = save(graph(body, "float[N, 2, 4, 4] x"), {"two": np.array([2])})
    bound = to_torch(path)
    assert bound(torch.zeros(3, 2, 4, 4)).shape == (3, 2, 8, 8)
    with pytest.raises(RunError, match=r"expected x \['N', 2, 4, 4\]"):
        bound(torch.zeros(shape))
    with pytest.raises(Exception, match="nvalid"):
        run(path, np.zeros(shape, "f4"))
