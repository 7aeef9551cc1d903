"""Branches, loops and scans, and the sequences that they carry."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
import torch
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from mothkit_converters import diff, to_torch, write_back
from tests.converters.ops.single import assert_same, imported, runtime

Array = NDArray[Any]
Run = Callable[..., list[Array]]

BRANCHES = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N, 4] x, bool chosen) => (float[N, 3] y)
<float[4, 3] w = {1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3}>
{
    y = If (chosen) <
        then_branch = t () => (float[N, 3] r) <float[3] b = {1, 2, 3}> { m = MatMul(x, w) r = Add(m, b) },
        else_branch = e () => (float[N, 3] r) <float[4, 3] b = {1, 2, 3, 4, 5, 6, 7, 8, 9, 3, 2, 1}>
            { k = Constant<value = float[3] {3, 4, 5}>() h = MatMul(x, w) m = MatMul(x, b) n = Add(h, m) r = Add(n, k) }
    >
}
"""


def drawn(*shape: int) -> Array:
    return np.random.default_rng(0).normal(size=shape).astype("f4")


def save(text: str, path: Path) -> Path:
    path.write_bytes(onnx.parser.parse_model(text).SerializeToString())
    return path


def assert_equals_onnxruntime(text: str, *inputs: Array) -> None:
    model = onnx.parser.parse_model(text)
    expected = runtime(model, dict(zip((info.name for info in model.graph.input), inputs, strict=True)))
    found = imported(model)(*map(torch.from_numpy, inputs))
    found = found if isinstance(found, tuple) else (found,)
    assert_same([y.detach().numpy() for y in found], expected)


def test_weights_of_branches_are_trained_and_written_back(tmp_path: Path) -> None:
    path = save(BRANCHES, tmp_path / "branches.onnx")
    bound = to_torch(path)
    names = {"w", "b", "y/else_branch/b", "k"}  # the second of one name is called by the way to it
    assert set(bound.bindings) == names
    write_back(bound, tmp_path / "same.onnx")
    assert (tmp_path / "same.onnx").read_bytes() == path.read_bytes()
    with torch.no_grad():
        for index, parameter in enumerate(bound.parameters()):
            parameter += index + 1
    write_back(bound, tmp_path / "trained.onnx")
    found = diff(path, tmp_path / "trained.onnx")
    assert {change.name for change in found.changes} == names
    assert found.only_weights
    x = drawn(5, 4)
    for chosen in (True, False):
        expected = runtime(onnx.load(tmp_path / "trained.onnx"), {"x": x, "chosen": np.array(chosen)})
        assert_same([bound(torch.from_numpy(x), torch.tensor(chosen)).detach().numpy()], expected, atol=1e-4)


def test_only_the_branch_that_ran_gets_a_gradient() -> None:
    bound = imported(onnx.parser.parse_model(BRANCHES))
    bound(torch.ones(2, 4), torch.tensor(True)).sum().backward()
    assert {name for name, p in bound.bindings.items() if p.grad is not None} == {"w", "b"}


@pytest.mark.parametrize("chosen", [0, 1])
def test_a_branch_that_the_file_chooses_takes_its_place(tmp_path: Path, chosen: int, run: Run) -> None:
    text = BRANCHES.replace(", bool chosen", "").replace("{1, 2, 3}> {", "{1, 2, 3}> {", 1)
    text = text.replace("<float[4, 3] w", f"<bool chosen = {{{chosen}}}, float[4, 3] w", 1)
    path = save(text, tmp_path / "chosen.onnx")
    bound = to_torch(path)
    assert set(bound.bindings) == ({"w", "b"} if chosen else {"w", "y/else_branch/b", "k"})
    assert not any(type(module).__name__ == "If" for module in bound.modules())
    x = drawn(5, 4)
    assert_same([bound(torch.from_numpy(x)).detach().numpy()], run(path, x))
    with torch.no_grad():
        for parameter in bound.parameters():
            parameter *= 2
    write_back(bound, tmp_path / "trained.onnx")
    assert_same([bound(torch.from_numpy(x)).detach().numpy()], run(tmp_path / "trained.onnx", x))


