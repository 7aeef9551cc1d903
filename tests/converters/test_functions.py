"""Operators that ONNX defines by others, and names within graphs within graphs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import GraphProto, ModelProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from mothkit_converters import UnsupportedOpError, to_torch
from mothkit_converters.functions import inline_defined
from mothkit_converters.scopes import all_graphs, all_nodes, hoist, unique_names
from mothkit_converters.tensors import weight_tensors


@pytest.mark.parametrize(
    ("op", "opset"), [("Gelu", 20), ("Mish", 18), ("Softmax", 13), ("LayerNormalization", 18), ("Elu", 22)]
)
def test_a_definition_computes_the_same(op: str, opset: int) -> None:
    weight = ", w" if op == "LayerNormalization" else ""
    text = f"""<ir_version: 8, opset_import: ["" : {opset}]> g (float[2, 4] x, bool c) => (float[2, 4] y)
        <float[4] w = {{1, 2, 3, 4}}>
        {{ h = {op}(x{weight}) y = If (c) <then_branch = t () => (float[2, 4] r) {{ r = {op}(h{weight}) }},
            else_branch = e () => (float[2, 4] r) {{ r = Identity(h) }}> }}"""
    model = onnx.parser.parse_model(text)
    written = inline_defined(model, lambda node: node.op_type != op)
    assert op not in {node.op_type for node in all_nodes(written.graph)}
    assert written.graph.initializer == model.graph.initializer
    x = np.random.default_rng(0).normal(size=(2, 4)).astype("f4")
    for chosen in (True, False):
        values = {"x": x, "c": np.array(chosen)}
        found, expected = (ReferenceEvaluator(m).run(None, values)[0] for m in (written, model))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_what_is_served_stays_as_it_is() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 20]> g (float[2] x) => (float[2] y) { y = Gelu(x) }'
    )
    assert inline_defined(model, lambda _: True) is model


def test_a_loss_that_onnx_defines_is_computed(tmp_path: Path) -> None:
    node = helper.make_node("SoftmaxCrossEntropyLoss", ["x", "t"], ["y"], reduction="mean")
    given = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [5, 3]),
        helper.make_tensor_value_info("t", TensorProto.INT64, [5]),
    ]
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [])
    graph = helper.make_graph([node], "loss", given, [out])
    path = tmp_path / "loss.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    x, target = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 2, 1, 1, 0])
    expected = torch.nn.functional.cross_entropy(x, target)
    torch.testing.assert_close(to_torch(path)(x, target), expected)


@pytest.mark.parametrize(("opset", "version"), [(11, 11), (17, 11), (18, 18), (22, 22)])
def test_a_refusal_names_the_version(tmp_path: Path, opset: int, version: int) -> None:
    text = f"""<ir_version: 8, opset_import: ["" : {opset}]> g (float[1, 1, 2, 2, 2, 2] x, bool c) => (float[] y)
        {{ y = If (c) <then_branch = t () => (float[] r) {{ r = LpPool<kernel_shape = [1, 1, 2, 2]>(x) }},
                       else_branch = e () => (float[] r) {{ r = ReduceMax<keepdims = 0>(x) }}> }}"""
    path = tmp_path / "pool.onnx"
    path.write_bytes(onnx.parser.parse_model(text).SerializeToString())
    with pytest.raises(
        UnsupportedOpError, match=rf"operator LpPool \(version {version}\) at node 'r'"
    ) as caught:
        to_torch(path)
    assert (caught.value.op, caught.value.node, caught.value.version) == ("LpPool", "r", version)


def test_a_refusal_at_run_time_names_file_and_version_too(tmp_path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["" : 14]> g (float[4] x, bool t) => (float[4] y)
        <float r = {0.5}> { y = Dropout(x, r, t) }"""
    path = tmp_path / "dropout.onnx"
    path.write_bytes(onnx.parser.parse_model(text).SerializeToString())
    bound = to_torch(path)
    assert bound(torch.ones(4), torch.tensor(False)).tolist() == [1, 1, 1, 1]
    with pytest.raises(UnsupportedOpError, match=r"dropout\.onnx: operator Dropout \(version 13\)"):
        bound(torch.ones(4), torch.tensor(True))


NAMES = st.sampled_from(["a", "b", "c"])


@st.composite
def nested(draw: st.DrawFn, depth: int = 3) -> GraphProto:
    """Return a graph of stored tensors in branches, many of one name."""
    names = draw(st.lists(NAMES, unique=True, max_size=3))
    tensors = [numpy_helper.from_array(np.array(float(draw(st.integers(0, 99)))), name) for name in names]
    nodes = [helper.make_node("Add", [name, "x"], [f"{name}{depth}"]) for name in names]
    for _ in range(draw(st.integers(0, 2)) if depth else 0):
        branches = {name: draw(nested(depth - 1)) for name in ("then_branch", "else_branch")}
        nodes.append(helper.make_node("If", ["x"], [f"out{len(nodes)}{depth}"], name="n", **branches))
    return helper.make_graph(nodes, "g", [], [], tensors)


@settings(deadline=None)
@given(nested())
def test_names_are_unique_and_those_of_the_files_tensors(graph: GraphProto) -> None:
    keys = [key for _, names in unique_names(graph) for key in names.values()]
    taken = [*keys, *(tensor.name for tensor in graph.initializer)]
    assert len(taken) == len(set(taken))
    stored = {name: numpy_helper.to_array(tensor).item() for name, tensor in weight_tensors(graph).items()}
    assert len(stored) == sum(len(part.initializer) for part in all_graphs(graph))
    copy = ModelProto(graph=graph).graph
    hoist(copy)
    assert {t.name: numpy_helper.to_array(t).item() for t in copy.initializer} == stored
    assert not any(part.initializer for part in list(all_graphs(copy))[1:])


@settings(deadline=None)
@given(nested())
def test_hoisting_changes_no_value(graph: GraphProto) -> None:
    copy = ModelProto(graph=graph).graph
    hoist(copy)
    before = {tensor.name: numpy_helper.to_array(tensor).item() for tensor in graph.initializer}
    after = {tensor.name: numpy_helper.to_array(tensor).item() for tensor in copy.initializer}
    assert read(graph, before) == read(copy, after)


def read(graph: GraphProto, values: dict[str, float]) -> list[float]:
    """Return what each Add of ``graph`` reads, in order, by the rules of scopes."""
    values = values | {tensor.name: numpy_helper.to_array(tensor).item() for tensor in graph.initializer}
    found = []
    for node in graph.node:
        if node.op_type == "Add":
            found.append(values[node.input[0]])
        for attribute in node.attribute:
            found += read(attribute.g, values)
    return found
