"""Fresh files from torch modules: the names, sizes and opset asked for, and the module's own numbers."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

from mothkit_converters import ExportError, WriteError, export, read_source, to_torch

Save = Callable[..., Path]


class Small(nn.Module):
    """A convolution, a normalisation, and a score for each class."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(torch.relu(self.norm(self.conv(x))).mean((2, 3)))
        return y


class Two(nn.Module):
    """Two inputs, two outputs, one of them whole numbers."""

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        total = a @ b.transpose(1, 2)
        return total, total.flatten(1).argmax(1)


def ran(path: Path, *inputs: Tensor) -> list[Any]:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return session.run(None, dict(zip(names, (x.numpy() for x in inputs), strict=True)))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small") / "small.onnx"
    given = [torch.rand(1, 3, 8, 8)]
    module = Small()
    export(module, path, example_inputs=given, input_names=["image"], output_names=["logits"])
    assert module.training  # the caller's module is left as it was
    assert all(parameter.requires_grad for parameter in module.parameters())
    return path


def test_a_module_is_written_with_the_names_asked_for_and_a_free_batch(small: Path) -> None:
    source = read_source(small)
    assert [(value.name, value.shape) for value in source.inputs] == [("image", ("batch", 3, 8, 8))]
    assert [(value.name, value.shape) for value in source.outputs] == [("logits", ("batch", 5))]
    assert (source.opset, source.metadata) == (18, {"mothkit.export": "torch"})
    x = torch.rand(7, 3, 8, 8)
    with torch.no_grad():
        np.testing.assert_allclose(ran(small, x)[0], Small().eval()(x), rtol=1e-4, atol=1e-5)


def test_weights_keep_their_names_norms_stay_and_nothing_is_added(small: Path) -> None:
    assert {name for name, _ in Small().named_parameters()} == set(to_torch(small).bindings)
    assert read_source(small).operators["BatchNormalization"] == 1


def test_nothing_of_this_machine_is_in_the_file(small: Path) -> None:
    content = small.read_bytes()
    assert str(Path(__file__).parent).encode() not in content
    assert b"site-packages" not in content


def test_the_same_module_makes_the_same_bytes(small: Path, tmp_path: Path) -> None:
    given = [torch.rand(3, 3, 8, 8)]
    export(Small(), tmp_path / "b.onnx", example_inputs=given, input_names=["image"], output_names=["logits"])
    assert (tmp_path / "b.onnx").read_bytes() == small.read_bytes()


def test_a_module_from_a_file_brings_its_names_weights_and_metadata(cnn: Path, tmp_path: Path) -> None:
    bound = to_torch(cnn)
    with torch.no_grad():
        bound.tensor("conv_w").mul_(2)
    export(bound, tmp_path / "fresh.onnx")
    fresh, source = read_source(tmp_path / "fresh.onnx"), bound.source
    assert (fresh.inputs, [v.name for v in fresh.outputs]) == (
        source.inputs,
        [v.name for v in source.outputs],
    )
    assert fresh.metadata == {"classes": "4", "mothkit.export": "torch"}
    again = to_torch(fresh)
    assert set(again.bindings) == set(bound.bindings)
    torch.testing.assert_close(again.tensor("conv_w"), bound.tensor("conv_w"))
    x = torch.rand(5, 3, 8, 8)
    torch.testing.assert_close(again(x), bound(x))


@pytest.mark.parametrize(("free", "first"), [(True, "batch"), (False, 1)])
def test_a_batch_that_a_file_fixes_can_be_freed(
    save: Save, tmp_path: Path, free: bool, first: object
) -> None:
    text = '<ir_version: 8, opset_import: ["" : 13]> g (float[1, 6] x) => (float[1, 4] y) { y = Gemm(x, w) }'
    one = save(text, {"w": np.ones((6, 4), "f4")})
    export(to_torch(one), tmp_path / "fresh.onnx", dynamic_batch=free)
    source = read_source(tmp_path / "fresh.onnx")
    assert [value.shape for value in (*source.inputs, *source.outputs)] == [(first, 6), (first, 4)]


@pytest.mark.parametrize("opset", [17, 23])
def test_the_opset_is_the_one_asked_for(opset: int, tmp_path: Path) -> None:
    export(
        Two(), tmp_path / "two.onnx", example_inputs=[torch.rand(2, 3, 4), torch.rand(2, 5, 4)], opset=opset
    )
    source = read_source(tmp_path / "two.onnx")
    assert source.opset == opset
    assert [value.name for value in (*source.inputs, *source.outputs)] == [
        "input_0",
        "input_1",
        "output_0",
        "output_1",
    ]
    a, b = torch.rand(3, 3, 4), torch.rand(3, 5, 4)
    for found, expected in zip(ran(tmp_path / "two.onnx", a, b), Two()(a, b), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5)


class Batched(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(2, 2, 2).flatten(1)


class Random(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, 0.5, training=True)


class Choosing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum() > 0 else x


@pytest.mark.parametrize(
    ("module", "options", "why"),
    [
        (Batched(), {}, "torch cannot export the module|batch"),
        (Random(), {}, "differs from the module's"),
        (Choosing(), {}, "torch cannot export the module"),
        (Small(), {}, "cannot be run on inputs"),
        (nn.ReLU(), {"opset": 99}, "opset"),
        (nn.ReLU(), {"opset": 3}, "opset 3 cannot be had"),
        (Small(), {"example_inputs": None}, "example_inputs are needed"),
        (nn.ReLU(), {"input_names": ["a", "b"]}, r"has 1 input\(s\), and their names are \['a', 'b'\]"),
    ],
)
def test_what_cannot_be_right_leaves_what_stood_there(
    module: nn.Module, options: dict[str, Any], why: str, tmp_path: Path
) -> None:
    path = tmp_path / "there.onnx"
    path.write_bytes(b"before")
    with pytest.raises(ExportError, match=why):
        export(module, path, **{"example_inputs": [torch.rand(2, 4)], **options})
    assert path.read_bytes() == b"before"
    assert [file.name for file in tmp_path.iterdir()] == ["there.onnx"]


def test_the_original_is_not_replaced(cnn: Path) -> None:
    with pytest.raises(WriteError, match="is the original file itself"):
        export(to_torch(cnn), cnn)


def test_the_extra_is_named_where_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ExportError, match=r"pip install 'mothkit\[export\]'"):
        export(Small(), tmp_path / "small.onnx", example_inputs=[torch.rand(2, 3, 8, 8)])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "vit_b_32", "convnext_tiny", "efficientnet_b0"])
def test_networks_of_torchvision(name: str, tmp_path: Path) -> None:
    import torchvision

    torch.manual_seed(0)
    module = torchvision.models.get_model(name)
    export(module, tmp_path / "net.onnx", example_inputs=[torch.rand(2, 3, 224, 224)])
    assert {parameter for parameter, _ in module.named_parameters()} <= set(
        to_torch(tmp_path / "net.onnx").bindings
    )
