import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mothkit.hardening.bank import TriggerBank
from mothkit.inversion.found import Inverted


def found(values: Tensor, *flags: bool, cost: float = 1.0) -> Inverted:
    k = len(values)
    losses = tuple(torch.zeros(1) for _ in range(k))
    return Inverted(
        masks=values[:, :1],
        patterns=values[:, 1:],
        mask_l1=values[:, 0].sum((1, 2)),
        found=torch.tensor(flags),
        success_rate=torch.ones(k),
        loss_start=losses,
        loss_end=losses,
        cost=torch.full((k,), cost),
    )


def universal() -> Tensor:
    return torch.arange(3.0).view(3, 1, 1, 1).expand(3, 4, 2, 2) / 10


def test_a_direction_starts_from_its_targets_universal_trigger() -> None:
    masks, patterns = TriggerBank(universal()).start([(0, 2), (2, 1)])
    assert (masks.shape, patterns.shape) == ((2, 1, 2, 2), (2, 3, 2, 2))
    assert torch.allclose(masks.flatten(1).mean(1), torch.tensor([0.2, 0.1]))
    assert torch.allclose(patterns.flatten(1).mean(1), torch.tensor([0.2, 0.1]))


def test_a_direction_goes_on_from_its_own_trigger_and_no_other_does() -> None:
    bank = TriggerBank(universal())
    bank.keep([(0, 2), (2, 0)], found(torch.full((2, 4, 2, 2), 0.9), True, False))
    masks, _ = bank.start([(0, 2), (2, 0), (1, 2)])
    assert torch.allclose(masks.flatten(1).mean(1), torch.tensor([0.9, 0.0, 0.2]))


def test_a_failure_keeps_the_trigger_from_before() -> None:
    bank = TriggerBank(universal())
    bank.keep([(0, 2)], found(torch.full((1, 4, 2, 2), 0.9), True))
    bank.keep([(0, 2)], found(torch.full((1, 4, 2, 2), 0.4), False))
    assert torch.allclose(bank.start([(0, 2)])[0], torch.tensor(0.9))


def test_a_bank_goes_on_from_its_state() -> None:
    bank = TriggerBank(universal())
    bank.keep([(0, 2)], found(torch.full((1, 4, 2, 2), 0.9), True))
    again = TriggerBank(**bank.state())
    bank.keep([(0, 1)], found(torch.full((1, 4, 2, 2), 0.5), True))
    assert torch.equal(again.start([(0, 2)])[0], bank.start([(0, 2)])[0])
    assert torch.allclose(again.start([(0, 1)])[0], torch.tensor(0.1))  # the state is a copy


def test_a_cost_is_carried_from_the_last_inversion_of_its_direction_found_or_not() -> None:
    bank = TriggerBank(universal())
    bank.keep([(0, 2)], found(torch.full((1, 4, 2, 2), 0.9), True, cost=0.5))
    bank.keep([(2, 0)], found(torch.full((1, 4, 2, 2), 0.9), False, cost=0.25))
    assert bank.start_costs([(2, 0), (1, 2), (0, 2)], 0.05).tolist() == pytest.approx([0.25, 0.05, 0.5])
    again = TriggerBank(**bank.state())
    bank.keep([(0, 2)], found(torch.full((1, 4, 2, 2), 0.9), True, cost=2.0))
    assert again.start_costs([(0, 2)], 0.05).tolist() == [0.5]


@settings(max_examples=40, deadline=None)
@given(
    visits=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), max_size=30), places=st.integers(1, 5)
)
def test_only_the_newest_triggers_are_held(visits: list[tuple[int, int]], places: int) -> None:
    bank = TriggerBank(universal(), room=places * 4 * 2 * 2 * 4 + 3)
    newest: list[tuple[int, int]] = []
    for number, direction in enumerate(visits):
        values = torch.full((1, 4, 2, 2), 0.5 + number / 100)
        bank.keep([direction], found(values, True, cost=number + 1.0))
        newest = [*(d for d in newest if d != direction), direction][-places:]
        assert list(bank.own) == newest
    for direction in {(s, t) for s in range(3) for t in range(3)}:
        last = max((n for n, visited in enumerate(visits) if visited == direction), default=None)
        held = direction in newest and last is not None
        wanted = 0.5 + last / 100 if held and last is not None else direction[1] / 10
        assert torch.allclose(bank.start([direction])[0], torch.tensor(wanted))
        cost = last + 1.0 if held and last is not None else 0.05
        assert bank.start_costs([direction], 0.05).tolist() == pytest.approx([cost])
