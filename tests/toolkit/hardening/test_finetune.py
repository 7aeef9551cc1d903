import copy

import torch

from mothkit.classifier import Classifier
from mothkit.hardening.selection import mirroring_is_safe
from mothkit.hardening.training import Sampler, label_loss
from tests.tuned import CLEAN, harden


def test_it_is_sgd_on_true_labels_with_a_learning_rate_that_falls_to_zero(backdoored: Classifier) -> None:
    """The same run, written out with torch's own optimiser and schedule."""
    hardened = harden("finetune", backdoored, candidates=1)
    generator = torch.Generator().manual_seed(0)
    rest, _ = CLEAN.split(0.15, generator=generator)
    assert mirroring_is_safe(backdoored, CLEAN, torch.device("cpu"))
    torch.randint(2**31, (), generator=generator)  # the seed of the judge's views
    from mothkit.hardening.finetune import FinetuneConfig

    sampler = Sampler(rest, FinetuneConfig(batch_size=32), generator)
    twin = copy.deepcopy(backdoored).train()
    steps = -(-4 * len(rest) // 32)
    optimiser = torch.optim.SGD(twin.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        batch = sampler.batch(())
        optimiser.zero_grad()
        label_loss(twin(batch.x), batch).backward()
        optimiser.step()
        schedule.step()
    assert hardened.classifier is not None
    for name, tensor in twin.state_dict().items():
        assert torch.allclose(hardened.classifier.state_dict()[name], tensor, atol=1e-5)
