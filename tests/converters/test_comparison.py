"""What differs between two files."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from mothkit_converters import NotOnnxError, diff


def edited(path: Path, edit: Callable[[ModelProto], object]) -> Path:
    model = onnx.load(path)
    edit(model)
    other = path.with_name("other.onnx")
    other.write_bytes(model.SerializeToString())
    return other


def test_a_file_is_itself(cnn: Path) -> None:
    found = diff(cnn, cnn)
    assert found.identical
    assert found.unchanged == 9  # eight initializers and the Constant node


def test_a_change_is_measured(cnn: Path) -> None:
    def edit(model: ModelProto) -> None:
        tensor = model.graph.initializer[1]
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + np.float32(2), tensor.name))

    found = diff(cnn, edited(cnn, edit))
    (change,) = found.changes
    assert found.only_weights
    assert not found.identical
    assert (change.name, change.dtype, change.shape) == ("conv_b", "float", (5,))
    assert change.l2 == pytest.approx(2 * math.sqrt(5), rel=1e-6)
    assert change.max_abs == pytest.approx(2, rel=1e-6)
    old = numpy_helper.to_array(onnx.load(cnn).graph.initializer[1])
    assert change.relative_l2 == pytest.approx(change.l2 / np.linalg.norm(old), rel=1e-6)


def test_a_constant_node_holds_a_weight(cnn: Path) -> None:
    def edit(model: ModelProto) -> None:
        node = next(node for node in model.graph.node if node.op_type == "Constant")
        node.attribute[0].t.CopyFrom(helper.make_tensor("", TensorProto.INT64, [2], [1, 80]))

    def same_field(model: ModelProto) -> None:
        node = next(node for node in model.graph.node if node.op_type == "Constant")
        node.attribute[0].t.int64_data[0] = 1

    assert [change.name for change in diff(cnn, edited(cnn, same_field)).changes] == ["shape"]
    assert [change.name for change in diff(cnn, edited(cnn, edit)).changes] == ["shape"]


def rename_node(model: ModelProto) -> None:
    model.graph.node[0].name = "renamed"


def swap_initializers(model: ModelProto) -> None:
    tensors = list(model.graph.initializer)
    del model.graph.initializer[:]
    model.graph.initializer.extend(reversed(tensors))


def store_typed(model: ModelProto) -> None:
    tensor = model.graph.initializer[1]
    values = numpy_helper.to_array(tensor).tolist()
    tensor.ClearField("raw_data")
    tensor.float_data.extend(values)


def reshape_weight(model: ModelProto) -> None:
    model.graph.initializer[7].CopyFrom(numpy_helper.from_array(np.ones((1, 4), "f4"), "head_b"))


def drop_node(model: ModelProto) -> None:
    model.graph.node.pop()
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 4]))


def add_initializer(model: ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.ones(2), "extra"))


EDITS: list[tuple[Callable[[ModelProto], object], str]] = [
    (rename_node, "node 0 (Conv 'conv') differs"),
    (swap_initializers, "the order of the initializers differs"),
    (store_typed, "initializer 'conv_b' is stored in another way"),
    (reshape_weight, "initializer 'head_b' was float [4], and is float [1, 4]"),
    (lambda m: setattr(m.opset_import[0], "version", 18), "the opsets differ"),
    (lambda m: setattr(m, "doc_string", "new"), "the model's documentation differs"),
    (lambda m: setattr(m.graph, "doc_string", "new"), "the graph's documentation differs"),
    (lambda m: setattr(m.metadata_props[0], "value", "5"), "the metadata differs"),
    (lambda m: setattr(m.graph.input[0], "doc_string", "new"), "the inputs differ"),
    (lambda m: setattr(m.graph.initializer[0], "doc_string", "new"), "initializer 'conv_w' is stored in another way"),
    (drop_node, "the first file has 8 nodes, the second 7"),
    (add_initializer, "initializer 'extra' is only in the second file"),
]  # fmt: skip


@pytest.mark.parametrize(("edit", "said"), EDITS)
def test_what_else_differs_is_named(cnn: Path, edit: Callable[[ModelProto], object], said: str) -> None:
    found = diff(cnn, edited(cnn, edit))
    assert not found.only_weights
    assert any(said in words for words in found.differences), found.differences


def test_an_unknown_part_is_not_passed_over(cnn: Path) -> None:
    other = cnn.with_name("other.onnx")
    other.write_bytes(cnn.read_bytes() + b"\xf2\x7f\x03abc")  # field 2046 of the model
    assert not diff(cnn, other).only_weights


def test_models_that_share_nothing_are_compared(cnn: Path) -> None:
    text = '<ir_version: 8, opset_import: ["" : 13]> other (float[N] a) => (float[N] b) { b = Relu(a) }'
    other = cnn.with_name("other.onnx")
    other.write_bytes(onnx.parser.parse_model(text).SerializeToString())
    found = diff(cnn, other)
    assert found.unchanged == len(found.changes) == 0
    assert 5 < len(found.differences) < 30


def test_what_is_no_model_is_refused(cnn: Path, tmp_path: Path) -> None:
    with pytest.raises(NotOnnxError):
        diff(cnn, tmp_path / "none.onnx")
