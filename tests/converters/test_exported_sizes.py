"""Modules that compute with the shapes they get, as torch exports them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from mothkit_converters import to_torch

Run = Callable[..., list[Any]]

pytestmark = [
    pytest.mark.filterwarnings("ignore:You are using the legacy TorchScript-based ONNX export"),
    pytest.mark.filterwarnings("ignore:The feature will be removed:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]


class Flat(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.view(x.size(0), -1) + torch.flatten(x, 1)


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.token, self.places = nn.Parameter(torch.ones(1, 1, 7)), nn.Parameter(torch.rand(1, 30, 7))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.cat([self.token.expand(x.shape[0], -1, -1), x.flatten(1, 2)], 1)
        return y + self.places[:, : y.size(1)]


class Resized(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        larger = functional.interpolate(x, size=(height * 2, width + 1), mode="bilinear")
        return functional.interpolate(larger, size=x.shape[2:], mode="nearest")


class Padded(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        less, more = x.shape[-2] % 2, x.shape[-1] % 4
        return functional.pad(x, [more // 2, more - more // 2, less, 0])


class Halves(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, 1)
        n, c, h, w = a.shape
        return (a * b).view(n, 1, c, h, w).transpose(1, 2).reshape(-1, h * w)


MODULES = {module.__name__: module for module in (Flat, Tokens, Resized, Padded, Halves)}
SHAPES = [(2, 4, 5, 7), (1, 4, 5, 7), (5, 4, 5, 7)]
OTHER = [(3, 4, 8, 12), (2, 4, 9, 6)]  # where height and width are dynamic too
FREE = {"Resized", "Padded"}


@pytest.fixture(params=[False, pytest.param(True, marks=pytest.mark.slow)], ids=["script", "dynamo"])
def exported(request: pytest.FixtureRequest, name: str, tmp_path: Path) -> Path:
    path, x = tmp_path / "model.onnx", torch.rand(SHAPES[0])
    axes = {0: "n", 2: "h", 3: "w"} if name in FREE else {0: "n"}
    module = MODULES[name]().eval()
    if request.param:
        dims = {axis: torch.export.Dim(label) for axis, label in axes.items()}
        torch.onnx.export(module, (x,), path, dynamo=True, dynamic_shapes=(dims,), verbose=False)
    else:
        torch.onnx.export(
            module, (x,), path, dynamo=False, opset_version=17, input_names=["x"], dynamic_axes={"x": axes}
        )
    return path


@pytest.mark.parametrize("name", list(MODULES))
def test_a_module_comes_back_as_it_was_at_every_size(exported: Path, name: str, run: Run) -> None:
    bound = to_torch(exported)
    for shape in SHAPES + (OTHER if name in FREE else []):
        x = torch.rand(shape)
        found = bound(x).detach().numpy()
        (expected,) = run(exported, x.numpy())
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", list(MODULES))
def test_no_tensor_is_asked_for_a_size(exported: Path, name: str) -> None:
    shape = (OTHER if name in FREE else SHAPES)[1]
    made = to_torch(exported).to("meta")(torch.empty(shape, device="meta"))
    assert made.shape == MODULES[name]()(torch.empty(shape)).shape
