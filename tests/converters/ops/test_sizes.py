"""What graphs compute from shapes: right at any size, traced without a break, copied and pickled."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mothkit_converters import Role, to_torch
from mothkit_converters.ops.rounding import divide, to_single

Save = Callable[..., Path]
Run = Callable[..., list[Any]]


def graph(body: str, inputs: str = "float[N, C, H, W] x", outputs: str = "float[] y", opset: int = 17) -> str:
    return f'<ir_version: 8, opset_import: ["" : {opset}]> g ({inputs}) => ({outputs}) {{ {body} }}'


I64 = {
    "zero": np.array(0),
    "one": np.array(1),
    "two": np.array(2),
    "ones": np.array([1]),
    "minus": np.array([-1]),
    "first": np.array([0]),
    "second": np.array([2]),
    "both": np.array([2, 3]),
    "all": np.array([2**63 - 1]),
    "pair": np.array([1, 2]),
    "square": np.array([[0, 3], [1, 2]]),
    "mixed": np.array([[-1, 2], [0, -1]]),
}
NARROW = {"n0": np.array([0], np.int32), "n1": np.array([1], np.int32), "nm": np.array([-1], np.int32)}
FLOATS = {
    "half": np.array(0.5, np.float32),
    "most": np.array(0.7, np.float32),
    "twice": np.array([1, 1, 2, 2], np.float32),
    "fixed": np.array(7, np.float32),
}

VIEW = "s = Shape(x) b = Gather(s, zero) u = Unsqueeze(b, first) t = Concat<axis = 0>(u, minus) y = Reshape(x, t)"
TF = """s = Shape(x) n = Cast<to = 6>(s) b = Slice(n, n0, n1, n0) q = Squeeze(b, first) p = Unsqueeze(q, first)
        r = ReduceProd<keepdims = 1>(n) rest = Div(r, p) c = Concat<axis = 0>(p, rest) l = Cast<to = 7>(c)
        y = Reshape(x, l)"""
DYNAMO = """s = Shape<start = 0, end = 1>(x) b = Squeeze(s) d = Reshape(b, minus) t = Concat<axis = 0>(d, minus, ones)
            y = Reshape(x, t)"""
CLASS = """s = Shape(x) b = Gather(s, first) w = Concat<axis = 0>(b, minus, minus, minus) l = Shape(w)
           o = ConstantOfShape<value = int64[1] {1}>(l) m = Mul(o, minus) e = Equal(w, m) t = Where(e, o, w)
           c = ReduceMean<axes = [0], keepdims = 1>(x) z = Expand(c, t) y = Concat<axis = 1>(z, x)"""
PADS = """s = Shape(x) h = Slice(s, second, all) m = Mod(h, both) p = Sub(both, m) z = Mul(p, zero)
          d = Div(p, two) r = Sub(p, d) k = Concat<axis = 0>(z, d, z, r) y = Pad(x, k)"""
SQUARE = """s = Shape(x) g = Gather(s, square) a = Add(g, mixed) t = Transpose(a) f = Reshape(t, minus)
            k = ReduceMax<keepdims = 0>(f) u = Unsqueeze(k, first) y = Expand(u, ones)"""
SCALED = """s = Shape(x) f = Cast<to = 1>(s) m = Mul(f, twice) r = Floor(m) z = Cast<to = 7>(r)
            y = Resize<mode = "nearest">(x, , , z)"""
SHRUNK = """s = Shape(x) h = Gather(s, two) f = Cast<to = 1>(h) m = Mul(f, most) r = Floor(m) z = Cast<to = 7>(r)
            u = Unsqueeze(z, first) y = Slice(x, first, u, second)"""
RATIO = """s = Shape(x) w = Gather(s, two) f = Cast<to = 1>(w) r = Div(fixed, f) q = Sqrt(r) y = Mul(x, q)"""
POSITIONS = """s = Shape(x) w = Gather(s, two) r = Range(zero, w, one) f = Cast<to = 1>(r) u = Unsqueeze(f, ones)
               y = Mul(x, u)"""
PARTS = """s = Shape(x) n, c, h, w = Split(s) a = Mul(h, w) t = Concat<axis = 0>(n, c, a) y = Reshape(x, t)"""
LOGIC = """s = Shape(x) h = Gather(s, two) a = Greater(h, one) b = Less(h, two) c = Or(a, b) d = Not(c)
           e = Where(d, zero, h) u = Unsqueeze(e, first) y = Slice(x, first, u, second)"""
COUNTED = """n = Size(x) u = Unsqueeze(n, first) y = Reshape(x, u)"""
PUT = """s = Shape(x) i = ScatterElements(s, both, pair) m = Max(i, ones) y = Expand(ones, m)"""
NESTED = """s = Shape(x) v = Unsqueeze(s, first) w = Squeeze(v, first) z = Size(v) k = Unsqueeze(z, first)
            l = Shape(w) e = Equal(k, l) t = Where(e, w, k) y = Reshape(x, t)"""

BODIES = {
    "view": VIEW,
    "tensorflow": TF,
    "dynamo": DYNAMO,
    "class token": CLASS,
    "pads": PADS,
    "square": SQUARE,
    "scaled": SCALED,
    "shrunk": SHRUNK,
    "ratio": RATIO,
    "positions": POSITIONS,
    "parts": PARTS,
    "logic": LOGIC,
    "counted": COUNTED,
    "put": PUT,
    "nested": NESTED,
}
INTEGERS = {"square": "int64", "put": "int64"}
SOME = ("class token", "pads", "scaled", "tensorflow")


def write(save: Save, name: str) -> Path:
    body = BODIES[name]
    words = set(body.replace("(", " ").replace(")", " ").replace(",", " ").split())
    stored = {name: values for name, values in (I64 | NARROW | FLOATS).items() if name in words}
    older = any(op in body for op in ("ReduceMean<axes", "Split", "ReduceProd"))
    return save(graph(body, outputs=f"{INTEGERS.get(name, 'float')}[] y", opset=13 if older else 17), stored)


@pytest.fixture(params=list(BODIES))
def path(request: pytest.FixtureRequest, save: Save) -> Path:
    return write(save, request.param)


SIZES = [(2, 3, 5, 7), (1, 3, 5, 7), (4, 2, 10, 6), (3, 2, 3, 9)]


def drawn(shape: tuple[int, ...]) -> Any:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def test_sizes_are_those_of_onnxruntime(path: Path, run: Run) -> None:
    bound = to_torch(path)
    for shape in SIZES:
        x = drawn(shape)
        found = bound(torch.from_numpy(x)).detach().numpy()
        (expected,) = run(path, x)
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
        np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(
    "name", [n if n in SOME else pytest.param(n, marks=pytest.mark.slow) for n in BODIES]
)
@pytest.mark.parametrize("dynamic", [pytest.param(None, marks=pytest.mark.slow), True])
def test_sizes_are_traced_without_a_break(save: Save, name: str, dynamic: bool | None) -> None:
    network = to_torch(write(save, name)).network
    torch._dynamo.reset()
    compiled = torch.compile(network, fullgraph=True, backend="eager", dynamic=dynamic)
    for shape in SIZES[:3]:
        x = torch.from_numpy(drawn(shape))
        torch.testing.assert_close(compiled(x), network(x))


def test_no_tensor_is_asked_for_its_numbers(path: Path) -> None:
    bound = to_torch(path).to("meta")
    assert bound(torch.empty(SIZES[0], device="meta")).device.type == "meta"  # which has none


def test_a_copy_and_a_pickle_compute_the_same(path: Path) -> None:
    bound = to_torch(path)
    x = torch.from_numpy(drawn(SIZES[2]))
    expected = bound.network(x)
    file = io.BytesIO()
    torch.save(bound.network, file)
    file.seek(0)
    for network in (copy.deepcopy(bound).network, torch.load(file, weights_only=False)):
        torch.testing.assert_close(network(x), expected)


def test_a_scale_of_sizes_is_no_weight(save: Save) -> None:
    body = SCALED + " v = MatMul(y, w)"
    text = graph(body, "float[N, 2, 3, 5] x", "float[] v")
    stored = {"twice": FLOATS["twice"], "w": np.ones((10, 4), np.float32)}
    bound = to_torch(save(text, stored))
    assert {name for name, tie in bound.ties.items() if tie.role is Role.WEIGHT} == {"w"}
    assert bound.unbound == ()


def test_a_weight_that_positions_are_multiplied_by_stays_one(save: Save, run: Run) -> None:
    body = POSITIONS.replace("f = Cast<to = 1>(r)", "c = Cast<to = 1>(r) f = Mul(c, scales)")
    stored = {name: I64[name] for name in ("zero", "two", "one", "ones")}
    path = save(graph(body), stored | {"scales": np.arange(1, 6, dtype=np.float32)})
    bound = to_torch(path)
    assert bound.ties["scales"].role is Role.WEIGHT
    x = drawn((2, 3, 5, 5))
    np.testing.assert_allclose(bound(torch.from_numpy(x)).detach().numpy(), run(path, x)[0], rtol=1e-6)


def test_a_size_may_be_an_output(save: Save, run: Run) -> None:
    body = "s = Shape(x) b = Gather(s, two) n = Cast<to = 6>(b) e = Equal(b, two) f = Cast<to = 1>(s)"
    outputs = "int64[4] s, int64 b, int32 n, bool e, float[4] f"
    path = save(graph(body, outputs=outputs), {"two": I64["two"]})
    x = drawn(SIZES[0])
    for found, expected in zip(to_torch(path)(torch.from_numpy(x)), run(path, x), strict=True):
        assert (found.numpy().shape, found.numpy().dtype) == (expected.shape, expected.dtype)
        np.testing.assert_array_equal(found.numpy(), expected)


@given(number=st.floats(width=64, min_value=-(2.0**100), max_value=2.0**100))
def test_single_precision_is_that_of_numpy(number: float) -> None:
    if number == 0 or abs(number) >= 2.0**-126:  # sizes are no smaller
        assert to_single(number) == float(np.float32(number))


@given(a=st.integers(-50, 50), b=st.integers(-9, 9).filter(bool))
def test_integers_are_divided_as_in_c(a: int, b: int) -> None:
    assert divide(a, b) == int(torch.div(torch.tensor(a), b, rounding_mode="trunc"))
