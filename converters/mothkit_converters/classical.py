"""scikit-learn's operators (``ai.onnx.ml``) in terms of ONNX's own.

A linear model holds its weights as attributes; here they become initializers, by the names that
``attribute_tensors`` gives them. Where onnxruntime and ONNX's reference disagree on a case, it is left as it is,
and refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from mothkit_converters.attributes import ML, attribute_tensors, given
from mothkit_converters.errors import UnsupportedOpError
from mothkit_converters.scopes import label
from mothkit_converters.shapes import inferred, known_dims

_TREES = "a tree ensemble has no gradient, so nothing in it can be trained"
_VECTORS = "it compares with what it was trained on, and has no weights to train"
_WORDS = "it takes words, and torch has none"
_AXES_AS_INPUT = 18  # from this opset on, for reductions to a norm
_LEAST = 1e-30  # zeros stay zeros
_REASONS: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("TreeEnsemble", "TreeEnsembleClassifier", "TreeEnsembleRegressor"), _TREES),
        **dict.fromkeys(("SVMClassifier", "SVMRegressor"), _VECTORS),
        **dict.fromkeys(("CategoryMapper", "DictVectorizer", "LabelEncoder", "OneHotEncoder"), _WORDS),
    }
)


class _Writer:
    """Collects the nodes and initializers that stand for one node."""

    def __init__(self, node: NodeProto, dims: Mapping[str, Sequence[int]], opset: int) -> None:
        self.node, self.dims, self.opset = node, dims.get(node.input[0]), opset
        self.nodes: list[NodeProto] = []
        self.made: list[str] = []
        self.stored = {tensor.name: tensor for _, tensor in attribute_tensors(node)}

    def held(self, attribute: str) -> str:
        """Return the initializer that stands for ``attribute``, empty where the node has none."""
        name = f"{self.node.output[0]}.{attribute}"
        return name if name in self.stored else ""

    def constant(self, what: str, values: NDArray[Any]) -> str:
        name = f"{self.node.output[0]}#{what}"
        self.stored[name] = numpy_helper.from_array(values, name)
        self.made.append(name)
        return name

    def put(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:  # noqa: ANN401
        """Add a node that computes ``output``."""
        self.nodes.append(helper.make_node(op, inputs, [output], self.node.name, **attributes))
        return output

    def add(self, op: str, inputs: list[str], what: str, **attributes: Any) -> str:  # noqa: ANN401
        """Add a node that computes a value of our own."""
        return self.put(op, inputs, f"{self.node.output[0]}#{what}", **attributes)

    def floats(self) -> str:
        """Return the node's input as float32."""
        return self.add("Cast", [self.node.input[0]], "float", to=TensorProto.FLOAT)

    def refusal(self, why: str) -> UnsupportedOpError:
        return UnsupportedOpError(self.node.op_type, label(self.node), why)


def scores_value(node: NodeProto) -> str:
    """Return the name of what a LinearClassifier computes before its post_transform.

    It is the node's second output where nothing follows, else a value that only the rewritten graph has.
    """
    return node.output[1] if _plain(node) and node.output[1:] else f"{node.output[0]}#scores"


def scores_node(node: NodeProto) -> NodeProto:
    """Return a node that computes a LinearClassifier's scores before its post_transform, by its own weights."""
    weights = {name: given(node, name, ()) for name in ("coefficients", "intercepts")}
    held = {name: values for name, values in weights.items() if len(values)}
    _, coefficients = next(attribute_tensors(node))
    return helper.make_node(
        "LinearRegressor",
        [node.input[0]],
        [scores_value(node)],
        domain=ML,
        targets=coefficients.dims[0],
        **held,
    )


def _plain(node: NodeProto) -> bool:
    return bool(given(node, "post_transform", b"NONE") == b"NONE")


