"""A graph as a torch module: the same numbers as onnxruntime, and every weight a parameter."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from mothkit_converters import (
    BatchError,
    ConversionError,
    Role,
    RunError,
    UnboundWeightsError,
    UnknownValueError,
    UnsupportedOpError,
    read_source,
    to_torch,
    write_back,
)
from tests.tiny import write_tiny

Save = Callable[..., Path]
Run = Callable[..., list[Any]]
Images = Callable[..., Any]
FLOAT = np.float32


def text(body: str, inputs: str = "float[N, 6] x", outputs: str = "float[N, 4] y", opset: int = 17) -> str:
    return f'<ir_version: 8, opset_import: ["" : {opset}]> g ({inputs}) => ({outputs}) {{ {body} }}'


def drawn(*shape: int, seed: int = 1) -> Any:
    return np.random.default_rng(seed).uniform(0.2, 1.0, shape).astype(FLOAT)


@pytest.mark.parametrize("batch", [1, 4])
def test_the_module_agrees_with_onnxruntime(cnn: Path, run: Run, images: Images, batch: int) -> None:
    x = images(batch, 3, 8, 8)
    y = to_torch(cnn)(torch.from_numpy(x))
    np.testing.assert_allclose(y.detach().numpy(), run(cnn, x)[0], rtol=1e-4, atol=1e-6)


def test_a_weight_that_is_expanded_to_the_batch_is_trained(save: Save) -> None:
    body = "n = Shape<end = 1>(x) s = Concat<axis = 0>(n, k) t = Expand(token, s) y = Concat<axis = 1>(t, x)"
    weights = {"token": drawn(1, 2), "k": np.array([2])}
    bound = to_torch(save(text(body, outputs="float[N, 8] y"), weights))
    assert set(bound.bindings) == {"token"}
    bound(torch.rand(3, 6)).sum().backward()
    assert bound.tensor("token").grad.tolist() == [[3, 3]]


def test_every_weight_is_a_parameter_and_every_statistic_a_buffer(cnn: Path) -> None:
    bound = to_torch(cnn)
    weights = {"conv_w", "conv_b", "scale", "shift", "head_w", "head_b"}
    assert {name for name, binding in bound.ties.items() if binding.trainable} == weights
    assert {n for n, b in bound.ties.items() if b.role is Role.STATISTIC} == {"mean", "var"}
    assert len(list(bound.parameters())) == len(weights)
    assert bound.unbound == ()
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in bound.source.proto.graph.initializer}
    for name, binding in bound.ties.items():
        np.testing.assert_array_equal(bound.tensor(name).detach().numpy(), stored[name])
        assert binding.torch_name in dict([*bound.named_parameters(), *bound.named_buffers()])


def test_a_step_of_sgd_moves_every_weight(cnn: Path, images: Images) -> None:
    bound = to_torch(cnn).train()
    before = {name: bound.tensor(name).detach().clone() for name in bound.ties}
    optimiser = torch.optim.SGD(bound.parameters(), lr=1.0)
    logits = to_torch(cnn, outputs=["logits"])
    assert logits.output_names == ("logits",)
    bound(torch.from_numpy(images(8, 3, 8, 8)))[:, 0].log().sum().backward()
    optimiser.step()
    still = {name for name in before if torch.equal(before[name], bound.tensor(name))}
    assert still <= {"conv_b"}  # a bias before a batch normalisation has next to no gradient


def test_any_value_can_be_asked_for(cnn: Path, run: Run, images: Images) -> None:
    x = images(2, 3, 8, 8)
    names = ["pool", "conv", "logits", "probabilities", "norm", "flat"]
    found = to_torch(cnn, outputs=names)(torch.from_numpy(x))
    for name, tensor, expected in zip(names, found, run(cnn, x, values=names), strict=True):
        np.testing.assert_allclose(tensor.detach().numpy(), expected, rtol=1e-4, atol=1e-5, err_msg=name)


def test_inputs_and_weights_are_values_too(cnn: Path, images: Images) -> None:
    x = torch.from_numpy(images(1, 3, 8, 8))
    same, weight, shape = to_torch(cnn, outputs=["x", "conv_w", "shape"])(x)
    assert same is x
    assert weight.shape == (5, 3, 3, 3)
    assert shape.tolist() == [-1, 80]


def test_a_value_that_is_not_there_is_refused(cnn: Path) -> None:
    with pytest.raises(UnknownValueError, match="no value 'nowhere'"):
        to_torch(cnn, outputs=["nowhere"])


def test_what_comes_after_the_cut_need_not_be_supported(save: Save) -> None:
    path = save(text("h = MatMul(x, w) y = RandomNormalLike(h)"), {"w": drawn(6, 4)})
    with pytest.raises(
        UnsupportedOpError, match=r"model\.onnx: operator RandomNormalLike .*at node 'y'.*random"
    ) as caught:
        to_torch(path)
    assert (caught.value.op, caught.value.node) == ("RandomNormalLike", "y")
    assert to_torch(path, outputs=["h"])(torch.ones(2, 6)).shape == (2, 4)


def test_an_operator_of_an_unknown_domain_is_refused_with_domain_and_version(save: Save) -> None:
    graph = """<ir_version: 8, opset_import: ["" : 17, "corp" : 3]>
    g (float[N, 6] x) => (float[N, 6] y) { y = corp.Relu(x) }"""
    with pytest.raises(
        UnsupportedOpError, match=r"Relu \(version 3\) at node 'y'.*opset 3 of the domain 'corp'"
    ):
        to_torch(save(graph))


def test_outputs_come_in_the_graphs_order(save: Save) -> None:
    parts = "a, b = Split<axis = 1>(x) c = Relu(b)"
    path = save(text(parts, outputs="float[N, 3] c, float[N, 3] b, float[N, 3] a", opset=13))
    x = torch.arange(6.0)[None] - 4
    c, b, a = to_torch(path)(x)
    assert (a.tolist(), b.tolist(), c.tolist()) == ([[-4, -3, -2]], [[-1, 0, 1]], [[0, 0, 1]])


def test_a_wrong_number_of_inputs_is_refused(cnn: Path) -> None:
    with pytest.raises(ConversionError, match="called with 2 inputs; expected"):
        to_torch(cnn)(torch.ones(1), torch.ones(1))


def test_dense_layers_without_gemm_are_trained(save: Save, run: Run) -> None:
    body = "a = MatMul(x, w) b = Add(a, bias) c = PRelu(b, slope) d = Mul(c, gain) y = Sub(d, half)"
    weights = {"w": drawn(6, 4), "bias": drawn(4), "slope": drawn(4), "gain": drawn(4)}
    path = save(text(body), weights | {"half": np.asarray(0.5, FLOAT)})
    bound = to_torch(path)
    assert {name for name, binding in bound.ties.items() if binding.trainable} == set(weights)
    assert bound.ties["half"].role is Role.CONSTANT
    x = drawn(3, 6) - 0.6
    np.testing.assert_allclose(bound(torch.from_numpy(x)).detach().numpy(), run(path, x)[0], rtol=1e-5)


def test_the_normalisation_of_the_input_is_no_weight(save: Save) -> None:
    body = "a = Sub(x, mean) b = Div(a, std) c = MatMul(b, w) y = Add(c, bias)"
    path = save(text(body), {"mean": drawn(6), "std": drawn(6), "w": drawn(6, 4), "bias": drawn(4)})
    roles = {name: binding.role for name, binding in to_torch(path).ties.items()}
    assert roles == {
        "mean": Role.CONSTANT,
        "std": Role.CONSTANT,
        "w": Role.WEIGHT,
        "bias": Role.WEIGHT,
    }


@pytest.mark.parametrize(("bias", "role"), [((1,), Role.WEIGHT), ((1, 1), Role.WEIGHT), ((), Role.CONSTANT)])
def test_the_bias_of_a_single_logit_is_trained(save: Save, bias: Any, role: Role) -> None:
    body = "a = MatMul(x, w) b = Add(a, bias) c = Mul(b, bias2) y = Sigmoid(c)"
    weights = {"w": drawn(6, 1), "bias": drawn(*bias), "bias2": drawn(1)}
    bound = to_torch(save(text(body, outputs="float[N, 1] y"), weights))
    assert bound.ties["bias"].role is role
    assert bound.ties["bias2"].role is Role.CONSTANT


@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize("bias", [(4,), (1,), (2, 4), None])
def test_gemm_takes_its_weights_as_they_are(save: Save, run: Run, trans_b: int, bias: Any) -> None:
    weights = {"w": drawn(4, 6) if trans_b else drawn(6, 4)}
    if bias is not None:
        weights["b"] = drawn(*bias)
    body = f"y = Gemm<alpha = 0.5, beta = 2.0, transB = {trans_b}>(x, w{', b' if bias else ''})"
    path = save(text(body), weights)
    x = drawn(2, 6)
    bound = to_torch(path)
    np.testing.assert_allclose(bound(torch.from_numpy(x)).detach().numpy(), run(path, x)[0], rtol=1e-5)
    assert {b.transform for b in bound.ties.values()} == {"identity"}
    assert len(list(bound.parameters())) == len(weights)


def test_a_weight_used_twice_is_one_parameter_also_in_a_copy(save: Save) -> None:
    body = "a = MatMul(x, w) b = Relu(a) c = MatMul(b, w) d = Gemm(c, w, bias) y = Add(d, bias)"
    path = save(text(body, outputs="float[N, 6] y"), {"w": drawn(6, 6), "bias": drawn(6)})
    for bound in (first := to_torch(path), copy.deepcopy(first)):
        assert len(list(bound.parameters())) == 2
        with torch.no_grad():
            bound.tensor("w").zero_()
        assert torch.equal(bound(torch.ones(1, 6)), 2 * bound.tensor("bias").detach()[None])
    assert first.tensor("w") is not bound.tensor("w")


def test_convolutions_may_share_their_weight(save: Save) -> None:
    body = "a = Conv<pads = [1, 1, 1, 1]>(x, w) y = Conv<pads = [1, 1, 1, 1]>(a, w)"
    path = save(text(body, "float[N, 2, 5, 5] x", "float[N, 2, 5, 5] y"), {"w": drawn(2, 2, 3, 3)})
    bound = copy.deepcopy(to_torch(path)).to(torch.float64)
    assert len(list(bound.parameters())) == 1
    with torch.no_grad():
        bound.tensor("w").zero_()
    assert not bound(torch.ones(1, 2, 5, 5, dtype=torch.float64)).any()


def test_equal_weights_are_still_two(save: Save) -> None:
    path = save(
        text("a = MatMul(x, u) y = MatMul(a, v)", outputs="float[N, 6] y"),
        {"u": drawn(6, 6), "v": drawn(6, 6)},
    )
    bound = to_torch(path)
    assert len(list(bound.parameters())) == 2
    assert bound.tensor("u") is not bound.tensor("v")


def test_weights_in_constant_nodes_and_behind_identities_are_bound(save: Save, run: Run) -> None:
    body = (
        "w = Constant<value = float[6, 4] {"
        + ", ".join(map(str, range(24)))
        + "}>() i = Identity(b) y = Gemm(x, w, i)"
    )
    path = save(text(body), {"b": drawn(4)})
    bound = to_torch(path)
    assert {name for name, binding in bound.ties.items() if binding.trainable} == {"w", "b"}
    np.testing.assert_allclose(
        bound(torch.ones(2, 6)).detach().numpy(), run(path, np.ones((2, 6), FLOAT))[0], rtol=1e-5
    )


def test_a_weight_that_the_file_has_no_tensor_for_is_refused_by_name(save: Save) -> None:
    path = save(
        text("w = Constant<value_floats = [1.0, 2.0, 3.0, 4.0]>() h = MatMul(x, k) y = Add(h, w)"),
        {"k": drawn(6, 4)},
    )
    with pytest.raises(UnboundWeightsError, match=r"1 weight.*'w'") as caught:
        to_torch(path)
    assert caught.value.names == ("w",)
    bound = to_torch(path, allow_unbound=True)
    assert bound.unbound == ("w",)
    assert set(bound.ties) == {"k"}
    assert len(list(bound.parameters())) == 1


@pytest.mark.parametrize("training", [False, True])
def test_a_weight_that_is_a_statistic_too_is_trained_as_a_weight(
    save: Save, run: Run, tmp_path: Path, training: bool
) -> None:
    body = "a = MatMul(x, w) y = BatchNormalization(a, scale, zeros, zeros, var)"  # exporters merge equal tensors
    weights = {"w": drawn(6, 4), "scale": drawn(4), "zeros": np.zeros(4, FLOAT), "var": drawn(4)}
    path = save(text(body), weights)
    bound = to_torch(path)
    assert bound.unbound == ()
    assert bound.ties["zeros"].role is Role.WEIGHT
    bound.train(training)
    bound(torch.rand(8, 6)).sum().backward()
    torch.testing.assert_close(bound.tensor("zeros").grad, torch.full((4,), 8.0))  # of the bias alone
    torch.optim.SGD(bound.parameters(), lr=0.1).step()
    write_back(bound.eval(), tmp_path / "out.onnx")
    x = drawn(3, 6)
    found = bound(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(found, run(tmp_path / "out.onnx", x)[0], rtol=1e-4, atol=1e-5)


def test_statistics_that_two_nodes_share_stay(save: Save) -> None:
    body = "a = BatchNormalization(x, s, b, m, v) c = Relu(a) y = BatchNormalization(c, s, b, m, v)"
    weights = {"s": drawn(6), "b": drawn(6), "m": drawn(6), "v": drawn(6)}
    bound = to_torch(save(text(body, outputs="float[N, 6] y"), weights)).train()
    bound(torch.rand(8, 6))
    assert bound.ties["m"].role is Role.CONSTANT
    np.testing.assert_array_equal(bound.tensor("m").numpy(), weights["m"])


def test_batch_normalisation_follows_the_batch_in_train_mode_alone(save: Save) -> None:
    path = save(
        text("y = BatchNormalization<momentum = 0.8>(x, s, b, m, v)", outputs="float[N, 6] y"),
        {"s": np.ones(6, FLOAT), "b": np.zeros(6, FLOAT), "m": drawn(6), "v": drawn(6, seed=2)},
    )
    bound = to_torch(path)
    x = torch.rand(16, 6)
    before = bound.tensor("m").clone()
    bound(x)
    assert torch.equal(bound.tensor("m"), before)
    y = bound.train()(x)
    torch.testing.assert_close(y.mean(0), torch.zeros(6), atol=1e-5, rtol=0)
    torch.testing.assert_close(bound.tensor("m"), 0.8 * before + 0.2 * x.mean(0))
    torch.testing.assert_close(bound.tensor("v"), 0.8 * torch.from_numpy(drawn(6, seed=2)) + 0.2 * x.var(0))


@pytest.mark.parametrize("opset", [10, 17, 22])
def test_dropout_sleeps_in_eval_mode(save: Save, opset: int) -> None:
    body = (
        "y = Dropout<ratio = 0.5>(x)"
        if opset == 10
        else "r = Constant<value = float {0.5}>() y = Dropout(x, r)"
    )
    bound = to_torch(save(text(body, outputs="float[N, 6] y", opset=opset)))
    x = torch.ones(64, 6)
    assert torch.equal(bound(x), x)
    assert set(bound.train()(x).unique().tolist()) == {0.0, 2.0}


def test_an_unused_mask_of_dropout_does_no_harm(save: Save) -> None:
    path = save(text("h, mask = Dropout<ratio = 0.5>(x) y = Relu(h)", outputs="float[N, 6] y", opset=10))
    assert to_torch(path)(torch.ones(3, 6)).shape == (3, 6)


def test_a_batch_size_of_one_in_a_reshape_is_freed(save: Save, run: Run, images: Images) -> None:
    weights = {"w": drawn(24, 4), "s": np.array([1, 24])}
    path = save(text("r = Reshape(x, s) y = MatMul(r, w)", "float[1, 6, 2, 2] x", "float[1, 4] y"), weights)
    x = images(3, 6, 2, 2)
    y = to_torch(path)(torch.from_numpy(x)).detach().numpy()
    for image, row in zip(x, y, strict=True):
        np.testing.assert_allclose(row, run(path, image[None])[0][0], rtol=1e-5)


def test_a_batch_size_that_cannot_be_freed_is_told(save: Save) -> None:
    path = save(text("y = Reshape(x, s)", "float[1, 6, 2] x", "float[3, 4] y"), {"s": np.array([3, 4])})
    bound = to_torch(path)
    assert bound(torch.rand(1, 6, 2)).shape == (3, 4)
    with pytest.raises(BatchError, match="the file fixes"):
        bound(torch.rand(2, 6, 2))


@pytest.mark.parametrize("side", [7, 8])
@pytest.mark.parametrize("padding", ["SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize(
    "body",
    [
        "y = Conv<auto_pad = PAD, strides = [2, 2]>(x, w)",
        "y = Conv<auto_pad = PAD>(x, w)",
        "y = MaxPool<auto_pad = PAD, kernel_shape = [2, 3], strides = [2, 2]>(x)",
    ],
)
def test_same_padding_is_what_onnxruntime_does(
    save: Save, run: Run, images: Images, body: str, padding: str, side: int
) -> None:
    path = save(
        text(body.replace("PAD", f'"{padding}"'), f"float[N, 2, {side}, {side}] x", "float[N, 2, A, B] y")
    )
    model = onnx.load(path)
    if "w)" in body:
        model.graph.initializer.append(numpy_helper.from_array(drawn(2, 2, 3, 3), "w"))
        path.write_bytes(model.SerializeToString())
    x = images(2, 2, side, side)
    found = to_torch(path)(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(found, run(path, x)[0], rtol=1e-4, atol=1e-5)


def test_half_precision_is_computed_in_float32(save: Save, run: Run) -> None:
    body = "c = Cast<to = 10>(x) a = MatMul(c, w) b = Add(a, bias) y = Cast<to = 1>(b)"
    half = {"w": drawn(6, 4).astype(np.float16), "bias": drawn(4).astype(np.float16)}
    path = save(text(body), half)
    bound = to_torch(path)
    assert {p.dtype for p in bound.parameters()} == {torch.float32}
    assert bound.ties["w"].transform == "float32"
    x = drawn(2, 6)
    np.testing.assert_allclose(bound(torch.from_numpy(x)).detach().numpy(), run(path, x)[0], rtol=3e-3)


def test_an_old_opset_is_taken_as_it_is(save: Save, run: Run, images: Images) -> None:
    body = "n = BatchNormalization(x, s, b, m, v) p = MaxPool<kernel_shape = [2, 2]>(n) f = Flatten(p)"
    body += " y = Gemm(f, w, c)"
    weights = {"s": drawn(2), "b": drawn(2), "m": drawn(2), "v": drawn(2), "w": drawn(18, 4), "c": drawn(4)}
    path = save(text(body, "float[N, 2, 4, 4] x", opset=7), weights)
    x = images(2, 2, 4, 4)
    bound = to_torch(path)
    np.testing.assert_allclose(bound(torch.from_numpy(x)).detach().numpy(), run(path, x)[0], rtol=1e-4)
    assert set(bound.ties) == set(weights)


def test_local_functions_are_opened(cnn: Path, save: Save, run: Run) -> None:
    source = """
    <ir_version: 8, opset_import: ["" : 17, "local" : 1]>
    g (float[N, 6] x) => (float[N, 4] y) { h = local.dense(x, w, b)  y = Relu(h) }
    <domain: "local", opset_import: ["" : 17]>
    dense (a, k, c) => (out) { p = MatMul(a, k)  out = Add(p, c) }
    """
    path = save(source, {"w": drawn(6, 4), "b": drawn(4)})
    x = drawn(2, 6)
    bound = to_torch(path)
    assert {b.role for b in bound.ties.values()} == {Role.WEIGHT}
    np.testing.assert_allclose(bound(torch.from_numpy(x)).detach().numpy(), run(path, x)[0], rtol=1e-5)


def test_initializers_among_the_inputs_are_weights(cnn: Path, images: Images) -> None:
    model = onnx.load(cnn)
    for tensor in model.graph.initializer:
        info = helper.make_tensor_value_info(tensor.name, TensorProto.FLOAT, tensor.dims)
        model.graph.input.append(info)
    cnn.write_bytes(model.SerializeToString())
    bound = to_torch(cnn)
    assert bound.input_names == ("x",)
    assert bound(torch.from_numpy(images(2, 3, 8, 8))).shape == (2, 4)
    assert len(list(bound.parameters())) == 6


def test_a_stale_value_info_does_not_mislead(cnn: Path, images: Images) -> None:
    model = onnx.load(cnn)
    model.graph.value_info.append(helper.make_tensor_value_info("conv", TensorProto.FLOAT, [9, 9, 9]))
    cnn.write_bytes(model.SerializeToString())
    assert to_torch(cnn)(torch.from_numpy(images(2, 3, 8, 8))).shape == (2, 4)


def test_a_copy_can_be_pickled_and_moved(cnn: Path, images: Images) -> None:
    bound = to_torch(cnn)
    x = torch.from_numpy(images(1, 3, 8, 8))
    for twin in (copy.deepcopy(bound), pickle.loads(pickle.dumps(bound))):  # noqa: S301 - our own
        assert torch.equal(twin(x), bound(x))
        assert twin.tensor("conv_w") is not bound.tensor("conv_w")
    assert copy.deepcopy(bound).source is bound.source
    assert bound.to("meta").tensor("mean").device.type == "meta"


def test_the_source_stays_as_it_was(cnn: Path, images: Images) -> None:
    source = read_source(cnn)
    before = source.proto.SerializeToString()
    bound = to_torch(source).train()
    with torch.no_grad():
        bound(torch.from_numpy(images(4, 3, 8, 8)))
        for parameter in bound.parameters():
            parameter.zero_()
    assert source.proto.SerializeToString() == before


def test_a_model_without_values_that_are_numbers_still_imports(cnn: Path) -> None:
    model = onnx.load(cnn)
    model.graph.initializer[2].raw_data = np.full(5, np.nan, FLOAT).tobytes()
    cnn.write_bytes(model.SerializeToString())
    assert to_torch(cnn).tensor("scale").isnan().all()


# Operators that real models still wait for; the list may only shrink.
REFUSED = {"LinearClassifier", "OneHot", "QuantizeLinear", "DynamicQuantizeLinear"}


def numbers_for(value: Any, generator: np.random.Generator) -> Any:
    shape = [dim if isinstance(dim, int) and dim > 0 else 1 for dim in value.shape]
    if shape[2:] == [1, 1] and shape[1] == 3:
        shape[2:] = [64, 64]  # any size will do
    dtypes = {"float": "f4", "float16": "f2", "double": "f8", "int64": "i8"}
    if value.dtype == "uint8":
        return generator.integers(0, 256, shape, dtype=np.uint8)
    return generator.random(shape).astype(dtypes[value.dtype])


@pytest.mark.filterwarnings("default")
def test_real_models_agree_with_onnxruntime(real_model: Path, run: Run) -> None:
    source = read_source(real_model)
    try:
        bound = to_torch(source)
    except UnsupportedOpError as error:
        assert error.op in REFUSED
        return
    except UnboundWeightsError as error:
        assert error.names == error.integers  # a quantised file
        bound = to_torch(source, allow_unbound=True)
    inputs = [numbers_for(value, np.random.default_rng(0)) for value in source.inputs]
    with torch.no_grad():
        given = (torch.from_numpy(x.astype("f4") if x.dtype == "f2" else x) for x in inputs)
        found = bound(*given)
    for y, expected in zip(
        found if isinstance(found, tuple) else (found,), run(real_model, *inputs), strict=True
    ):
        if isinstance(expected, list):  # maps from label to score
            expected = np.array([list(scores.values()) for scores in expected])
        np.testing.assert_allclose(y.numpy(), expected, rtol=1e-3, atol=1e-4)
    for module in bound.modules():
        assert not isinstance(module, nn.Linear)  # nothing keeps a transposed copy


def test_bindings_are_the_parameters_themselves_also_of_a_copy(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "tiny.onnx")
    bound = to_torch(path)
    for module in (bound, copy.deepcopy(bound)):
        found = module.bindings
        assert set(found) == {"conv.weight", "bn.scale", "bn.bias", "fc.weight", "fc.bias"}
        assert {id(parameter) for parameter in found.values()} == {id(p) for p in module.parameters()}
    assert not {id(p) for p in bound.bindings.values()} & {id(p) for p in module.bindings.values()}


def test_inputs_that_no_named_output_depends_on_are_left_out(save: Save) -> None:
    inputs = "float[N, 6] x, float[N, 6] label, int64[N] i"
    path = save(text("y = Relu(x) z = Add(x, label)", inputs, "float[N, 6] y, float[N, 6] z"))
    assert to_torch(path).input_names == ("x", "label", "i")
    assert to_torch(path, outputs=["z"]).input_names == ("x", "label")
    bound = to_torch(path, outputs=["y"])
    assert bound.input_names == ("x",)
    x = torch.randn(3, 6)
    torch.testing.assert_close(bound(x), x.relu())


def test_a_failing_network_names_file_and_shapes_and_prints_nothing(
    cnn: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    found = r"model\.onnx: cannot be computed on float32 \[1, 4, 8, 8\].*x \['N', 3, 8, 8\]"
    with pytest.raises(RunError, match=found):
        to_torch(cnn)(torch.zeros(1, 4, 8, 8))
    assert capfd.readouterr() == ("", "")


def test_a_weight_of_another_shape_than_its_node_needs_is_told_with_the_node(
    save: Save, capfd: pytest.CaptureFixture[str]
) -> None:
    path = save(text("h = Relu(x) y = MatMul(h, w)"), {"w": drawn(5, 4)})
    with pytest.raises(RunError, match=r"\(operator MatMul at node 'y': RuntimeError: .*2x6 and 5x4"):
        to_torch(path)(torch.zeros(2, 6))
    assert capfd.readouterr() == ("", "")
