import torch
from torch import Tensor

from mothkit.hardening.bank import TriggerBank
from mothkit.inversion.found import Inverted


def found(values: Tensor, *flags: bool) -> Inverted:
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
        cost=torch.ones(k),
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