def rewrite(model: ModelProto) -> set[str]:
    """Write the operators of this domain in ``model``'s graph out; those that cannot be stay.

    Maps from label to score become a row of scores.

    Returns:
        Names of the initializers that were added and stand for nothing in the file.
    """
    graph, made = model.graph, set[str]()
    if not any(node.domain == ML for node in graph.node):
        return made
    opset, dims = _core_opset(model), known_dims(inferred(model).graph)
    nodes: list[NodeProto] = []
    for node in graph.node:
        writer = _Writer(node, dims, opset)
        if node.domain != ML or _written(writer):
            nodes.append(node)
            continue
        nodes.extend(writer.nodes)
        graph.initializer.extend(writer.stored.values())
        made.update(writer.made)
    del graph.node[:]
    graph.node.extend(nodes)
    outputs = [i if i.type.HasField("tensor_type") else ValueInfoProto(name=i.name) for i in graph.output]
    del graph.output[:]
    graph.output.extend(outputs)
    return made


def _core_opset(model: ModelProto) -> int:
    """Return the version of ONNX's own operators; set where no node has asked for one."""
    entry = next((entry for entry in model.opset_import if not entry.domain), None)
    if entry is None:
        entry = model.opset_import.add()
    if not any(not node.domain for node in model.graph.node):
        entry.version = max(entry.version, 13)
    return int(entry.version)


def _linear(w: _Writer, output: str) -> None:
    """Let ``output`` be the scores [N, K] of a linear model's features [N, F]."""
    coefficients, intercepts = w.held("coefficients"), w.held("intercepts")
    if not coefficients or len(w.stored[coefficients].dims) != 2:
        raise w.refusal("its coefficients are not as many for each class")
    features = w.stored[coefficients].dims[1]
    if w.dims is not None and w.dims[-1:] not in ([0], [features]):
        raise w.refusal(f"it has coefficients for {features} features, and takes shape {list(w.dims)}")
    inputs = [w.floats(), coefficients, *([intercepts] if intercepts else [])]
    w.put("Gemm", inputs, output, transB=1)


def _linear_classifier(w: _Writer) -> None:
    scores = scores_value(w.node)
    _linear(w, scores)
    if w.stored[w.held("coefficients")].dims[0] == 1:
        _one_score(w, scores)
        return
    _label(w, w.add("ArgMax", [scores], "index", axis=1, keepdims=0))
    transform = given(w.node, "post_transform", b"NONE")
    if scores == w.node.output[1]:
        return
    if transform == b"LOGISTIC":
        w.put("Sigmoid", [scores], w.node.output[1])
    elif transform == b"SOFTMAX":
        w.put("Softmax", [scores], w.node.output[1], axis=1)
    else:
        raise w.refusal(f"its post_transform is {transform.decode()}")


def _one_score(w: _Writer, scores: str) -> None:
    """Write a classifier of two classes with one row of coefficients."""
    if given(w.node, "post_transform", b"NONE") != b"LOGISTIC":
        raise w.refusal("what it makes of one score without LOGISTIC differs between runtimes")
    chosen = w.add("Greater", [scores, w.constant("zero", np.array(0, np.float32))], "positive")
    chosen = w.add("Cast", [chosen], "column", to=TensorProto.INT64)
    _label(w, w.add("Reshape", [chosen, w.constant("row", np.array([-1]))], "index"))
    probability = w.add("Sigmoid", [scores], "sigmoid")
    rest = w.add("Sub", [w.constant("one", np.array(1, np.float32)), probability], "rest")
    w.put("Concat", [rest, probability], w.node.output[1], axis=1)


def _label(w: _Writer, index: str) -> None:
    words, numbers = given(w.node, "classlabels_strings", ()), given(w.node, "classlabels_ints", ())
    labels = np.array(words, object) if words else np.array(numbers, np.int64)
    w.put("Gather", [w.constant("labels", labels), index], w.node.output[0], axis=0)


