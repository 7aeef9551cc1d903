"""Models of one node: what onnx's reference, onnxruntime and we make of them."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, defs, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from mothkit_converters import BoundModule, to_torch

Array = NDArray[Any]


def model_of(
    node: NodeProto, inputs: Mapping[str, Array], opset: int, *, stored: Collection[str] = (), ir: int = 8
) -> ModelProto:
    """Return a model of ``node``; inputs named in ``stored`` are initializers."""
    given = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
        for name, x in inputs.items()
        if name not in stored
    ]
    outputs = [ValueInfoProto(name=name) for name in node.output if name]
    weights = [numpy_helper.from_array(inputs[name], name) for name in stored]
    graph = helper.make_graph([node], "single", given, outputs, weights)
    opsets = [helper.make_opsetid("", opset)]
    if node.domain:
        opsets.append(helper.make_opsetid(node.domain, 1))
    model = helper.make_model(graph, opset_imports=opsets, ir_version=ir)
    model = onnx.shape_inference.infer_shapes(model)
    for info in model.graph.output:
        if not info.type.HasField("tensor_type"):  # the first versions infer nothing
            info.type.tensor_type.elem_type = TensorProto.FLOAT
    return model


def fed(model: ModelProto, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Return those of ``inputs`` that ``model`` asks for."""
    return {info.name: inputs[info.name] for info in model.graph.input}


def reference(model: ModelProto, inputs: Mapping[str, Array]) -> list[Array]:
    """Return what onnx's reference makes of ``model``."""
    return ReferenceEvaluator(model).run(None, fed(model, inputs))


def runtime(model: ModelProto, inputs: Mapping[str, Array]) -> list[Array]:
    """Return what onnxruntime makes of ``model``."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, fed(model, inputs))


def imported(model: ModelProto, **options: Any) -> BoundModule:
    """Return ``model`` as ``to_torch`` imports it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(model.SerializeToString())
        return to_torch(path, **options)


def ours(model: ModelProto, inputs: Mapping[str, Array]) -> list[Array]:
    """Return what our import makes of ``model``."""
    found = imported(model)(*(torch.from_numpy(np.asarray(x)) for x in fed(model, inputs).values()))
    return [y.detach().numpy() for y in (found if isinstance(found, tuple) else (found,))]


def assert_same(found: Sequence[Array], expected: Sequence[Array], *, atol: float = 1e-5) -> None:
    """Fail unless shapes and dtypes are the same and the values close; what is not float has to be equal."""
    assert len(found) == len(expected)
    for ours, theirs in zip(found, map(np.asarray, expected), strict=True):
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
        if ours.dtype.kind in "biu":
            np.testing.assert_array_equal(ours, theirs)
        else:
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=atol)


def one(
    op: str,
    *inputs: Array | None,
    opset: int,
    stored: Collection[int] = (),
    outputs: int = 1,
    **attributes: Any,
) -> tuple[ModelProto, dict[str, Array]]:
    """Return a model of one node, and its inputs by name.

    Args:
        op: The operator's type.
        inputs: Values of the node's inputs, None where one is left out.
        opset: What the model imports.
        stored: Places of the inputs that are initializers.
        outputs: How many outputs the node lists.
        attributes: The node's attributes.
    """
    names = ["" if x is None else f"i{place}" for place, x in enumerate(inputs)]
    given = {f"i{place}": x for place, x in enumerate(inputs) if x is not None}
    node = helper.make_node(op, names, [f"o{place}" for place in range(outputs)], **attributes)
    return model_of(node, given, opset, stored=[f"i{place}" for place in stored]), given


def assert_agrees(
    op: str, *inputs: Array | None, opset: int, expected: Sequence[Array] | None = None, **given: Any
) -> None:
    """Fail unless we compute what onnx's reference does, or ``expected``; ``given`` as ``one`` takes it."""
    model, values = one(op, *inputs, opset=opset, **given)
    assert_same(ours(model, values), reference(model, values) if expected is None else expected)


def versions(*ops: str) -> list[tuple[str, int]]:
    """Return every schema version of ONNX's own ``ops``, each with the operator."""
    known = [schema for schema in defs.get_all_schemas_with_history() if not schema.domain]
    return sorted((schema.name, schema.since_version) for schema in known if schema.name in ops)


def kinds(op: str, version: int, place: int = 0) -> list[str]:
    """Return numpy's names of what input ``place`` of ``op`` may hold; of older versions' types only a few.

    Types that numpy and torch do not share are left out. The newest version is asked for all the others.
    """
    schema = defs.get_schema(op, max_inclusive_version=version)
    taken = {name.removeprefix("tensor(").removesuffix(")") for name in schema.inputs[place].types}
    shared = {"float": "float32", "int32": "int32", "bool": "bool"}
    if schema.since_version == defs.get_schema(op).since_version:
        shared |= {f"{sign}int{bits}": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
        shared["double"] = "float64"
    return sorted(shared[name] for name in taken & set(shared))
