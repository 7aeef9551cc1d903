"""What holds for every method that tunes weights on clean images."""

import json

import pytest
import torch

from mothkit.classifier import Classifier
from mothkit.errors import ConfigError, ImageError
from mothkit.events import Event, StepDone
from mothkit.hardening.base import Budget
from mothkit.hardening.methods import METHODS, configured, described, entry_of
from mothkit.hardening.tuning import Method
from tests.backdoored import accuracy
from tests.tuned import CLEAN, SMALL, harden, weights

TUNING = [name for name, entry in METHODS.items() if isinstance(entry.make(entry.config), Method)]


@pytest.mark.parametrize("name", TUNING)
def test_the_same_seed_gives_the_same_copy_and_the_original_stays(name: str, backdoored: Classifier) -> None:
    backdoored.train()
    before, state = weights(backdoored), torch.get_rng_state()
    first, second = harden(name, backdoored), harden(name, backdoored)
    assert weights(first.classifier) == weights(second.classifier)
    assert weights(backdoored) == before
    assert all(module.training for module in backdoored.modules())
    assert all(each.requires_grad and each.grad is None for each in backdoored.parameters())
    assert torch.equal(torch.get_rng_state(), state)  # no random number but the generator's
    assert first.classifier is not None
    assert not any(module.training for module in first.classifier.modules())
    assert all(each.requires_grad for each in first.classifier.parameters())
    assert not any(module._forward_hooks for module in first.classifier.modules())
    assert accuracy(first.classifier) > 0.9


@pytest.mark.parametrize("name", TUNING)
def test_what_is_told_is_plain_json_and_belongs_to_the_weights(name: str, backdoored: Classifier) -> None:
    told: list[Event] = []
    hardened = harden(name, backdoored, emit=told.append)
    json.dumps(hardened.details, allow_nan=False)
    assert hardened.details["config"]["batch_size"] == SMALL["batch_size"]
    assert hardened.seen == (CLEAN.digest,)
    assert hardened.chosen is hardened.candidates[-1]
    assert hardened.chosen.step >= hardened.steps
    state = hardened.classifier.state_dict() if hardened.classifier else {}
    assert all(torch.equal(tensor, state[key]) for key, tensor in hardened.chosen.weights.items())
    assert all(event.step <= event.total for event in told if isinstance(event, StepDone))


@pytest.mark.parametrize("name", TUNING)
def test_time_that_is_up_ends_the_work_and_is_told(name: str, backdoored: Classifier) -> None:
    hardened = harden(name, backdoored, budget=Budget(seconds=1e-9, max_accuracy_drop=100))
    assert hardened.steps == 0
    assert hardened.classifier is not None
    assert hardened.cut
    assert weights(hardened.classifier) == weights(backdoored)


@pytest.mark.parametrize("name", TUNING)
def test_steps_are_those_of_the_budget(name: str, backdoored: Classifier) -> None:
    hardened = harden(name, backdoored, budget=Budget(steps=7, max_accuracy_drop=100))
    assert hardened.steps == 7


def test_weights_that_cost_too_much_do_not_come_back(backdoored: Classifier) -> None:
    hardened = harden("finetune", backdoored, learning_rate=50.0, budget=Budget(max_accuracy_drop=1))
    assert (hardened.classifier, hardened.chosen) == (None, None)
    assert all(candidate.accuracy_drop > 1 for candidate in hardened.candidates)


def test_a_class_without_images_is_refused(backdoored: Classifier) -> None:
    few = CLEAN.subset(torch.nonzero(CLEAN.labels != 2)[:, 0])
    entry = METHODS["finetune"]
    with pytest.raises(ImageError, match=r"classes \[2\] have fewer than 2 images"):
        entry.make(entry.config).harden(
            backdoored,
            few,
            generator=torch.Generator(),
            device=torch.device("cpu"),
            emit=print,
            budget=Budget(),
        )


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_described_and_can_be_set(name: str) -> None:
    told = described(METHODS[name])
    json.dumps(told)
    assert all(told[key] for key in ("does", "costs", "needs", "reference"))
    texts = {
        key: str(value).lower() for key, value in told["settings"].items() if not isinstance(value, tuple)
    }
    assert configured(name, texts) == METHODS[name].config


@pytest.mark.parametrize("name", TUNING)
@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("epochs", "0", "epochs is 0.0, not above 0"),
        ("held_back", "1", r"held_back is 1\.0, not in \(0, 1\)"),
        ("batch_size", "1", "batch_size 1"),
        ("stepps", "3", "no setting is called 'stepps'; there are batch_size, optimiser"),
    ],
)
def test_settings_out_of_range_are_refused(name: str, key: str, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        configured(name, {key: text})


def test_an_unknown_method_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(
        ConfigError, match="no method is called 'ft'; there are moth, pairwise, universal, finetune"
    ):
        entry_of("ft")