def test_a_rank_that_the_file_fixes_decides_a_branch_at_any_batch() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[N, 1, 4] x) => (float[N, K] y)
    <int64 one = {1}, int64[1] axis = {1}>
    { s = Shape(x) d = Gather(s, one) c = Equal(d, one)
      y = If (c) <then_branch = t () => (float[N, 4] r) { r = Squeeze(x, axis) },
                  else_branch = e () => (float[N, 1, 4] r) { r = Identity(x) }> }"""
    bound = imported(onnx.parser.parse_model(text))
    assert not any(type(module).__name__ == "If" for module in bound.modules())
    assert bound(torch.zeros(3, 1, 4)).shape == (3, 4)


def test_a_branch_may_return_what_is_outside_of_it_or_what_it_stores() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[3] x, bool c) => (float[3] y, float[3] z)
    { y, z = If (c) <
        then_branch = t () => (float[3] a, float[3] b) <float[3] a = {1, 2, 3}> { b = Relu(x) },
        else_branch = e () => (float[3] a, float[3] a2) { a = Neg(x) a2 = Identity(a) }> }"""
    for chosen in (True, False):
        assert_equals_onnxruntime(text, drawn(3), np.array(chosen))


LOOP = """
<ir_version: 8, opset_import: ["" : %d]>
g (int64 trips, bool go, float[2, 3] x) => (float[2, 3] last, float[T, 2, 3] all, int64[T] counts)
<float[3, 3] w = {0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9}, float limit = {40.0}>
{
    last, all, counts = Loop (trips, go, x) <body = b (int64 i, bool c, float[2, 3] h)
        => (bool on, float[2, 3] next, float[2, 3] seen, int64 count)
        { m = MatMul(h, w) next = Add(m, x) seen = Identity(m) t = ReduceSum<keepdims = 0>(next)
          on = Less(t, limit) count = Add(i, i) }>
}
"""


@pytest.mark.parametrize("opset", [13, 16, 19, 21])
@pytest.mark.parametrize(("trips", "go"), [(0, True), (3, True), (3, False), (500, True)])
def test_a_loop_ends_by_its_count_or_its_condition(opset: int, trips: int, *, go: bool) -> None:
    assert_equals_onnxruntime(LOOP % opset, np.array(trips), np.array(go), np.abs(drawn(2, 3)))


def test_a_weight_that_a_loop_reads_is_trained() -> None:
    bound = imported(onnx.parser.parse_model(LOOP % 17))
    assert set(bound.bindings) == {"w"}
    last, every, _ = bound(torch.tensor(4), torch.tensor(True), torch.ones(2, 3))
    (last.sum() + every.sum()).backward()
    weight = bound.bindings["w"]

    def total(w: torch.Tensor) -> torch.Tensor:
        h, result = torch.ones(2, 3), torch.tensor(0.0)
        for _ in range(len(every)):
            result = result + (h @ w).sum()
            h = h @ w + 1
        return result + h.sum()

    expected = torch.autograd.functional.jacobian(total, weight.detach())
    torch.testing.assert_close(weight.grad, expected)


def test_loops_within_branches_within_loops(tmp_path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[3] x) => (float[3] y)
    <int64 four = {4}, int64 two = {2}, int64 zero = {0}, float[3] w = {0.5, 2.0, -1.0}>
    { y = Loop (four, , x) <body = b (int64 i, bool c, float[3] h) => (bool on, float[3] n)
        { on = Identity(c) r = Mod(i, two) even = Equal(r, zero)
          n = If (even) <
            then_branch = t () => (float[3] o) { o = Loop (i, , h) <body = d (int64 j, bool c2, float[3] k)
                => (bool on2, float[3] o2) <float[3] v = {1.0, 2.0, 3.0}>
                { on2 = Identity(c2) p = Mul(k, w) o2 = Add(p, v) }> },
            else_branch = e () => (float[3] o) <float[3] v = {3.0, 1.0, 1.0}> { o = Add(h, v) }> }> }"""
    assert_equals_onnxruntime(text, drawn(3))
    bound = to_torch(save(text, tmp_path / "deep.onnx"))
    bound(torch.from_numpy(drawn(3))).sum().backward()
    assert {name.rpartition("/")[2] for name in bound.bindings} == {"w", "v"}
    assert len(bound.bindings) == 3
    assert all(parameter.grad is not None for parameter in bound.parameters())


def test_a_loop_without_count_or_condition_ends_by_what_it_computes() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[1] x) => (float[1] y)
    <float limit = {100.0}> { y = Loop (, , x) <body = b (int64 i, bool c, float[1] h) => (bool on, float[1] n)
        { n = Add(h, h) s = ReduceSum<keepdims = 0>(n) on = Less(s, limit) }> }"""
    assert_equals_onnxruntime(text, np.array([3.0], "f4"))


