"""Files made to hurt: each is refused by name, or taken at a bounded cost."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, helper, numpy_helper

from mothkit_converters import (
    ConversionError,
    InvalidModelError,
    NotOnnxError,
    SourceError,
    TooLargeError,
    UnsupportedOpError,
    read_source,
    to_torch,
)
from mothkit_converters.shapes import inferred, known_dims
from mothkit_converters.wire import fields_of

Save = Callable[..., Path]
HEAD = '<ir_version: 8, opset_import: ["" : 18]> '


def sized(number: int, content: bytes) -> bytes:
    """Return a field of bytes as protobuf stores it."""

    def varint(value: int) -> bytes:
        return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + varint(value >> 7)

    return varint(number << 3 | 2) + varint(len(content)) + content


def stored(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def with_parts(path: Path, parts: bytes) -> Path:
    """Append ``parts`` to the model's graph."""
    model = onnx.load(path)
    graph = model.graph.SerializeToString() + parts
    model.ClearField("graph")
    return stored(path, model.SerializeToString() + sized(7, graph))


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.parametrize(
    "part", [sized(1, b""), sized(5, b""), sized(13, b""), sized(15, b""), sized(1, sized(5, b""))]
)
def test_millions_of_empty_parts_are_refused_before_they_are_made(cnn: Path, part: bytes) -> None:
    before = peak()
    with pytest.raises(TooLargeError, match=r"model\.onnx: its .* bytes hold more parts"):
        read_source(with_parts(cnn, part * 2_000_000))
    assert peak() - before < 100 * 2**20


def test_numbers_that_unpack_to_many_times_their_size_are_refused(cnn: Path) -> None:
    numbers = sized(7, bytes(20_000_000))  # int64_data, a byte each in the file
    with pytest.raises(TooLargeError, match="hold more parts"):
        read_source(with_parts(cnn, sized(5, numbers)))


@pytest.mark.parametrize("depth", [40, 2000])
def test_graphs_in_graphs_without_end_are_refused(cnn: Path, depth: int) -> None:
    content = b""
    for _ in range(depth):  # graph, node, attribute, graph ...
        content = sized(1, sized(5, sized(6, content)))
    with pytest.raises(NotOnnxError, match=r"messages in messages"):
        read_source(with_parts(cnn, content))


def test_a_graph_given_twice_is_refused(cnn: Path) -> None:
    content = cnn.read_bytes()
    model = ModelProto.FromString(content)
    with pytest.raises(NotOnnxError, match="two fields 'graph'"):
        read_source(stored(cnn, content + sized(7, model.graph.SerializeToString())))


def calling(cnn: Path, calls: dict[str, list[str]]) -> Path:
    """Give the model functions that call these others, and a node that calls the first."""
    model = onnx.load(cnn)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ours", 1)]
    for name, called in calls.items():
        values = ["x", *(f"v{i}" for i in range(len(called) - 1)), "y"]
        nodes = [
            helper.make_node(op, [a], [b], domain="ours" if op in calls else "")
            for op, a, b in zip(called, values[:-1], values[1:], strict=True)
        ]
        model.functions.append(helper.make_function("ours", name, ["x"], ["y"], nodes, opsets))
    model.opset_import.append(opsets[1])
    model.graph.node.append(helper.make_node(next(iter(calls)), ["x"], ["called"], domain="ours"))
    return stored(cnn, model.SerializeToString())


def test_functions_that_multiply_are_refused(cnn: Path) -> None:
    calls = {f"f{i}": [f"f{i + 1}"] * 2 for i in range(40)} | {"f40": ["Relu", "Relu"]}
    with pytest.raises(TooLargeError, match="functions come to"):
        read_source(calling(cnn, calls))


@pytest.mark.parametrize("calls", [{"f": ["f"]}, {"f": ["g"], "g": ["Relu", "f"]}])
def test_a_function_that_calls_itself_is_refused(cnn: Path, calls: dict[str, list[str]]) -> None:
    with pytest.raises(InvalidModelError, match="calls itself"):
        read_source(calling(cnn, calls))


def test_functions_within_bounds_are_read(cnn: Path) -> None:
    assert read_source(calling(cnn, {"f": ["g", "g"], "g": ["Relu"]})).operators["f"] == 1


