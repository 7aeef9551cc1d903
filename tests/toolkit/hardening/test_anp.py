import copy
from dataclasses import replace

import pytest
import torch
from torch.func import functional_call

from mothkit.classifier import Classifier
from mothkit.errors import ConfigError
from mothkit.hardening.anp import AnpConfig, Masked, find_channels, masked_weights
from mothkit.hardening.base import Budget
from tests.backdoored import accuracy, asr
from tests.tuned import CLEAN, harden

X = CLEAN.pixels(torch.arange(len(CLEAN)))


def test_channels_of_batch_normalisations_are_masked_and_where_it_is_folded_those_of_convolutions(
    backdoored: Classifier, folded: Classifier
) -> None:
    assert [each.node for each in find_channels(backdoored, X)] == ["bn1", "bn2"]
    assert [each.node for each in find_channels(folded, X)] == ["conv1", "conv2"]


def test_a_channel_that_is_masked_out_gives_its_mean_at_every_pixel(folded: Classifier) -> None:
    channels = find_channels(folded, X)
    weights = dict(folded.named_parameters())
    masks = [torch.ones(12), torch.ones(12)]
    masks[0][3] = 0
    changed = masked_weights(weights, channels, masks)
    before, after = (
        torch.conv2d(X, source[channels[0].weight], source[channels[0].bias or ""], padding=1)
        for source in (weights, changed)
    )
    assert torch.allclose(after[:, 3], before[:, 3].mean(), atol=1e-5)
    kept = [k for k in range(12) if k != 3]
    assert torch.allclose(after[:, kept], before[:, kept], atol=1e-5)


def test_a_folded_network_is_masked_to_the_same_function(backdoored: Classifier, folded: Classifier) -> None:
    """With the folded layer's own bias for the mean; measured, it differs by what the images do from the training's."""
    draw = torch.Generator().manual_seed(0)
    masks = [torch.rand(12, generator=draw) for _ in range(2)]
    noise = [(torch.rand(12, generator=draw) - 0.5, torch.rand(12, generator=draw) - 0.5) for _ in range(2)]
    plain, merged = find_channels(backdoored, X), find_channels(folded, X)
    for mine, theirs in zip(merged, plain, strict=True):
        assert mine.rest is not None and theirs.rest is not None
        assert torch.allclose(mine.rest, theirs.rest, atol=0.5)
    exact = [replace(mine, rest=theirs.rest) for mine, theirs in zip(merged, plain, strict=True)]
    logits = [
        functional_call(model, masked_weights(dict(model.named_parameters()), channels, masks, noise), (X,))
        for model, channels in ((backdoored, plain), (folded, exact))
    ]
    assert torch.allclose(logits[0], logits[1], atol=1e-3)


def test_whole_masks_change_nothing_and_train_nothing_else(backdoored: Classifier) -> None:
    masked = Masked(copy.deepcopy(backdoored), find_channels(backdoored, X)).eval()
    assert torch.allclose(masked(X), backdoored(X), atol=1e-5)
    assert sum(each.numel() for each in masked.parameters() if each.requires_grad) == 24


def test_the_backdoors_channels_go_and_the_accuracy_stays(backdoored: Classifier) -> None:
    budget = Budget(max_accuracy_drop=2)
    settings = {"iterations": 60, "noise": 0.4, "learning_rate": 0.2, "threshold_step": 0.1}
    hardened = harden("anp", backdoored, budget=budget, **settings)
    assert hardened.classifier is not None
    assert asr(hardened.classifier) < 0.2
    assert accuracy(hardened.classifier) > 0.95
    masks, thresholds = hardened.details["masks"], hardened.details["thresholds"]
    values = torch.tensor([*masks["bn1"], *masks["bn2"]])
    assert ((values >= 0) & (values <= 1)).all()
    for each in thresholds:
        assert each["pruned"] == int((values <= each["threshold"]).sum())
    assert hardened.chosen is not None
    chosen = thresholds[hardened.chosen.step - hardened.steps]
    scales = torch.cat([hardened.classifier.network.tensor(f"scale{k}") for k in (1, 2)])
    assert int((scales == 0).sum()) == chosen["pruned"] > 0


def test_a_convolution_without_bias_and_normalisation_is_masked_too(folded: Classifier) -> None:
    channels = find_channels(folded, X)
    bare = [replace(each, bias=None, rest=None) for each in channels]
    changed = masked_weights(dict(folded.named_parameters()), bare, [torch.zeros(12)] * 2)
    assert sorted(changed) == sorted(each.weight for each in channels)
    assert all(not values.any() for values in changed.values())


@pytest.mark.parametrize(
    ("name", "value"),
    [("iterations", 0), ("noise", 0.0), ("noise_steps", 0), ("clean_share", 1.5), ("threshold_step", 0.0)],
)
def test_settings_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{name} is {value}"):
        replace(AnpConfig(), **{name: value})
