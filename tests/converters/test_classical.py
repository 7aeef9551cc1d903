"""scikit-learn's operators, against onnxruntime; and their weights, which stand in attributes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper

from mothkit_converters import Role, UnsupportedOpError, diff, to_torch, write_back

Array = NDArray[Any]
KINDS = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64, "float64": TensorProto.DOUBLE}
FEATURES = np.array([[1, -2, 0.5], [0, 0, 0], [-1, -3, -2], [4, 0.1, 7]], np.float32)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """Write a model of one node of ``ai.onnx.ml`` on ``x`` and, where given, an index, and return its path."""

    def build(
        op: str, x: Array, *stored: Array, outputs: tuple[str, ...] = ("y",), **attributes: Any
    ) -> Path:
        names = [f"stored{i}" for i in range(len(stored))]
        node = helper.make_node(op, ["x", *names], list(outputs), domain="ai.onnx.ml", **attributes)
        infos = [helper.make_empty_tensor_value_info(name) for name in outputs]
        graph = helper.make_graph(
            [node],
            "classical",
            [helper.make_tensor_value_info("x", KINDS[str(x.dtype)], ["N", *x.shape[1:]])],
            infos,
            [onnx.numpy_helper.from_array(values, name) for name, values in zip(names, stored, strict=True)],
        )
        model = onnx.shape_inference.infer_shapes(
            helper.make_model(
                graph,
                ir_version=8,
                opset_imports=[helper.make_opsetid("ai.onnx.ml", 1), helper.make_opsetid("", 17)],
            )
        )
        for info in model.graph.output:
            if not info.type.WhichOneof("value"):
                info.type.tensor_type.elem_type = TensorProto.FLOAT
        path = tmp_path / "classical.onnx"
        path.write_bytes(model.SerializeToString())
        return path

    return build


def expected(path: Path, x: Array) -> list[Array]:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return list(session.run(None, {"x": x}))


def found(path: Path, x: Array) -> list[Array]:
    values = to_torch(path)(torch.from_numpy(x))
    return [y.detach().numpy() for y in (values if isinstance(values, tuple) else (values,))]


def classifier(rows: int, transform: str, **more: Any) -> dict[str, Any]:
    generator = np.random.default_rng(3)
    labels = {"classlabels_ints": [5, 6, 9][: max(rows, 2)]}
    return {
        "outputs": ("label", "scores"),
        "coefficients": generator.normal(size=3 * rows).tolist(),
        "intercepts": generator.normal(size=rows).tolist(),
        "post_transform": transform,
        **(labels | more),
    }


@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize("transform", ["LOGISTIC", "SOFTMAX", "NONE"])
def test_a_linear_classifier_gives_label_and_scores(
    make: Callable[..., Path], rows: int, transform: str
) -> None:
    path = make("LinearClassifier", FEATURES, **classifier(rows, transform))
    if rows == 1 and transform != "LOGISTIC":
        with pytest.raises(UnsupportedOpError, match=r"LinearClassifier .* differs between runtimes"):
            to_torch(path)
        return
    for ours, theirs in zip(found(path, FEATURES), expected(path, FEATURES), strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("op", "x", "stored", "attributes"),
    [
        ("Scaler", FEATURES, (), {"offset": [1.0, 2.0, 3.0], "scale": [2.0, 1.0, 0.5]}),
        ("Scaler", FEATURES.astype(np.int64), (), {"offset": [1.0], "scale": [0.5]}),
        ("Normalizer", FEATURES, (), {"norm": "L1"}),
        ("Normalizer", FEATURES, (), {"norm": "L2"}),
        ("Binarizer", FEATURES, (), {"threshold": 0.1}),
        ("ArrayFeatureExtractor", FEATURES, (np.array([[2], [0]]),), {}),
        ("Imputer", FEATURES, (), {"imputed_value_floats": [9.0, 8.0, 7.0], "replaced_value_float": 0.0}),
        ("Imputer", np.where(FEATURES == 0, np.nan, FEATURES).astype(np.float32), (),
         {"imputed_value_floats": [9.0], "replaced_value_float": float("nan")}),
        ("FeatureVectorizer", FEATURES, (FEATURES,), {"inputdimensions": [3, 3]}),
        ("LinearRegressor", FEATURES, (), {"coefficients": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
                                           "intercepts": [0.5, -1.0], "targets": 2}),
        ("LinearRegressor", FEATURES, (), {"coefficients": [1.0, 2.0, 3.0]}),
    ],
)  # fmt: skip
def test_each_operator_gives_what_onnxruntime_gives(
    make: Callable[..., Path], op: str, x: Array, stored: tuple[Array, ...], attributes: dict[str, Any]
) -> None:
    path = make(op, x, *stored, **attributes)
    (ours,), (theirs,) = found(path, x), expected(path, x)
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_weights_in_attributes_are_trained_and_written_back(
    make: Callable[..., Path], tmp_path: Path
) -> None:
    path = make("LinearClassifier", FEATURES, **classifier(3, "SOFTMAX"))
    bound = to_torch(path, outputs=["scores"])
    assert set(bound.bindings) == {"label.coefficients", "label.intercepts"}
    assert bound.bindings["label.coefficients"].shape == (3, 3)
    with torch.no_grad():
        bound.bindings["label.coefficients"].add_(1.5)
    written = tmp_path / "written.onnx"
    write_back(bound, written)
    difference = diff(path, written)
    assert difference.only_weights
    assert [change.name for change in difference.changes] == ["label.coefficients"]
    assert difference.changes[0].max_abs == pytest.approx(1.5)
    scores = bound(torch.from_numpy(FEATURES)).detach().numpy()
    np.testing.assert_allclose(scores, expected(written, FEATURES)[1], rtol=1e-5)


def test_what_scales_the_features_is_no_weight(make: Callable[..., Path], tmp_path: Path) -> None:
    path = make("Scaler", FEATURES, offset=[1.0], scale=[0.5])
    model = onnx.load(path)
    dense = onnx.numpy_helper.from_array(np.ones((3, 2), np.float32), "dense")
    model.graph.initializer.append(dense)
    model.graph.node.append(helper.make_node("MatMul", ["y", "dense"], ["z"]))
    model.graph.output[0].name = "z"
    onnx.save(model, path)
    bound = to_torch(path)
    assert set(bound.bindings) == {"dense"}
    assert {bound.ties[name].role for name in ("y.offset", "y.scale")} == {Role.CONSTANT}


@pytest.mark.parametrize("op", ["TreeEnsembleClassifier", "TreeEnsembleRegressor"])
def test_a_tree_ensemble_is_refused_in_a_sentence(make: Callable[..., Path], op: str) -> None:
    outputs = ("label", "scores") if op.endswith("Classifier") else ("y",)
    with pytest.raises(UnsupportedOpError, match=f"{op} .* a tree ensemble has no gradient"):
        to_torch(make(op, FEATURES, outputs=outputs))


def test_coefficients_for_other_features_are_refused(make: Callable[..., Path]) -> None:
    path = make(
        "LinearClassifier", FEATURES[:, :2], **classifier(3, "LOGISTIC")
    )  # onnxruntime takes the first six
    with pytest.raises(UnsupportedOpError, match="it has coefficients for 3 features, and takes shape"):
        to_torch(path)


def test_words_are_left_out_unless_named(make: Callable[..., Path]) -> None:
    options = classifier(2, "LOGISTIC", classlabels_strings=["cat", "dog"])
    del options["classlabels_ints"]
    path = make("LinearClassifier", FEATURES, **options)
    model = onnx.load(path)
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.STRING
    onnx.save(model, path)
    assert to_torch(path).output_names == ("scores",)
    with pytest.raises(UnsupportedOpError, match="element type"):
        to_torch(path, outputs=["label"])