def test_a_split_into_a_billion_is_refused(save: Save) -> None:
    text = HEAD + "g (float[10] x) => (float[10] y) { y = Split<num_outputs = 1000000000>(x) }"
    with pytest.raises(InvalidModelError, match=r"'y' \(Split\) says it has 1000000000 outputs, and has 1"):
        read_source(save(text))


@pytest.mark.parametrize(
    "graph",
    [
        "g (float[30000000] x) => (float[N] y) { z = Cast<to = 1>(x) y = Relu(z) }",
        "g (float[30000000] x) => (float[N] y) { z = Add(x, x) y = Relu(z) }",
        "g (float[1] x) => (float[N, M] y) <int64[2] s = {1000000, 1000000}> { z = Expand(x, s) y = Relu(z) }",
        "g (float[1] x) => (float[N, M] y) <int64[2] s = {1000000, 1000000}>"
        " { z = ConstantOfShape(s) y = Add(z, x) }",
        "g (float[1] x) => (float[N] y) <int64 a = {0}, int64 b = {1000000000000}, int64 c = {1}>"
        " { z = Range(a, b, c) w = Cast<to = 1>(z) y = Add(w, x) }",
        "g (float[1, 1] x) => (float[N, M] y) <int64[2] s = {1000000, 1000000}> { z = Tile(x, s) y = Relu(z) }",
        "g (float[1] x) => (float[N] y) <int64[1] s = {30000}>"
        " { a = Mul(s, s) b = ConstantOfShape(a) c = Cast<to = 1>(b) y = Add(c, x) }",
        "g (float[30000, 1] x) => (float[N] y) <int64[1] i = {0}>"
        " { a = Shape(x) c = Gather(a, i) b = Mul(c, c) d = ConstantOfShape(b) e = Cast<to = 1>(d) y = Relu(e) }",
        "g (float[300, 1] x) => (float[N] y) <int64[1] i = {0}>"
        " { a = Shape(x) c = Gather(a, i) d = ConstantOfShape(c) p = Shape(d) q = Mul(p, c) r = Mul(q, q)"
        " u = ConstantOfShape(r) e = Cast<to = 1>(u) y = Relu(e) }",
    ],
    ids=["cast", "add", "expand", "fill", "range", "tile", "product", "product of dimensions", "two steps"],
)
def test_absurd_sizes_cost_nothing_at_import(save: Save, graph: str) -> None:
    before = peak()
    path = save(HEAD + graph)
    try:
        to_torch(path)
    except ConversionError as error:
        assert "model.onnx" in str(error)
    assert peak() - before < 200 * 2**20


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (HEAD + "g (float[1] x) => (float[1] y) { a = Relu(b) b = Relu(a) y = Relu(b) }", "'b' of node"),
        (HEAD + "g (float[1] x) => (float[1] y) { y = Relu(x) y = Abs(x) }", "'y'"),
        (
            '<ir_version: 8, opset_import: ["ours" : 1]> g (float[1] x) => (float[1] y) { y = Relu(x) }',
            "domain",
        ),
        (HEAD + "g (float[1] x) => (float[1] y) { y = theirs.Relu(x) }", "theirs"),
        (HEAD + "g (float[1] x) => (float[1] y) { y = NoSuch(x) }", "NoSuch"),
        (HEAD + "g (float[1] x) => (float[1] y) { y = Relu(x, x, x) }", "Relu"),
        (HEAD + 'g (float[1] x) => (float[1] y) { y = Relu<alpha = "a">(x) }', "Relu"),
        (HEAD + "g (float[1] x) => (float[1] y) { z = Relu(x) }", "y"),
    ],
    ids=["cycle", "twice", "no opset", "domain", "operator", "inputs", "attribute", "output"],
)
def test_what_breaks_the_rules_is_named(save: Save, text: str, said: str) -> None:
    with pytest.raises(ConversionError, match=rf"model\.onnx.*{said}"):
        to_torch(save(text))


