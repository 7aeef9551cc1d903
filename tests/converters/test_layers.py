import copy
from pathlib import Path

import torch

from mothkit_converters import layers_of, to_torch
from tests.tiny import write_tiny


def test_layers_are_named_as_in_the_file_and_know_their_weights(tmp_path: Path) -> None:
    bound = to_torch(write_tiny(tmp_path / "tiny.onnx"), outputs=["logits"])
    layers = layers_of(bound)
    assert [layer.node for layer in layers] == ["conv", "bn", "relu", "pool", "flatten", "fc"]
    assert [layer.operator for layer in layers][:2] == ["Conv", "BatchNormalization"]
    conv, norm, fc = layers[0], layers[1], layers[-1]
    assert norm.inputs == (conv, None, None, None, None)
    assert conv.inputs == (None, None)
    assert fc.attributes["transB"] == 1
    for place, name in enumerate(("scale", "bias", "mean", "var"), start=1):
        assert norm.tensors[place] == bound.ties[f"bn.{name}"].torch_name


def test_a_hook_on_a_layer_of_a_copy_sees_the_copy_alone(tmp_path: Path) -> None:
    bound = to_torch(write_tiny(tmp_path / "tiny.onnx"))
    other = copy.deepcopy(bound)
    seen: list[torch.Size] = []
    layer = next(layer for layer in layers_of(other) if layer.node == "pool")
    layer.module.register_forward_hook(lambda _module, _given, found: seen.append(found.shape))
    x = torch.rand(2, 3, 8, 8)
    bound(x)
    assert seen == []
    other(x)
    assert seen == [torch.Size([2, 3, 1, 1])]


def test_the_layer_that_gives_the_output_is_the_last(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "tiny.onnx", softmax=True)
    assert layers_of(to_torch(path))[-1].operator == "Softmax"
    assert layers_of(to_torch(path, outputs=["r"]))[-1].node == "relu"
