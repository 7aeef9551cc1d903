"""What the other tests build on holds."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from tests.tiny import draw_images, open_tiny, tiny_images, write_images, write_tiny


@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize("nhwc", [False, True])
@pytest.mark.parametrize("byte_input", [False, True])
def test_onnxruntime_and_torch_both_tell_the_colours(
    tmp_path: Path, softmax: bool, nhwc: bool, byte_input: bool
) -> None:
    path = write_tiny(tmp_path / "tiny.onnx", softmax=softmax, nhwc=nhwc, byte_input=byte_input)
    x, y = draw_images(40)
    fed = x.astype(np.float32) / (1 if byte_input else 255)
    fed = fed if nhwc else fed.transpose(0, 3, 1, 2)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (scores,) = session.run(None, {"image": fed})
    assert (scores.argmax(1) == y).mean() > 0.99
    if not byte_input:
        images = tiny_images(40)
        logits = open_tiny(path, nhwc=nhwc)(images.pixels(torch.arange(len(images))))
        assert torch.equal(logits.argmax(1), images.labels)


def test_a_fixed_batch_is_fixed(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "tiny.onnx", batch=4)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape[0] == 4


def test_the_images_on_disk_are_those_in_memory(tmp_path: Path) -> None:
    saved = np.load(write_images(tmp_path / "x.npz", 5, seed=3))
    images = tiny_images(5, seed=3)
    assert np.array_equal(saved["x"].transpose(0, 3, 1, 2), images.read(torch.arange(15)).numpy())
    assert saved["y"].tolist() == images.labels.tolist()
