"""Operators whose arithmetic on sizes must hold where a size is a symbol."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.converters.ops.single import Array, imported, one


def drawn(*shape: int) -> Array:
    return np.random.default_rng(shape).normal(size=shape).astype("f4")


SCALES = np.array([1, 1, 1.5, 0.7], "f4")
SAME: dict[str, Any] = {"auto_pad": "SAME_LOWER", "strides": [2, 2]}
CASES: list[tuple[str, list[Array | None], dict[str, Any]]] = [
    ("Conv", [drawn(4, 3, 3, 2)], SAME),
    ("ConvTranspose", [drawn(3, 4, 3, 3)], SAME),
    ("ConvTranspose", [drawn(3, 4, 3, 3)], {"pads": [0, 1, 1, 0], "strides": [2, 3]}),
    ("MaxPool", [], {"kernel_shape": [3, 3], "pads": [0, 0, 2, 2], "strides": [2, 2], "ceil_mode": 1}),
    ("AveragePool", [], {"kernel_shape": [3, 3], "pads": [0, 1, 2, 0], "dilations": [2, 1]}),
    ("BatchNormalization", [drawn(3) ** 2 for _ in range(4)], {}),
    ("InstanceNormalization", [drawn(3), drawn(3)], {}),
    ("LRN", [], {"size": 3}),
    ("Resize", [None, SCALES], {"mode": "linear"}),
    ("Resize", [None, SCALES], {"mode": "nearest", "coordinate_transformation_mode": "asymmetric"}),
    ("Resize", [None, None, np.array([9, 11])], {"mode": "cubic", "antialias": 1, "axes": [2, 3]}),
]


@pytest.mark.parametrize(("op", "more", "attributes"), CASES)
def test_a_size_may_be_a_symbol(op: str, more: list[Array | None], attributes: dict[str, Any]) -> None:
    stored = [place for place, values in enumerate(more, start=1) if values is not None]
    model, _ = one(op, drawn(2, 3, 8, 7), *more, opset=19, stored=stored, **attributes)
    for dim in model.graph.input[0].type.tensor_type.shape.dim:
        dim.Clear()
    network = imported(model)
    torch.compiler.reset()
    traced = torch.compile(network, fullgraph=True, dynamic=True, backend="eager")
    for shape in ((2, 3, 8, 7), (3, 3, 10, 13)):
        x = torch.from_numpy(drawn(*shape))
        torch.testing.assert_close(traced(x), network(x))
