"""What only a CUDA device can show; run with ``pytest -m gpu`` on a machine that has one."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mothkit.hardening.base import Budget
from mothkit.inversion.config import InversionConfig, InversionTask
from mothkit.inversion.engine import invert
from mothkit.opening import Settings, open_model
from mothkit.pipeline import HardenSettings, harden_file
from mothkit_converters import diff
from tests import tiny

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]
CPU, CUDA = torch.device("cpu"), torch.device("cuda:0")


def test_onnxruntime_runs_on_cuda_and_agrees_with_the_cpu(tmp_path: Path) -> None:
    path = tiny.write_tiny(tmp_path / "tiny.onnx")
    x = tiny.tiny_images(4).pixels(list(range(12)))
    sessions = [
        open_model(path, Settings(preprocess="unit", device=device)).session("logits")
        for device in ("cuda", "cpu")
    ]
    assert sessions[0].providers[0] == "CUDAExecutionProvider"
    np.testing.assert_allclose(sessions[0].logits(x), sessions[1].logits(x), rtol=1e-3, atol=1e-4)


def test_inversion_finds_triggers_of_the_same_size_on_both(tmp_path: Path) -> None:
    classifier = tiny.open_tiny(tiny.write_tiny(tmp_path / "tiny.onnx"))
    images = tiny.tiny_images(16)
    pool = images.pixels(torch.arange(len(images)))
    tasks = [InversionTask(torch.nonzero(images.labels == s)[:, 0], (s + 1) % 3) for s in range(3)]
    sizes = []
    for device in (CPU, CUDA):
        generator = torch.Generator().manual_seed(0)
        found = invert(
            classifier.to(device), pool, tasks, InversionConfig(steps=80), generator=generator, device=device
        )
        assert bool(found.found.all())
        sizes.append(found.mask_l1)
    torch.testing.assert_close(sizes[0], sizes[1], rtol=0.1, atol=0.1)


def test_a_model_is_hardened_on_cuda(tmp_path: Path) -> None:
    path = tiny.write_tiny(tmp_path / "tiny.onnx")
    data = tiny.write_images(tmp_path / "images.npz", 20)
    settings = HardenSettings(
        preprocess="unit", device="cuda", budget=Budget(steps=10, max_accuracy_drop=100.0)
    )
    outcome = harden_file(path, str(data), tmp_path / "hard.onnx", settings)
    harden_file(path, str(data), tmp_path / "again.onnx", settings)
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "hard.onnx").read_bytes()
    assert outcome.written
    assert outcome.record["parity_after"]["agrees"]
    assert diff(path, tmp_path / "hard.onnx").only_weights
