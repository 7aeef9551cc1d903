import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from mothkit.classifier import Classifier
from mothkit.errors import ConfigError
from mothkit.hardening.sau import SauConfig, divergence, shared_examples, unshare_loss
from mothkit.inversion.engine import frozen
from tests.backdoored import accuracy, asr
from tests.tuned import CLEAN, harden


def test_the_divergence_is_jensens_and_shannons_written_out() -> None:
    draw = torch.Generator().manual_seed(0)
    a, b = torch.randn(6, 4, generator=draw), torch.randn(6, 4, generator=draw)
    p, q = torch.softmax(a, 1).double().numpy(), torch.softmax(b, 1).double().numpy()
    m = (p + q) / 2
    wanted = ((p * np.log(p / m)).sum(1) + (q * np.log(q / m)).sum(1)) / 2
    assert divergence(a, b).numpy() == pytest.approx(wanted, rel=1e-4)
    assert divergence(a, a).abs().max() < 1e-6
    far = torch.eye(2) * 100
    assert divergence(far, far.flip(0)).tolist() == pytest.approx([math.log(2)] * 2, rel=1e-4)


def test_unsharing_counts_images_whose_attack_changed_the_original_to_a_wrong_class() -> None:
    theirs = torch.eye(3)[[1, 1, 0, 2]]  # it says 1, 1, 0, 2 of the attacked images
    told, y = torch.tensor([0, 1, 0, 2]), torch.tensor([0, 0, 0, 0])
    logits = torch.log(torch.tensor([[0.2, 0.7, 0.1]] * 4))
    # counted: the first alone; the second was so unattacked, the third is right, the fourth was so unattacked
    assert float(unshare_loss(logits, theirs, told, y)) == pytest.approx(-math.log(0.3) / 4, rel=1e-3)


def test_attacked_images_stay_within_the_bound_and_fool_both_alike(backdoored: Classifier) -> None:
    x, y = CLEAN.pixels(torch.arange(60)), CLEAN.labels[:60]
    before, original = x.clone(), copy.deepcopy(backdoored)
    with frozen(backdoored) as model, frozen(original) as other:
        bad = shared_examples(model, other, x, y, SauConfig())
    assert torch.equal(x, before)
    assert float((bad - x).abs().max()) <= 0.2 + 1e-6
    assert float(bad.min()) >= 0 and float(bad.max()) <= 1
    with torch.no_grad():
        assert float((backdoored(bad).argmax(1) != y).float().mean()) > 0.5


def test_it_weakens_the_attack_and_keeps_the_accuracy(backdoored: Classifier) -> None:
    hardened = harden("sau", backdoored, learning_rate=1e-2, epochs=8, attack_steps=5)
    assert hardened.classifier is not None
    assert asr(hardened.classifier) < 0.7
    assert accuracy(hardened.classifier) > 0.95


@pytest.mark.parametrize(
    ("name", "value"), [("eps", 0.0), ("step_size", 0.0), ("attack_steps", 0), ("shared_weight", -1.0)]
)
def test_settings_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{name} is {value}"):
        replace(SauConfig(), **{name: value})
