"""Quantised operators, held against onnx's reference and onnxruntime, and the gradients that they let through."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import quantization

from mothkit_converters import UnboundWeightsError, UnsupportedOpError, diff, to_torch, write_back
from tests.converters.ops.single import assert_same, imported, model_of, one, ours, reference, runtime

Array = NDArray[Any]
KINDS = {"uint8": np.uint8, "int8": np.int8, "uint16": np.uint16, "int16": np.int16}
GENERATOR = np.random.default_rng(5)


def drawn(*shape: int, scale: float = 1.0) -> Array:
    return (np.random.default_rng(0).normal(size=shape) * scale).astype("f4")


def whole(*shape: int, dtype: str = "uint8") -> Array:
    info = np.iinfo(dtype)
    return np.random.default_rng(1).integers(info.min, info.max, shape, dtype=dtype, endpoint=True)


@pytest.mark.parametrize("opset", [10, 13, 19, 21, 23, 24, 25])
@pytest.mark.parametrize("kind", KINDS)
def test_one_scale_rounds_to_even_and_saturates(opset: int, kind: str) -> None:
    if opset < 21 and "16" in kind:
        pytest.skip("no 16-bit integers yet")
    x = np.array([-1e6, -3.5, -2.5, -0.5, 0.0, 0.5, 1.5, 2.5, 1e6], "f4")
    zero = np.array(7, kind)
    scale = np.array(1.0, "f4")
    theirs = runtime if opset < 23 else reference  # each knows the versions that the other does not
    model, given = one("QuantizeLinear", x, scale, zero, opset=opset)
    assert_same(ours(model, given), theirs(model, given))
    model, given = one("DequantizeLinear", whole(3, 5, dtype=kind), np.array(0.3, "f4"), zero, opset=opset)
    assert_same(ours(model, given), theirs(model, given))


@pytest.mark.parametrize("axis", [None, 0, 2, -2])
def test_each_channel_has_its_scale(axis: int | None) -> None:
    x, count = drawn(2, 3, 4, scale=50), (2, 3, 4)[1 if axis is None else axis]
    scale = np.linspace(0.5, 2, count).astype("f4")
    zero = np.arange(count).astype("i1")
    named = {} if axis is None else {"axis": axis}
    model, given = one("QuantizeLinear", x, scale, zero, opset=13, **named)
    assert_same(ours(model, given), runtime(model, given))
    model, given = one("DequantizeLinear", whole(2, 3, 4, dtype="int8"), scale, zero, opset=13, **named)
    assert_same(ours(model, given), runtime(model, given))


@pytest.mark.parametrize("opset", [21, 23])
def test_blocks_have_their_scales(opset: int) -> None:
    scale = np.linspace(0.5, 2, 12).reshape(2, 3, 2).astype("f4")
    zero = np.arange(12).reshape(2, 3, 2).astype("u1")
    model, given = one(
        "QuantizeLinear", drawn(2, 3, 4, scale=30), scale, zero, opset=opset, axis=2, block_size=2
    )
    assert_same(ours(model, given), runtime(model, given))
    model, given = one("DequantizeLinear", whole(2, 3, 4), scale, zero, opset=opset, axis=2, block_size=2)
    assert_same(ours(model, given), runtime(model, given))


def test_the_zero_point_or_the_attribute_names_the_type() -> None:
    x, scale = drawn(5, scale=40), np.array(0.5, "f4")
    model, given = one("QuantizeLinear", x, scale, opset=13)
    assert ours(model, given)[0].dtype == np.uint8
    model, given = one("QuantizeLinear", x, scale, opset=21, output_dtype=TensorProto.INT16)
    assert_same(ours(model, given), reference(model, given))
    model, given = one("DequantizeLinear", np.array([3, -(2**28)], "i4"), scale, opset=13)
    assert_same(ours(model, given), runtime(model, given))
    model, given = one("QuantizeLinear", np.array([-7, 300, 8], "i4"), scale, opset=19)
    assert_same(ours(model, given), reference(model, given))


@pytest.mark.parametrize(
    ("kind", "name"), [(TensorProto.FLOAT8E4M3FN, "FLOAT8E4M3FN"), (TensorProto.INT4, "INT4")]
)
def test_types_that_torch_lacks_are_refused_by_name(kind: int, name: str) -> None:
    model, _ = one("QuantizeLinear", drawn(3), np.array(1.0, "f4"), opset=21, output_dtype=kind)
    with pytest.raises(UnsupportedOpError, match=rf"QuantizeLinear \(version 21\).*{name}"):
        imported(model)
    node = helper.make_node("DequantizeLinear", ["x", "s"], ["y"])
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", kind, [3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3])],
        [numpy_helper.from_array(np.array(1.0, "f4"), "s")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    with pytest.raises(UnsupportedOpError, match=rf"DequantizeLinear \(version 21\).*{name}"):
        imported(model)


def test_weights_of_four_bits_are_read() -> None:
    values = np.arange(-8, 8).reshape(4, 4)
    weight = helper.make_tensor("w", TensorProto.INT4, [4, 4], values.ravel())
    scale = numpy_helper.from_array(np.array([[0.5, 1, 2, 3], [1, 1, 1, 1]], "f4"), "s")
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["d"], axis=0, block_size=2),
        helper.make_node("MatMul", ["x", "d"], ["y"]),
    ]
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])]
    graph = helper.make_graph(
        nodes, "g", given, [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])], [weight, scale]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    x = {"x": drawn(3, 4)}
    found = imported(model, allow_unbound=True)(torch.from_numpy(x["x"]))
    assert_same([found.numpy()], runtime(model, x))


def test_a_range_is_found_as_onnx_finds_it() -> None:
    for x in (drawn(3, 7, scale=5), np.abs(drawn(3, 7)), -np.abs(drawn(3, 7)), drawn(1)):
        model, given = one("DynamicQuantizeLinear", x, opset=11, outputs=3)
        assert_same(ours(model, given), runtime(model, given))


@pytest.mark.parametrize("zeros", ["none", "scalar", "channels"])
def test_integer_products_are_exact(zeros: str) -> None:
    x, w = whole(2, 4, 7, 6), whole(4, 2, 3, 2)
    points = [] if zeros == "none" else [np.array(130, "u1"), np.array(100, "u1")]
    if zeros == "channels":
        points[1] = np.array([3, 100, 200, 5], "u1")
    model, given = one(
        "ConvInteger", x, w, *points, opset=10, group=2, pads=[1, 0, 2, 1], strides=[2, 1], dilations=[1, 2]
    )
    assert_same(ours(model, given), runtime(model, given) if zeros != "channels" else reference(model, given))
    a, b = whole(2, 5, 600), whole(600, 3, dtype="int8")
    rows = [] if zeros == "none" else [np.array(7, "u1"), np.array(-3, "i1")]
    if zeros == "channels":
        rows = [np.array(7, "u1"), np.array([1, -2, 3], "i1")]
    model, given = one("MatMulInteger", a, b, *rows, opset=10)
    assert_same(ours(model, given), runtime(model, given))


@pytest.mark.parametrize("opset", [10, 21])
@pytest.mark.parametrize("columns", [False, True])
def test_linear_products_round_as_onnxruntime_does(opset: int, *, columns: bool) -> None:
    scale, zero = np.array(0.02, "f4"), np.array(110, "u1")
    b_scale = np.array([0.01, 0.02, 0.03], "f4") if columns else scale
    b_zero = np.array([0, 0, 0], "i1") if columns else np.array(3, "i1")
    y_scale, y_zero = np.array(0.4, "f4"), np.array(120, "u1")
    given = (whole(4, 9), scale, zero, whole(9, 3, dtype="int8"), b_scale, b_zero, y_scale, y_zero)
    model, values = one("QLinearMatMul", *given, opset=opset)
    assert_same(ours(model, values), runtime(model, values))
    w_zero = np.zeros(5, "i1") if columns else np.array(0, "i1")
    w_scale = np.linspace(0.01, 0.03, 5).astype("f4") if columns else scale
    conv = (whole(2, 3, 6, 7), scale, zero, whole(5, 3, 3, 2, dtype="int8"), w_scale, w_zero, y_scale, y_zero)
    bias = np.array([0, -2000, 3000, 100000, 5], "i4")
    model, values = one(
        "QLinearConv", *conv, bias, opset=opset, pads=[1, 1, 0, 1], strides=[1, 2], stored=(3, 4, 5)
    )
    found = imported(model, allow_unbound=True)(
        *(torch.from_numpy(values[i.name]) for i in model.graph.input)
    )
    assert_same([found.numpy()], runtime(model, values))


S, Z = np.array(0.05, "f4"), np.array(120, "u1")
S2, Z2 = np.array(0.02, "f4"), np.array(100, "u1")
MICROSOFT: list[tuple[str, list[Array | None], dict[str, Any]]] = [
    ("QLinearAdd", [whole(2, 3, 4), S, Z, whole(3, 1), S2, Z2, S, Z2], {}),
    ("QLinearMul", [whole(2, 3, 4), S, Z, whole(3, 1), S2, Z2, S, Z2], {}),
    ("QLinearSigmoid", [whole(2, 3, 4), S, Z, np.array(1 / 256, "f4"), np.array(0, "u1")], {}),
    ("QLinearLeakyRelu", [whole(2, 3, 4), S, Z, S2, Z2], {"alpha": 0.1}),
    ("QLinearSoftmax", [whole(2, 3, 4), S, Z, np.array(1 / 256, "f4"), np.array(0, "u1")], {"opset": 13}),
    (
        "QLinearSoftmax",
        [whole(2, 3, 4), S, Z, np.array(1 / 256, "f4"), np.array(0, "u1")],
        {"opset": 12, "axis": 1},
    ),
    ("QLinearGlobalAveragePool", [whole(2, 3, 4, 5), S, Z, S2, Z2], {}),
    (
        "QLinearAveragePool",
        [whole(2, 3, 7, 5), S, Z, S2, Z2],
        {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1]},
    ),
    ("QLinearConcat", [S, Z, whole(2, 3), S, Z, whole(2, 4), S2, Z2], {"axis": 1}),
    (
        "QLinearWhere",
        [np.array([[True], [False]]), whole(2, 3), S, Z, whole(2, 3), S2, Z2, S, Z],
        {},
    ),
    (
        "QGemm",
        [whole(4, 6), S, Z, whole(5, 6), S2, Z2, np.arange(5, dtype="i4"), np.array(3.0, "f4"), Z],
        {"transB": 1, "alpha": 0.5},
    ),
    ("QGemm", [whole(6, 4), S, Z, whole(6, 5), S2, Z2], {"transA": 1}),
    ("MatMulIntegerToFloat", [whole(4, 6), whole(6, 5), S, S2, Z, Z2, drawn(5)], {}),
    ("DynamicQuantizeMatMul", [drawn(4, 6), whole(6, 5), S2, Z2, drawn(5)], {}),
    ("DequantizeLinear", [whole(4, 6), S, Z], {}),
    ("QuantizeLinear", [drawn(4, 6), S, Z], {}),
]


@pytest.mark.parametrize(
    ("op", "inputs", "attributes"), MICROSOFT, ids=[f"{i}-{case[0]}" for i, case in enumerate(MICROSOFT)]
)
def test_onnxruntimes_own_operators_agree_within_a_step(
    op: str, inputs: list[Array | None], attributes: dict[str, Any]
) -> None:
    names = ["" if x is None else f"i{i}" for i, x in enumerate(inputs)]
    given = {f"i{i}": x for i, x in enumerate(inputs) if x is not None}
    node = helper.make_node(op, names, ["y"], domain="com.microsoft", **attributes)
    stored = [name for name in given if given[name].ndim == 0]
    model = model_of(node, given, 17, stored=stored)
    floats = op in ("MatMulIntegerToFloat", "DynamicQuantizeMatMul", "DequantizeLinear") or len(inputs) == 6
    kind = TensorProto.FLOAT if floats else TensorProto.UINT8
    model.graph.output[0].type.tensor_type.elem_type = kind
    expected = runtime(model, given)[0]
    found = ours(model, given)[0]
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    if found.dtype.kind == "f":
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    else:  # onnxruntime's kernels round sums of floats that they make in another order
        assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1


def test_what_a_quantised_operator_leaves_out_is_refused() -> None:
    node = helper.make_node("QLinearSigmoid", ["x", "s", "", "s"], ["y"], domain="com.microsoft")
    model = model_of(node, {"x": whole(3), "s": S}, 17, stored=["s"])
    with pytest.raises(UnsupportedOpError, match="no input for y_zero"):
        imported(model)
    node = helper.make_node(
        "QLinearGlobalAveragePool", ["x", "s", "z", "s", "z"], ["y"], domain="com.microsoft", channels_last=1
    )
    model = model_of(node, {"x": whole(1, 3, 3, 2), "s": S, "z": Z}, 17, stored=["s", "z"])
    with pytest.raises(UnsupportedOpError, match="channels last"):
        imported(model)


def test_rounding_passes_gradients_inside_its_range_alone() -> None:
    text = """<ir_version: 8, opset_import: ["" : 13]> g (float[N] x) => (float[N] y)
        <float s = {0.5}, int8 z = {10}> { q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z) }"""
    x = torch.tensor([-100.0, -3.3, 0.0, 0.26, 58.4, 59.0, 100.0], requires_grad=True)
    y = imported(onnx.parser.parse_model(text))(x)
    assert y.tolist() == [-69.0, -3.5, 0.0, 0.5, 58.5, 58.5, 58.5]
    y.sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 1, 1, 0, 0]


def test_integers_that_are_seen_stay_integers() -> None:
    text = """<ir_version: 8, opset_import: ["" : 13]> g (float[N] x) => (float[N] y, uint8[N] q, int64[N] i)
        <float s = {0.5}, uint8 z = {10}> { q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z)
        p = QuantizeLinear(x, s, z) i = Cast<to = 7>(p) }"""
    y, q, i = imported(onnx.parser.parse_model(text))(torch.tensor([1.0, 2.2]))
    assert (y.dtype, q.dtype, i.dtype) == (torch.float32, torch.uint8, torch.int64)
    assert q.tolist() == i.tolist() == [12, 14]


FLOAT_SIDE = """
<ir_version: 8, opset_import: ["" : 13]>
g (float[N, 2, 5, 5] x) => (float[N, 3] y)
<float s = {0.02}, uint8 z = {128}, int8 zw = {0}>
{
    xq = QuantizeLinear(x, s, z)
    xd = DequantizeLinear(xq, s, z)
    wq = QuantizeLinear<axis = 0>(w, sw, zw3)
    wd = DequantizeLinear<axis = 0>(wq, sw, zw3)
    h = Conv(xd, wd, b)
    r = Relu(h)
    p = GlobalAveragePool(r)
    y = Flatten(p)
}
"""


def test_float_weights_behind_rounding_are_trained_and_written_back(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(FLOAT_SIDE)
    stored = {"w": drawn(3, 2, 3, 3), "b": drawn(3), "sw": np.array([0.02, 0.03, 0.04], "f4")}
    stored["zw3"] = np.zeros(3, "i1")
    model.graph.initializer.extend(numpy_helper.from_array(x, name) for name, x in stored.items())
    path = tmp_path / "float.onnx"
    path.write_bytes(model.SerializeToString())
    bound = to_torch(path)
    assert set(bound.bindings) == {"w", "b"}
    assert not bound.unbound
    x = drawn(4, 2, 5, 5)
    optimiser = torch.optim.Adam(bound.parameters(), lr=0.01)
    losses = []
    for _ in range(20):
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(bound(torch.from_numpy(x)), torch.tensor([0, 1, 2, 0]))
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    write_back(bound, tmp_path / "trained.onnx")
    assert {change.name for change in diff(path, tmp_path / "trained.onnx").changes} == {"w", "b"}
    expected = runtime(onnx.load(tmp_path / "trained.onnx"), {"x": x})[0]
    np.testing.assert_allclose(bound(torch.from_numpy(x)).detach().numpy(), expected, rtol=1e-4, atol=1e-5)


class Images(quantization.CalibrationDataReader):
    """Feeds the quantiser what it measures ranges with."""

    def __init__(self, x: Array) -> None:
        self.left = [{"x": x}]

    def get_next(self) -> dict[str, Array] | None:
        return self.left.pop() if self.left else None


CNN = """
<ir_version: 8, opset_import: ["" : 13]>
g (float[N, 2, 8, 8] x) => (float[N, 4] y)
{
    a = Conv<pads = [1, 1, 1, 1]>(x, w1, b1)
    b = Relu(a)
    c = Conv<pads = [1, 1, 1, 1]>(b, w2, b2)
    d = Add(c, b)
    e = LeakyRelu(d)
    f = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(e)
    g = GlobalAveragePool(f)
    h = Flatten(g)
    i = Gemm<transB = 1>(h, w3, b3)
    y = Softmax(i)
}
"""


def quantised(folder: Path, style: quantization.QuantFormat | None, *, channels: bool) -> Path:
    """Return the file that onnxruntime makes of a small network; by its integers at run time without a style."""
    shapes = {"w1": (6, 2, 3, 3), "b1": (6,), "w2": (6, 6, 3, 3), "b2": (6,), "w3": (4, 6), "b3": (4,)}
    model = onnx.parser.parse_model(CNN)
    for index, (name, shape) in enumerate(shapes.items()):
        values = np.random.default_rng(index).normal(size=shape, scale=0.4).astype("f4")
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    (folder / "float.onnx").write_bytes(model.SerializeToString())
    out = folder / "quantised.onnx"
    if style is None:
        quantization.quantize_dynamic(folder / "float.onnx", out, weight_type=quantization.QuantType.QUInt8)
    else:
        images = Images(drawn(8, 2, 8, 8))
        quantization.quantize_static(
            folder / "float.onnx", out, images, quant_format=style, per_channel=channels
        )
    return out


@pytest.mark.filterwarnings("ignore")  # the quantiser's own
@pytest.mark.parametrize("channels", [False, True])
@pytest.mark.parametrize("style", [*quantization.QuantFormat, None], ids=str)
def test_what_onnxruntimes_quantiser_writes(
    style: quantization.QuantFormat | None, tmp_path: Path, *, channels: bool
) -> None:
    path = quantised(tmp_path, style, channels=channels)
    with pytest.raises(UnboundWeightsError, match="harden the float model that was quantised") as caught:
        to_torch(path)
    assert {name.removesuffix("_quantized") for name in caught.value.integers} >= {"w1", "w2", "w3"}
    bound = to_torch(path, allow_unbound=True)
    x = drawn(5, 2, 8, 8)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    expected = session.run(None, {"x": x})[0]
    given = torch.from_numpy(x).requires_grad_()
    found = bound(given)
    step = 1 / 256 if style is quantization.QuantFormat.QOperator else 1e-5
    np.testing.assert_allclose(found.detach().numpy(), expected, atol=1.01 * step)
    found[:, 0].sum().backward()  # a gradient comes through to the input, and to each weight that is told
    assert given.grad.abs().sum() > 0
    assert all(parameter.grad is not None for parameter in bound.bindings.values())


def test_weights_behind_integers_that_are_seen_are_told(tmp_path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["" : 13]> g (float[N, 2] x) => (float[N, 2] y)
        <float[2, 2] w = {1, 2, 3, 4}, float[2] b = {1, 2}, float s = {0.5}>
        { h = MatMul(x, w) q = QuantizeLinear(h, s) i = Cast<to = 7>(q) f = Cast<to = 1>(i) y = Add(f, b) }"""
    path = tmp_path / "cut.onnx"
    path.write_bytes(onnx.parser.parse_model(text).SerializeToString())
    with pytest.raises(UnboundWeightsError, match=r"'w'; expected") as caught:
        to_torch(path)
    assert caught.value.names == ("w",)
    assert set(to_torch(path, allow_unbound=True).bindings) == {"b"}


@pytest.mark.parametrize(
    "body",
    [
        "h = Gather(table, x) y = DequantizeLinear(h, s)",
        "t = Transpose(table) h = DequantizeLinear(t, s) y = Gather(h, x)",
        "h = Cast<to = 1>(table) w = Mul(h, s) y = Gather(w, x)",
        """c = Cast<to = 9>(x) k = ReduceMax<keepdims = 0>(x) o = Cast<to = 9>(k) y = If (o) <
            then_branch = t () => (float[2, 3] r) { r = DequantizeLinear(table, s) },
            else_branch = e () => (float[2, 3] r) { d = DequantizeLinear(table, s) r = Neg(d) }>""",
    ],
)
def test_tables_of_integers_are_named_wherever_they_are_read(body: str) -> None:
    text = f"""<ir_version: 8, opset_import: ["" : 17]> g (int64[N] x) => (float[K, L] y)
        <float s = {{0.5}}> {{ {body} }}"""
    model = onnx.parser.parse_model(text)
    model.graph.initializer.append(numpy_helper.from_array(whole(2, 3, dtype="int8"), "table"))
    with pytest.raises(UnboundWeightsError, match=r"Integers have no gradient \('table'\)") as caught:
        imported(model)
    assert caught.value.integers == ("table",)
