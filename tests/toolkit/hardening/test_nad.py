import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from mothkit.classifier import Classifier
from mothkit.errors import ConfigError
from mothkit.hardening.features import attention_layers, named_layers, watched
from mothkit.hardening.nad import NadConfig, _loss, attention, betas_for
from mothkit.hardening.training import Batch, label_loss
from tests.backdoored import accuracy, asr
from tests.tuned import CLEAN, harden, weights


def test_attention_is_the_published_map_written_out() -> None:
    features = torch.randn(3, 5, 4, 2, generator=torch.Generator().manual_seed(0))
    wanted = np.square(features.numpy()).sum(1).reshape(3, 8)
    wanted /= np.sqrt(np.square(wanted).sum(1, keepdims=True))
    assert np.allclose(attention(features, 2.0).numpy(), wanted, atol=1e-5)
    assert torch.equal(attention(torch.zeros(1, 2, 2, 2), 2.0), torch.zeros(1, 4))


def test_the_last_map_of_each_resolution_is_attended_to(backdoored: Classifier, folded: Classifier) -> None:
    for classifier in (backdoored, folded):
        assert attention_layers(classifier, torch.rand(2, 3, 8, 8)) == ["relu1", "relu2"]


def test_a_network_that_is_watched_gives_what_its_nodes_compute(backdoored: Classifier) -> None:
    x = torch.rand(2, 3, 8, 8)
    with watched(named_layers(backdoored, ["conv1", "fc"])) as seen:
        logits = backdoored(x)
    kernel: Tensor = backdoored.network.tensor("conv1")
    assert torch.allclose(seen[0], torch.conv2d(x, kernel, padding=1), atol=1e-5)
    assert torch.equal(seen[1], logits)
    assert not any(module._forward_hooks for module in backdoored.modules())


@pytest.mark.parametrize(("maps", "wanted"), [(1, [3]), (2, [2, 3]), (3, [1, 2, 3]), (5, [1, 2, 3, 3, 3])])
def test_betas_go_to_the_last_maps_and_the_last_of_them_to_more(maps: int, wanted: list[float]) -> None:
    assert betas_for([1, 2, 3], maps) == wanted


def test_the_loss_is_that_of_the_labels_and_the_weighed_distance_of_maps(backdoored: Classifier) -> None:
    teacher = copy.deepcopy(backdoored)
    with torch.no_grad():
        teacher.network.tensor("conv2").mul_(torch.linspace(0.5, 1.5, 12)[:, None, None, None])
    x, y = CLEAN.pixels(torch.arange(30)), CLEAN.labels[:30]
    batch = Batch(x, x, y)
    for other, differs in ((teacher, True), (copy.deepcopy(backdoored), False)):
        with (
            watched(named_layers(backdoored, ["relu1", "conv2"])) as mine,
            watched(named_layers(other, ["relu1", "conv2"])) as theirs,
        ):
            loss = _loss(other, mine, theirs, [7.0, 900.0], 2.0)(logits := backdoored(x), batch).detach()
        gaps = [
            float((attention(a, 2) - attention(b, 2)).detach().square().mean())
            for a, b in zip(mine, theirs, strict=True)
        ]
        assert gaps[0] == 0
        assert (gaps[1] > 0) == differs
        assert float(loss) == pytest.approx(
            float(label_loss(logits.detach(), batch)) + 900 * gaps[1], rel=1e-4
        )


def test_it_lowers_the_attack_and_keeps_the_accuracy(backdoored: Classifier) -> None:
    hardened = harden("nad", backdoored, learning_rate=0.1, epochs=15, teacher_epochs=10)
    assert hardened.details["layers"] == ["relu1", "relu2"]
    assert hardened.details["betas"] == [1000, 1000]
    assert hardened.classifier is not None
    assert asr(hardened.classifier) < asr(backdoored) - 0.3
    assert accuracy(hardened.classifier) > 0.95


def test_nodes_can_be_named(backdoored: Classifier) -> None:
    hardened = harden("nad", backdoored, layers=("conv2",), epochs=1)
    assert hardened.details["layers"] == ["conv2"]
    assert weights(hardened.classifier) != weights(harden("nad", backdoored, epochs=1).classifier)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (("relu3",), "has no node 'relu3' that gives a value; there are conv1, bn1, relu1, pool"),
        (("relu1", "fc"), r"node 'fc' gives \[2, 3\]; expected maps"),
    ],
)
def test_nodes_without_a_map_are_refused(
    backdoored: Classifier, layers: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        harden("nad", backdoored, layers=layers)


@pytest.mark.parametrize(
    ("name", "value"), [("betas", ()), ("betas", (1.0, -1.0)), ("power", 0.0), ("teacher_epochs", 0)]
)
def test_settings_out_of_range_are_refused(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"{name} is "):
        replace(NadConfig(), **{name: value})
