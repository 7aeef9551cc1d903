"""From pixels to logits, whatever way a model ends."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper

from mothkit.classifier import as_logits, import_classifier, open_source
from mothkit.describing import describe_run
from mothkit.errors import ModelError
from mothkit.inputs import InputSpec
from mothkit.opening import Settings, open_model
from mothkit.runtime import Session
from tests.tiny import SIDE, tiny_images, tiny_model

UNIT = InputSpec(name="unit", layout="nchw", channels="rgb")
SHAPE = (3, SIDE, SIDE)


def two_class_model(path: Path, *tail: onnx.NodeProto) -> Path:
    """Write the tiny classifier with one score, red against the rest, followed by ``tail`` from ``z`` to ``y``."""
    model = tiny_model()
    head = numpy_helper.from_array(np.array([[4.0], [-2.0], [-2.0]], np.float32), "red")
    model.graph.node[-1].CopyFrom(helper.make_node("MatMul", [model.graph.node[-1].input[0], "red"], ["z"]))
    model.graph.initializer.append(head)
    model.graph.node.extend(tail)
    model.graph.output[0].CopyFrom(helper.make_empty_tensor_value_info("y" if tail else "z"))
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    "tail",
    [
        (),
        (helper.make_node("Sigmoid", ["z"], ["y"]),),
        (helper.make_node("Squeeze", ["z"], ["v"]), helper.make_node("Sigmoid", ["v"], ["y"])),
    ],
)
def test_one_score_is_the_logit_of_class_1(tmp_path: Path, tail: tuple[onnx.NodeProto, ...]) -> None:
    path = two_class_model(tmp_path / "two.onnx", *tail)
    x = tiny_images(5).pixels(range(15))
    classifier = import_classifier(open_source(path), UNIT, SHAPE)
    logits = classifier(x)
    assert classifier.classes == 2
    assert logits.shape == (15, 2)
    assert not logits[:, 0].any()
    answer = onnxruntime.InferenceSession(path).run(None, {"image": x.numpy()})[0].ravel()
    probability = logits.softmax(dim=1)[:, 1].detach().numpy()
    np.testing.assert_allclose(probability if tail else logits[:, 1].detach(), answer, rtol=1e-4)
    session = Session(open_source(path), UNIT, [classifier.head.value], torch.device("cpu"))
    torch.testing.assert_close(session.logits(x), logits.detach())


def test_rows_of_scores_stay_as_they_are() -> None:
    scores = torch.randn(4, 3)
    assert torch.equal(as_logits(scores), scores)
    assert torch.equal(as_logits(scores[:, :, None, None]), scores)
    assert torch.equal(as_logits(scores[:, 0]), as_logits(scores[:, :1]))


def test_a_map_of_scores_is_refused(tmp_path: Path) -> None:
    model = tiny_model()
    del model.graph.node[1:]
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("c", onnx.TensorProto.FLOAT, None))
    path = tmp_path / "map.onnx"
    onnx.save(model, path)
    with pytest.raises(ModelError, match=r"expected \(2, classes\)"):
        import_classifier(open_source(path), UNIT, SHAPE)


def with_side_input(path: Path) -> Path:
    """Write the tiny classifier with two outputs more: a loss that reads labels, and a second head."""
    model = tiny_model()
    second = numpy_helper.from_array(np.eye(3, dtype=np.float32)[:, ::-1].copy(), "reversed")
    model.graph.initializer.append(second)
    model.graph.node.extend(
        [
            helper.make_node("Sub", ["logits", "labels"], ["loss"]),
            helper.make_node("MatMul", ["logits", "reversed"], ["other"]),
        ]
    )
    model.graph.input.append(helper.make_tensor_value_info("labels", onnx.TensorProto.FLOAT, ["batch", 3]))
    for name in ("loss", "other"):
        model.graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", 3]))
    onnx.save(model, path)
    return path


def test_inputs_that_the_logits_do_not_read_are_passed_over(tmp_path: Path) -> None:
    source = open_source(with_side_input(tmp_path / "side.onnx"))
    x = tiny_images(5).pixels(range(15))
    classifier = import_classifier(source, UNIT, SHAPE)
    session = Session(source, UNIT, [classifier.head.value], torch.device("cpu"))
    torch.testing.assert_close(session.logits(x), classifier(x).detach())
    with pytest.raises(ModelError, match=r"its inputs are image .*, labels"):
        import_classifier(source, UNIT, SHAPE, output="loss")


def test_an_output_is_chosen_by_name(tmp_path: Path) -> None:
    path = with_side_input(tmp_path / "side.onnx")
    settings = Settings(preprocess="unit", output="other")
    model = open_model(path, settings)
    x = tiny_images(5).pixels(range(15))
    chosen = model.classifier(SHAPE)(x)
    assert model.head.value == "other"
    assert torch.equal(chosen, open_model(path, Settings(preprocess="unit")).classifier(SHAPE)(x).flip(1))
    assert describe_run("evaluate", model)["head"]["output"] == "other"
    with pytest.raises(ModelError, match="no value 'third'; its outputs are 'logits', 'loss', 'other'"):
        open_model(path, replace(settings, output="third"))


def test_images_that_no_memory_holds_are_refused(tmp_path: Path) -> None:
    model = tiny_model()
    for dimension in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        dimension.dim_value = 10**9
    onnx.save(model, path := tmp_path / "huge.onnx")
    with pytest.raises(ModelError, match=r"huge\.onnx: its images are image .*1000000000, 1000000000"):
        open_model(path, Settings(preprocess="unit", device="cpu"))