def test_a_trip_count_may_come_from_a_shape() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[N, 2] x) => (float[2] y)
    <int64 zero = {0}, float[2] start = {0.0, 1.0}>
    { s = Shape(x) n = Gather(s, zero) y = Loop (n, , start) <body = b (int64 i, bool c, float[2] h)
        => (bool on, float[2] o) { on = Identity(c) row = Gather(x, i) o = Add(h, row) }> }"""
    assert_equals_onnxruntime(text, drawn(5, 2))


SCAN = """
<ir_version: 8, opset_import: ["" : %d]>
g (float[2] first, float[4, 2, 3] a, float[2, 4] b) => (float[2] last, float[2, 4] sums, float[4, 3] rows)
{
    last, sums, rows = Scan <num_scan_inputs = 2, scan_input_axes = [0, 1], scan_input_directions = [1, 0],
        scan_output_axes = [1, 0], scan_output_directions = [0, 1],
        body = g2 (float[2] s, float[2, 3] p, float[2] q) => (float[2] n, float[2] o, float[3] r)
        { t = ReduceSum<axes = [1], keepdims = 0>(p) u = Add(t, q) n = Add(s, u) o = Identity(n)
          r = ReduceSum<axes = [0], keepdims = 0>(p) }> (first, a, b)
}
"""


@pytest.mark.parametrize("opset", [9, 11])
def test_a_scan_goes_along_axes_in_both_directions(opset: int) -> None:
    assert_equals_onnxruntime(SCAN % opset, drawn(2), drawn(4, 2, 3), drawn(2, 4))


def test_a_scan_of_version_8_goes_through_a_batch() -> None:
    text = """<ir_version: 3, opset_import: ["" : 8]>
    g (int64[3] lengths, float[3, 2] first, float[3, 5, 2] x) => (float[3, 2] last, float[3, 5, 2] sums)
    { last, sums = Scan <num_scan_inputs = 1, body = g2 (float[2] s, float[2] p) => (float[2] n, float[2] o)
        { n = Add(s, p) o = Identity(n) }> (lengths, first, x) }"""
    lengths = np.array([5, 2, 3])
    assert_equals_onnxruntime(text, lengths, drawn(3, 2), drawn(3, 5, 2))


SEQUENCES = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[6, 4] x, int64 i) => (float[4, 4] all, float[2, 2, 4] stacked, float[2, 4] one, int64 n)
<int64[3] sizes = {1, 3, 2}, int64 two = {2}, int64 last = {-1}>
{
    parts = SplitToSequence(x, sizes)
    even = SplitToSequence<axis = 0>(x, two)
    some = SequenceErase(parts, i)
    row = SequenceAt(even, last)
    more = SequenceInsert(some, row, last)
    n = SequenceLength(more)
    fewer = SequenceErase(more)
    first = SequenceAt(more, i)
    two_rows = SequenceConstruct(row, row)
    stacked = ConcatFromSequence<axis = 0, new_axis = 1>(two_rows)
    one = SequenceAt(more, last)
    joined = ConcatFromSequence<axis = 0>(fewer)
    all = Identity(joined)
}
"""


@pytest.mark.parametrize("i", [0, -3])
def test_sequences_are_lists(i: int) -> None:
    model = onnx.parser.parse_model(SEQUENCES)
    values = {"x": drawn(6, 4), "i": np.array(i)}
    expected = ReferenceEvaluator(model).run(None, values)
    found = imported(model)(*map(torch.from_numpy, values.values()))
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs)