def _linear_regressor(w: _Writer) -> None:
    if not _plain(w.node):
        raise w.refusal("runtimes pass over its post_transform")
    _linear(w, w.node.output[0])


def _scaler(w: _Writer) -> None:
    if not (w.held("offset") and w.held("scale")):
        raise w.refusal("it lacks its offset or its scale")
    centred = w.add("Sub", [w.floats(), w.held("offset")], "centred")
    w.put("Mul", [centred, w.held("scale")], w.node.output[0])


def _normalizer(w: _Writer) -> None:
    norm = given(w.node, "norm", b"MAX").decode()
    if norm not in ("L1", "L2"):
        raise w.refusal(f"runtimes differ on its norm {norm} of negative features")
    inputs, axes = [x := w.floats()], {"axes": [1]}
    if w.opset >= _AXES_AS_INPUT:
        inputs, axes = [x, w.constant("axis", np.array([1]))], {}
    size = w.add(f"Reduce{norm}", inputs, "size", keepdims=1, **axes)
    size = w.add("Max", [size, w.constant("least", np.array(_LEAST, np.float32))], "divisor")
    w.put("Div", [x, size], w.node.output[0])


def _binarizer(w: _Writer) -> None:
    threshold = np.array(given(w.node, "threshold", 0.0), np.float32)
    above = w.add("Greater", [w.floats(), w.constant("threshold", threshold)], "above")
    w.put("Cast", [above], w.node.output[0], to=TensorProto.FLOAT)


def _imputer(w: _Writer) -> None:
    if not w.held("imputed_value_floats"):
        raise w.refusal("what it fills in are no floats")
    x, mark = w.floats(), np.array(given(w.node, "replaced_value_float", 0.0), np.float32)
    missing = "IsNaN" if np.isnan(mark) else "Equal"
    inputs = [x] if np.isnan(mark) else [x, w.constant("mark", mark)]
    w.put("Where", [w.add(missing, inputs, "missing"), w.held("imputed_value_floats"), x], w.node.output[0])


def _feature_vectorizer(w: _Writer) -> None:
    parts = [w.add("Cast", [x], f"part{i}", to=TensorProto.FLOAT) for i, x in enumerate(w.node.input)]
    w.put("Concat", parts, w.node.output[0], axis=1)


def _extractor(w: _Writer) -> None:
    """Write columns of the first input, which is one row where it has a single dimension."""
    x, index = w.node.input
    if w.dims is not None and len(w.dims) == 1:
        x = w.add("Reshape", [x, w.constant("row", np.array([1, -1]))], "rows")
    flat = w.add("Reshape", [index, w.constant("flat", np.array([-1]))], "index")
    w.put("Gather", [x, flat], w.node.output[0], axis=-1)


def _zip_map(w: _Writer) -> None:
    w.put("Identity", [w.node.input[0]], w.node.output[0])


_REWRITES: Mapping[str, Callable[[_Writer], None]] = MappingProxyType(
    {
        "ArrayFeatureExtractor": _extractor,
        "Binarizer": _binarizer,
        "FeatureVectorizer": _feature_vectorizer,
        "Imputer": _imputer,
        "LinearClassifier": _linear_classifier,
        "LinearRegressor": _linear_regressor,
        "Normalizer": _normalizer,
        "Scaler": _scaler,
        "ZipMap": _zip_map,
    }
)


def reason(model: ModelProto, node: NodeProto) -> str:
    """Return why ``node`` of ``model`` could not be written out, empty where it is of another domain."""
    if node.domain != ML:
        return ""
    return _written(_Writer(node, known_dims(inferred(model).graph), _core_opset(model)))


def _written(writer: _Writer) -> str:
    """Fill ``writer`` with what stands for its node; return why it cannot be, empty where it can."""
    op = writer.node.op_type
    if op not in _REWRITES:
        return _REASONS.get(op, "it has no counterpart here")
    try:
        _REWRITES[op](writer)
    except UnsupportedOpError as error:
        return error.why
    return ""
