from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from mothkit.classifier import Classifier
from mothkit.errors import ConfigError
from mothkit.pgd import PgdConfig, pgd_examples
from mothkit.robustness import pgd_accuracy
from tests.tiny import open_tiny, tiny_images, write_tiny

CPU = torch.device("cpu")
ROUNDING = 1e-6


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    return open_tiny(write_tiny(tmp_path_factory.mktemp("pgd") / "tiny.onnx"))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), eps=st.floats(0.001, 1.0), steps=st.integers(1, 5))
def test_an_example_stays_within_the_bound_and_the_pixels_range(
    classifier: Classifier, seed: int, eps: float, steps: int
) -> None:
    x = torch.rand(4, 3, 8, 8, generator=seeded(seed))
    y, before = torch.tensor([0, 1, 2, 0]), x.clone()
    worst = pgd_examples(
        classifier, x, y, PgdConfig(eps=eps, steps=steps), generator=seeded(seed), device=CPU
    )
    assert torch.equal(x, before)
    assert not worst.requires_grad
    assert (worst - x).abs().max() <= eps + ROUNDING
    assert worst.min() >= 0 and worst.max() <= 1


def test_the_loss_rises_and_no_image_depends_on_its_neighbours(classifier: Classifier) -> None:
    images = tiny_images(10)
    x, y = images.pixels(torch.arange(30)), images.labels
    config = PgdConfig(eps=0.05)
    worst = pgd_examples(classifier, x, y, config, generator=seeded(), device=CPU)
    with torch.no_grad():
        before, after = (cross_entropy(classifier(each), y, reduction="none") for each in (x, worst))
    assert (after > before).all()
    first = pgd_examples(classifier, x[:5], y[:5], config, generator=seeded(), device=CPU)
    assert torch.allclose(first, worst[:5])


def test_the_classifier_stays_as_it_was(classifier: Classifier) -> None:
    classifier.train()
    weights = {name: tensor.clone() for name, tensor in classifier.state_dict().items()}
    x = torch.rand(4, 3, 8, 8, generator=seeded())
    pgd_examples(classifier, x, torch.zeros(4, dtype=torch.long), PgdConfig(), generator=seeded(), device=CPU)
    assert all(module.training for module in classifier.modules())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in classifier.parameters())
    assert all(torch.equal(tensor, weights[name]) for name, tensor in classifier.state_dict().items())
    classifier.eval()


def test_a_linear_model_is_attacked_as_far_as_the_bound_reaches(classifier: Classifier) -> None:
    """The tiny model scores channels by their brightness: the worst change darkens the true one, lights the others."""
    x = torch.full((1, 3, 8, 8), 0.5)
    x[:, 0] = 0.6
    config = PgdConfig(eps=0.1, steps=10, step_size=0.05)
    worst = pgd_examples(classifier, x, torch.tensor([0]), config, generator=seeded(), device=CPU)
    assert torch.allclose(worst[:, 0], torch.tensor(0.5), atol=1e-5)
    assert torch.allclose(worst[:, 1:], torch.tensor(0.6), atol=1e-5)


def test_accuracy_falls_with_the_bound_and_counts_as_many_images_as_asked(classifier: Classifier) -> None:
    images = tiny_images(20)
    weak, strong = (
        pgd_accuracy(classifier, images, PgdConfig(eps=eps), seed=0, device=CPU) for eps in (1e-4, 0.3)
    )
    assert (weak.count, strong.count) == (60, 60)
    assert weak.value > 0.95  # the colours lie 60/255 apart
    assert strong.hits == 0
    assert pgd_accuracy(classifier, images, PgdConfig(), seed=0, device=CPU, count=7).count == 7


def test_the_step_is_the_papers_unless_given(tmp_path: Path) -> None:
    assert PgdConfig().stride == pytest.approx(2 / 255)
    assert PgdConfig(eps=0.03, steps=8, step_size=0.005).stride == 0.005


@pytest.mark.parametrize("wrong", [{"eps": 0.0}, {"eps": 1.1}, {"steps": 0}, {"step_size": 0.0}])
def test_numbers_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="PGD with eps"):
        replace(PgdConfig(), **wrong)  # type: ignore[arg-type]
