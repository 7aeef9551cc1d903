import copy
import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from mothkit.classifier import Classifier
from mothkit.errors import ConfigError
from mothkit.hardening.base import Budget
from mothkit.hardening.ft_sam import FtSamConfig, sharpest_step, statistics_kept
from mothkit.hardening.training import Sampler
from tests.tuned import CLEAN, harden

ONE_STEP = Budget(steps=1, max_accuracy_drop=100)


def test_the_step_is_the_best_to_first_order_of_its_relative_length() -> None:
    draw = torch.Generator().manual_seed(0)
    weights = [torch.randn(4, 3, generator=draw), torch.randn(5, generator=draw)]
    gradients = [torch.randn(4, 3, generator=draw), torch.randn(5, generator=draw)]

    def length(step: list[torch.Tensor]) -> float:
        return math.sqrt(sum(float((s / w.abs()).square().sum()) for s, w in zip(step, weights, strict=True)))

    def gain(step: list[torch.Tensor]) -> float:
        return sum(float((s * g).sum()) for s, g in zip(step, gradients, strict=True))

    best = sharpest_step(weights, gradients, 0.3)
    assert length(best) == pytest.approx(0.3, rel=1e-4)
    for _ in range(50):
        other = [weight.abs() * torch.randn(weight.shape, generator=draw) for weight in weights]
        scaled = [0.3 / length(other) * each for each in other]
        assert gain(scaled) < gain(best)
    assert all(not each.any() for each in sharpest_step(weights, [0 * g for g in gradients], 0.3))


def test_one_step_is_that_of_sgd_with_the_gradient_from_the_worst_place(backdoored: Classifier) -> None:
    """Written out with torch alone, in eval mode."""
    hardened = harden(
        "ft-sam", backdoored, budget=ONE_STEP, rho=0.5, batch_statistics=False, weight_decay=0.0
    )
    generator = torch.Generator().manual_seed(0)
    rest, _ = CLEAN.split(0.15, generator=generator)
    torch.randint(2**31, (), generator=generator)
    batch = Sampler(rest, FtSamConfig(batch_size=32), generator).batch(())
    worst, twin = copy.deepcopy(backdoored), copy.deepcopy(backdoored)
    parameters = list(twin.parameters())
    loss = cross_entropy(twin(batch.x), batch.y, label_smoothing=0.1)
    step = sharpest_step([p.detach() for p in parameters], list(torch.autograd.grad(loss, parameters)), 0.5)
    with torch.no_grad():
        for place, move in zip(worst.parameters(), step, strict=True):
            place += move
    loss = cross_entropy(worst(batch.x), batch.y, label_smoothing=0.1)
    gradients = torch.autograd.grad(loss, list(worst.parameters()))
    assert hardened.classifier is not None
    for found, before, gradient in zip(hardened.classifier.parameters(), parameters, gradients, strict=True):
        assert torch.allclose(found, before - 0.01 * gradient, atol=1e-5)


def test_running_statistics_follow_the_first_pass_alone(backdoored: Classifier) -> None:
    sam, plain = (harden(name, backdoored, budget=ONE_STEP).classifier for name in ("ft-sam", "finetune"))
    assert sam is not None and plain is not None
    for name in ("mean1", "var2"):
        assert torch.equal(sam.network.tensor(name), plain.network.tensor(name))
        assert not torch.equal(sam.network.tensor(name), backdoored.network.tensor(name))


def test_statistics_that_are_kept_move_again_afterwards(backdoored: Classifier) -> None:
    before = backdoored.network.tensor("mean1").clone()
    x = torch.rand(8, 3, 8, 8)
    backdoored.train()
    with statistics_kept(backdoored):
        backdoored(x)
    assert torch.equal(backdoored.network.tensor("mean1"), before)
    backdoored(x)
    assert not torch.equal(backdoored.network.tensor("mean1"), before)


@pytest.mark.parametrize(("name", "value"), [("rho", 0.0), ("label_smoothing", 1.0)])
def test_settings_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{name} is {value}"):
        replace(FtSamConfig(), **{name: value})