@pytest.mark.parametrize("field", ["node", "attribute", "value"])
def test_a_name_that_is_no_text_is_refused(cnn: Path, field: str) -> None:
    model = onnx.load(cnn)
    node = model.graph.node[0]
    if field == "node":
        node.name = "MARK"
    elif field == "attribute":
        node.attribute.append(helper.make_attribute("auto_pad", b"MARK"))
    else:
        model.graph.node[-1].attribute.append(helper.make_attribute("MARK", 1))
    content = model.SerializeToString().replace(b"MARK", b"MA\xffK")
    with pytest.raises(InvalidModelError, match="no UTF-8"):
        read_source(stored(cnn, content))


def test_fields_are_found_where_protobuf_finds_them(real_model: Path) -> None:
    content = real_model.read_bytes()
    spans = {
        f.path: content[f.start : f.end]
        for f in fields_of(content)
        if f.known is not None and f.known.name == "raw_data"
    }
    model = ModelProto.FromString(content)
    for i, tensor in enumerate(model.graph.initializer):
        if tensor.HasField("raw_data"):
            assert spans[((7, 0), (5, i))] == tensor.raw_data


def test_an_attribute_of_no_type_is_refused(cnn: Path) -> None:
    model = onnx.load(cnn)
    model.graph.node[0].attribute[0].type = 0
    with pytest.raises(InvalidModelError, match=r"model\.onnx: .*'pads'"):
        read_source(stored(cnn, model.SerializeToString()))


@pytest.mark.parametrize("place", ["input", "output"])
def test_an_unknown_element_type_is_refused(cnn: Path, place: str) -> None:
    model = onnx.load(cnn)
    getattr(model.graph, place)[0].type.tensor_type.elem_type = -1
    with pytest.raises(InvalidModelError, match="has the unknown element type -1"):
        read_source(stored(cnn, model.SerializeToString()))


def test_a_linear_model_of_one_number_is_refused_by_name(save: Save) -> None:
    text = '<ir_version: 8, opset_import: ["" : 17, "ai.onnx.ml" : 1]> g (float x) => (float[N, 2] y)'
    node = "ai.onnx.ml.LinearRegressor<coefficients = [1.0, 2.0], targets = 2>"
    with pytest.raises(UnsupportedOpError, match=r"LinearRegressor.* node 'y'.*takes shape \[\]"):
        to_torch(save(f"{text} {{ y = {node}(x) }}"))


def test_shapes_behind_a_line_of_computed_length_are_inferred(save: Save) -> None:
    graph = (
        "g (float[300, 4] x) => (float[N, M] y) <int64[1] i = {0}, int64[1] e = {1}>"
        " { a = Shape(x) c = Gather(a, i) d = ConstantOfShape(c) p = Shape(d) q = Concat<axis = 0>(p, e)"
        " u = ConstantOfShape(q) y = Add(u, x) z = Relu(u) }"
    )
    assert known_dims(inferred(onnx.load(save(HEAD + graph))).graph)["z"] == [300, 1]


def test_ranks_behind_a_line_of_unknown_length_are_inferred(save: Save) -> None:
    graph = (
        "g (float[N, 4] x, float[9, 4] w) => (float[N, M] y) <int64 i = {0}, int64 e = {1}>"
        " { a = Shape(x) n = Gather(a, i) p = Range(i, n, e) q = Gather(w, p) y = Add(q, x) z = Relu(y) }"
    )
    assert known_dims(inferred(onnx.load(save(HEAD + graph))).graph)["z"] == [0, 4]


def test_sparse_weights_are_refused_by_name(save: Save) -> None:
    path = save(HEAD + "g (float[N, 3] x) => (float[N, 3] y) { z = MatMul(x, w) y = Relu(z) }")
    model = onnx.load(path)
    values = numpy_helper.from_array(np.ones(2, np.float32), "w")
    places = numpy_helper.from_array(np.array([0, 4]), "places")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [3, 3]))
    with pytest.raises(
        UnsupportedOpError, match=r"model\.onnx: operator MatMul .* sparse initializer 'w'.*dense"
    ):
        to_torch(stored(path, model.SerializeToString()))


def test_initializers_that_break_their_name_are_refused(cnn: Path) -> None:
    model = onnx.load(cnn)
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(5, np.float32), "conv_b"))
    with pytest.raises(SourceError, match="conv_b"):
        read_source(stored(cnn, model.SerializeToString()))
