import copy
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from mothkit.classifier import Classifier
from mothkit.errors import ConfigError
from mothkit.hardening.base import Budget
from mothkit.hardening.training import Sampler
from mothkit.hardening.uap import UapConfig, ascend
from tests.backdoored import accuracy
from tests.tuned import CLEAN, harden


def test_the_perturbation_goes_up_the_sum_of_gradients_of_images_that_are_not_lost_yet() -> None:
    config = UapConfig(eps=0.3, step_size=0.2, loss_bound=5.0)
    gradients = torch.tensor([1.0, -3.0, 9.0]).view(3, 1, 1, 1).expand(3, 1, 2, 2)
    losses = torch.tensor([1.0, 2.0, 5.0])
    once = ascend(torch.zeros(1, 1, 2, 2), gradients, losses, config)
    assert torch.allclose(once, torch.tensor(-0.2))  # the third image has no say
    assert torch.allclose(ascend(once, gradients, losses, config), torch.tensor(-0.3))
    assert torch.equal(ascend(once, gradients, losses + 9, config), once)


def test_the_second_step_is_taken_on_images_that_the_first_made_worse(backdoored: Classifier) -> None:
    """Two steps, written out with torch's own optimiser, in eval mode."""
    settings = {"eps": 0.1, "step_size": 0.03, "schedule": "constant", "batch_statistics": False}
    hardened = harden("uap", backdoored, budget=Budget(steps=2, max_accuracy_drop=100), **settings)
    generator = torch.Generator().manual_seed(0)
    rest, _ = CLEAN.split(0.15, generator=generator)
    torch.randint(2**31, (), generator=generator)
    sampler = Sampler(rest, UapConfig(batch_size=32), generator)
    twin = copy.deepcopy(backdoored)
    optimiser = torch.optim.SGD(twin.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    change = torch.zeros(1, 3, 8, 8)
    for _ in range(2):
        batch = sampler.batch(())
        x = (batch.x + change).clamp(0, 1).requires_grad_()
        optimiser.zero_grad()
        cross_entropy(twin(x), batch.y).backward()
        optimiser.step()
        assert x.grad is not None
        change = change + 0.03 * x.grad.sum(0, keepdim=True).sign()
    assert hardened.classifier is not None
    for name, tensor in twin.state_dict().items():
        assert torch.allclose(hardened.classifier.state_dict()[name], tensor, atol=1e-6)
    assert hardened.details["perturbation_linf"] == pytest.approx(float(change.abs().max()))


def test_the_perturbation_stays_within_its_bound_and_accuracy_stays(backdoored: Classifier) -> None:
    hardened = harden("uap", backdoored, eps=0.1, step_size=0.03, learning_rate=0.05)
    assert hardened.details["perturbation_linf"] == pytest.approx(0.1)
    assert hardened.classifier is not None
    assert accuracy(hardened.classifier) > 0.95


@pytest.mark.parametrize(("name", "value"), [("eps", 0.0), ("step_size", 2.0), ("loss_bound", 0.0)])
def test_settings_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{name} is {value}"):
        replace(UapConfig(), **{name: value})
