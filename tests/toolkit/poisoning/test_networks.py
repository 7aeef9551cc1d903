import pytest
import torch
from torch import nn

from mothkit.errors import ConfigError
from mothkit.poisoning.networks import OURS, build_network


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("name", OURS)
def test_each_gives_one_score_a_class_and_normalises(name: str) -> None:
    network = build_network(name, 7, seed=0).eval()
    with torch.no_grad():
        assert network(torch.rand(2, 3, 32, 32)).shape == (2, 7)
    assert any(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@pytest.mark.parametrize(("name", "millions"), [("resnet20", 0.27), ("resnet32", 0.46)])
def test_residual_networks_have_as_many_weights_as_published(name: str, millions: float) -> None:
    assert round(count(build_network(name, 10, seed=0)) / 1e6, 2) == millions  # He et al. 2016, table 6


def test_vgg19_has_the_convolutions_of_configuration_e() -> None:
    convolutions = [m for m in build_network("vgg19", 10, seed=0).modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 16
    assert sum(m.weight.numel() for m in convolutions) == 20_018_880


def test_the_same_seed_draws_the_same_weights_and_leaves_torch_s_generator_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first, again, other = (build_network("cnn3", 5, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    pairs = list(zip(first.parameters(), again.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(next(first.parameters()), next(other.parameters()))


@pytest.mark.parametrize("name", ["squeezenet1_1", "googlenet"])
def test_torchvision_s_come_by_name_with_a_plain_tensor_for_output(name: str) -> None:
    network = build_network(name, 6, seed=0).train()
    assert network(torch.rand(2, 3, 64, 64)).shape == (2, 6)


def test_an_unknown_network_is_refused() -> None:
    with pytest.raises(ConfigError, match="network is 'resnet21', neither one of cnn3, resnet20"):
        build_network("resnet21", 5, seed=0)
