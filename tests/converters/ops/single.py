"""Models of one node: ours held against ONNX's reference, at any schema version."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import ModelProto, ValueInfoProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from mothkit_converters import BoundModule, to_torch

Array = NDArray[Any]


def single(
    op: str,
    *inputs: Array | None,
    version: int,
    stored: Collection[int] = (),
    outputs: int = 1,
    domain: str = "",
    **attributes: Any,
) -> ModelProto:
    """Return a model of one node, its inputs ``i0``, ``i1``, ... and outputs ``o0``, ``o1``, ...

    Args:
        op: The operator's type.
        inputs: Values of the node's inputs; None leaves one out.
        version: The opset, so the operator's newest schema version up to it.
        stored: Places of the inputs that are initializers; the others are the graph's inputs.
        outputs: How many outputs the node lists.
        domain: The operator's domain.
        attributes: The node's attributes.
    """
    given = {f"i{place}": value for place, value in enumerate(inputs) if value is not None}
    names = ["" if value is None else f"i{place}" for place, value in enumerate(inputs)]
    made = [f"o{place}" for place in range(outputs)]
    kept = {f"i{place}" for place in stored}
    graph = helper.make_graph(
        [helper.make_node(op, names, made, domain=domain, **attributes)],
        "single",
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
            for name, value in given.items()
            if name not in kept
        ],
        [ValueInfoProto(name=name) for name in made],
        [numpy_helper.from_array(value, name) for name, value in given.items() if name in kept],
    )
    imports = [helper.make_opsetid("", version)]
    imports += [helper.make_opsetid(domain, 1)] if domain else []
    return onnx.shape_inference.infer_shapes(helper.make_model(graph, opset_imports=imports, ir_version=8))


def bind(model: ModelProto) -> BoundModule:
    """Return our import of ``model``."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "single.onnx"
        path.write_bytes(model.SerializeToString())
        return to_torch(path, allow_unbound=True)


def compute(model: ModelProto, *inputs: Array | None) -> list[Array]:
    """Return what our import of ``model`` makes of ``inputs``, those left out or stored passed over."""
    bound = bind(model)
    values = [torch.from_numpy(np.array(inputs[int(name[1:])])) for name in bound.input_names]
    with torch.no_grad():
        found = bound(*values)
    return [tensor.numpy() for tensor in (found if isinstance(found, tuple) else (found,))]


def expect(model: ModelProto, *inputs: Array | None) -> list[Array]:
    """Return what ONNX's reference makes of ``inputs``."""
    feeds = {info.name: inputs[int(info.name[1:])] for info in model.graph.input}
    return [np.asarray(value) for value in ReferenceEvaluator(model).run(None, feeds)]


def assert_same(found: Sequence[Array], expected: Sequence[Array], rtol: float, atol: float) -> None:
    """Assert that dtypes, shapes and values agree; integers and truths exactly."""
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == theirs.dtype
        assert ours.shape == theirs.shape
        if ours.dtype.kind in "biu":
            np.testing.assert_array_equal(ours, theirs)
        else:
            np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=atol)


def assert_agrees(
    op: str,
    *inputs: Array | None,
    version: int,
    stored: Collection[int] = (),
    outputs: int = 1,
    rtol: float = 1e-5,
    atol: float = 1e-6,
    expected: Sequence[Array] | None = None,
    **attributes: Any,
) -> None:
    """Assert that we compute what ONNX's reference does, or ``expected``; arguments are those of ``single``."""
    model = single(op, *inputs, version=version, stored=stored, outputs=outputs, **attributes)
    wanted = expect(model, *inputs) if expected is None else expected
    assert_same(compute(model, *inputs), wanted, rtol, atol)
