from dataclasses import replace

import pytest
import torch

from mothkit.classifier import Classifier
from mothkit.errors import ConfigError, TrainingError
from mothkit.hardening.ibau import IbauConfig, hypergradient
from tests.backdoored import asr
from tests.tuned import harden


@pytest.mark.parametrize(("steps", "rate"), [(1, 0.5), (5, 0.1), (300, 0.1)])
def test_the_hypergradient_is_that_of_a_parabola_worked_out_by_hand(steps: int, rate: float) -> None:
    """inner (p - a w)^2 / 2 has its minimum at p = a w; outer b p + w: its gradient by w is a b + 1 in the limit."""
    a, b = 3.0, 2.0
    weight = torch.tensor([0.7], requires_grad=True)

    def inner(at: torch.Tensor) -> torch.Tensor:
        return ((at - a * weight) ** 2).sum() / 2

    def outer(at: torch.Tensor) -> torch.Tensor:
        return (b * at + weight).sum()

    (found,) = hypergradient(inner, outer, torch.tensor([2.0]), [weight], steps=steps, rate=rate)
    series = sum((1 - rate) ** k for k in range(steps))
    assert float(found) == pytest.approx(1 + b * series * rate * a, rel=1e-4)
    if steps == 300:
        assert float(found) == pytest.approx(1 + a * b, rel=1e-4)
    assert weight.grad is None


def test_it_lowers_the_attack(backdoored: Classifier) -> None:
    hardened = harden("ibau", backdoored, learning_rate=1e-2, epochs=10, perturbed=0.3)
    assert hardened.classifier is not None
    assert asr(hardened.classifier) < 0.5
    assert len(hardened.details["perturbation_l2"]) == 8  # 32 steps, 4 a round of 102 images


def test_a_hypergradient_that_is_not_finite_is_told(backdoored: Classifier) -> None:
    with pytest.raises(TrainingError, match="the hypergradient is not finite"):
        harden("ibau", backdoored, perturbation_rate=1e30)


@pytest.mark.parametrize(
    ("name", "value"),
    [("perturbation_rate", 0.0), ("perturbed", 0.0), ("fixed_points", 0), ("perturbation_decay", -1.0)],
)
def test_settings_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{name} is {value}"):
        replace(IbauConfig(), **{name: value})
