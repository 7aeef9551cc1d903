"""Files of a fixed batch size at another one: image by image the same, or an error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mothkit_converters import BatchError, to_torch

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
