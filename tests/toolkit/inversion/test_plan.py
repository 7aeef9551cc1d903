import pytest
import torch
from torch import Tensor, nn

from mothkit.inversion import plan
from mothkit.inversion.config import InversionConfig, InversionTask
from mothkit.inversion.engine import invert
from mothkit.inversion.plan import bytes_per_image, make_plan
from mothkit.triggers.patch import stamp

CPU = torch.device("cpu")


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def able(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "has_bfloat16", lambda _device: True)


class Brightness(nn.Module):
    """Tells whether the mean of an image is above ``threshold``, by a product of slope ``steep``."""

    def __init__(self, threshold: float, steep: float) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 2)
        with torch.no_grad():
            self.layer.weight.copy_(torch.tensor([[-steep], [steep]]))
            self.layer.bias.copy_(torch.tensor([steep * threshold, -steep * threshold]))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.mean((1, 2, 3))[:, None])


def greys(low: float, high: float) -> Tensor:
    return torch.linspace(low, high, 32)[:, None, None, None].expand(-1, 3, 8, 8).contiguous()


@pytest.mark.usefixtures("able")
def test_bfloat16_is_taken_where_classes_stay() -> None:
    made = make_plan(Brightness(0.5, 8.0), greys(0, 1), InversionConfig(), CPU)
    assert made.precision == "bfloat16"


@pytest.mark.usefixtures("able")
def test_bfloat16_is_not_taken_where_it_changes_classes() -> None:
    x = greys(0.5, 0.501)  # half a step of bfloat16 around 0.5 is 0.002
    assert make_plan(Brightness(0.5005, 8.0), x, InversionConfig(), CPU).precision == "float32"


@pytest.mark.usefixtures("able")
def test_bfloat16_is_not_taken_where_an_operator_lacks_it() -> None:
    class Summing(Brightness):
        def forward(self, x: Tensor) -> Tensor:
            return torch.zeros(len(x), 2).index_add(1, torch.arange(2), super().forward(x))

    assert make_plan(Summing(0.5, 8.0), greys(0, 1), InversionConfig(), CPU).precision == "float32"


def test_a_machine_without_it_takes_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        torch.cpu, "get_capabilities", lambda: {"avx2": True, "amx_bf16": False}, raising=False
    )
    assert make_plan(Brightness(0.5, 8.0), greys(0, 1), InversionConfig(), CPU).precision == "float32"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_plan_can_be_pinned(precision: plan.Precision) -> None:
    config = InversionConfig(precision=precision, images_per_forward=7)
    made = make_plan(Brightness(0.5, 8.0), greys(0, 1), config, CPU)
    assert (made.images_per_forward, made.precision) == (7, precision)


class Deep(nn.Module):
    """Keeps ``layers`` tensors of an image's size for the way back."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.layers):
            x = x.exp()
        return x.flatten(1)[:, :2]


def test_memory_of_an_image_is_what_its_layers_keep() -> None:
    image = 3 * 32 * 32 * 4
    for layers in (1, 10):
        measured = bytes_per_image(Deep(layers), torch.rand(1, 3, 32, 32))
        assert layers * image <= measured <= (layers + 2) * image


def test_weights_do_not_grow_with_images_and_are_not_counted() -> None:
    layer = nn.Linear(3 * 8 * 8, 1000)
    assert (
        bytes_per_image(nn.Sequential(nn.Flatten(), layer), torch.rand(1, 3, 8, 8)) < layer.weight.nbytes / 50
    )


@pytest.mark.parametrize(("free", "images"), [(0, 1), (2**21, 8), (2**40, 256)])
def test_a_pass_takes_no_more_than_half_of_the_free_memory(
    monkeypatch: pytest.MonkeyPatch, free: int, images: int
) -> None:
    monkeypatch.setattr(plan, "free_bytes", lambda _device: free)
    made = make_plan(Deep(6), torch.rand(4, 3, 32, 32), InversionConfig(), CPU)
    assert made.images_per_forward <= images
    assert made.images_per_forward >= images / 2


def test_what_is_found_in_bfloat16_holds_in_float32() -> None:
    network, x = Brightness(0.5, 8.0), greys(0.1, 0.4)
    config = InversionConfig(steps=60, control="updates", initial_cost=0.02, precision="bfloat16")
    tasks = [InversionTask(torch.arange(32), 1)]
    found = invert(network, x, tasks, config, generator=seeded(), device=CPU)
    assert bool(found.found.all())
    with torch.no_grad():
        rate = float((network(stamp(x, found.trigger(0))).argmax(1) == 1).float().mean())
    assert rate == pytest.approx(float(found.success_rate[0]))
    assert rate >= config.success_rate
