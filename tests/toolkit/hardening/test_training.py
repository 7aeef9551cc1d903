import copy
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mothkit.classifier import Classifier
from mothkit.errors import ConfigError, TrainingError
from mothkit.hardening.training import Batch, Sampler, Trainer, TrainingConfig, TriggerStamp
from mothkit.images import ImageSet
from tests.tiny import tiny_images

CPU = torch.device("cpu")
PLAIN = TrainingConfig(batch_size=8, flip=False, shift=0.0)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered(count: int, classes: int = 3) -> ImageSet:
    """Images whose pixels all hold the image's number."""
    x = np.arange(count, dtype=np.uint8)[:, None, None, None].repeat(4, 1).repeat(4, 2)
    return ImageSet.from_arrays(x, np.arange(count) % classes, layout="nhwc")


def numbers(x: Tensor) -> list[int]:
    return [round(float(image[0, 0, 0]) * 255) for image in x]


def stamp(classes: tuple[int, ...], count: int, value: float = 1.0, mask: float = 1.0) -> TriggerStamp:
    return TriggerStamp(torch.full((1, 4, 4), mask), torch.full((1, 4, 4), value), classes, count)


# -- drawing images -------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), count=st.integers(3, 20), size=st.integers(2, 30))
def test_whole_epochs_are_drawn_without_a_repeat(seed: int, count: int, size: int) -> None:
    sampler = Sampler(numbered(count), TrainingConfig(batch_size=size, flip=False, shift=0.0), seeded(seed))
    drawn: list[int] = []
    while len(drawn) < 3 * count:
        batch = sampler.batch([])
        assert len(batch.x) == size
        drawn += numbers(batch.x)
    for first in range(0, 3 * count, count):
        assert sorted(drawn[first : first + count]) == list(range(count))
    assert drawn[:count] != drawn[count : 2 * count] or count < 6  # in a fresh order each


def test_labels_go_with_their_images() -> None:
    batch = Sampler(numbered(30), PLAIN, seeded()).batch([stamp((1,), 2)])
    assert batch.y.tolist() == [number % 3 for number in numbers(batch.unstamped)]


def test_only_a_stamps_own_rows_are_stamped_and_keep_their_true_labels() -> None:
    sampler = Sampler(numbered(30), PLAIN, seeded())
    for _ in range(5):
        batch = sampler.batch([stamp((2,), 3, value=1.0), stamp((0, 1), 2, value=0.9, mask=0.5)])
        assert len(batch.x) == len(batch.y) == 8  # stamped images take the place of others
        assert batch.y[:3].tolist() == [2, 2, 2]
        assert set(batch.y[3:5].tolist()) <= {0, 1}
        assert (batch.x[:3] == 1).all()
        assert torch.allclose(batch.x[3:5], batch.unstamped[3:5] / 2 + 0.45)
        assert torch.equal(batch.x[5:], batch.unstamped[5:])
        assert batch.x.data_ptr() != batch.unstamped.data_ptr()


def test_more_stamped_images_than_a_batch_has_make_it_larger() -> None:
    batch = Sampler(numbered(60), PLAIN, seeded()).batch([stamp((k,), 5) for k in range(3)])
    assert len(batch.x) == 15
    assert (batch.x == 1).all()


def test_drawing_from_classes_repeats_no_image_and_stops_where_there_are_none() -> None:
    sampler = Sampler(numbered(30), PLAIN, seeded())
    drawn = sampler.draw([0, 2], 100).tolist()
    assert sorted(drawn) == [number for number in range(30) if number % 3 != 1]
    assert len(set(sampler.draw([1], 4).tolist())) == 4
    assert drawn != sampler.draw([0, 2], 100).tolist()


def test_a_set_smaller_than_a_batch_fills_it_with_epochs() -> None:
    counts = np.bincount(numbers(Sampler(numbered(3), PLAIN, seeded()).batch([]).x), minlength=3)
    assert counts.max() - counts.min() <= 1


def test_a_restored_sampler_goes_on_identically() -> None:
    generator = seeded(4)
    sampler = Sampler(numbered(30), TrainingConfig(batch_size=8), generator)
    for _ in range(3):
        sampler.batch([stamp((0,), 1)])
    left, state = sampler.state().clone(), generator.get_state()
    wanted = [sampler.batch([stamp((0,), 1)]) for _ in range(6)]
    other = Sampler(numbered(30), TrainingConfig(batch_size=8), continued := seeded(99))
    other.restore(left)
    continued.set_state(state)
    for batch in wanted:
        again = other.batch([stamp((0,), 1)])
        assert torch.equal(again.x, batch.x)
        assert torch.equal(again.y, batch.y)


def test_images_are_mirrored_and_shifted_only_if_the_config_says_so() -> None:
    images = tiny_images(10)
    plain = Sampler(images, PLAIN, seeded()).pixels(torch.arange(30))
    assert torch.equal(plain, images.pixels(torch.arange(30)))
    flipped = Sampler(images, TrainingConfig(shift=0.0), seeded()).pixels(torch.arange(30))
    same = [bool(torch.equal(a, b)) for a, b in zip(flipped, plain, strict=True)]
    mirrored = [bool(torch.equal(a, b.flip(2))) for a, b in zip(flipped, plain, strict=True)]
    assert all(a != b for a, b in zip(same, mirrored, strict=True))
    assert any(same) and any(mirrored)
    shifted = Sampler(images, TrainingConfig(flip=False, shift=0.125), seeded()).pixels(torch.arange(30))
    assert not torch.equal(shifted, plain)  # by one pixel of eight


@pytest.mark.parametrize("roam", [0, 1])
def test_a_roaming_stamp_lies_elsewhere_on_each_image(roam: int) -> None:
    mask = torch.zeros(1, 4, 4)
    mask[0, 1, 2] = 1.0
    stamp = TriggerStamp(mask, torch.ones(1, 4, 4), (1,), 300, roam)
    places = stamp.on(torch.zeros(300, 1, 4, 4), seeded()).flatten(1).argmax(1)
    seen = {(int(place) // 4, int(place) % 4) for place in places}
    assert seen == {
        (1 + down, 2 + right) for down in range(-roam, roam + 1) for right in range(-roam, roam + 1)
    }
    assert stamp.on(torch.zeros(0, 1, 4, 4), seeded()).shape == (0, 1, 4, 4)


# -- training -------------------------------------------------------------------------------------------------


def batch(count: int = 16, seed: int = 0) -> Batch:
    images = tiny_images(count, seed=seed).subset(torch.arange(count))
    x = images.pixels(torch.arange(count))
    return Batch(x, x, images.labels)


def trainer(classifier: Classifier, total: int = 10, **numbers: object) -> Trainer:
    config = TrainingConfig(**({"batch_size": 16, "learning_rate": 0.1} | numbers))  # type: ignore[arg-type]
    return Trainer(copy.deepcopy(classifier), classifier, config, total, CPU)


def weights(classifier: Classifier) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in classifier.state_dict().items()}


def learning_rates(work: Trainer, steps: int) -> list[float]:
    rates = []
    for _ in range(steps):
        work.step(batch())
        rates.append(work._optimiser.param_groups[0]["lr"])
    return rates


def test_the_learning_rate_falls_by_half_a_cosine_from_its_start_to_nearly_none(
    classifier: Classifier,
) -> None:
    rates = learning_rates(trainer(classifier, total=8), 8)
    assert rates == pytest.approx([0.1 * math.cos(math.pi * step / 16) ** 2 for step in range(8)])
    assert rates[0] == 0.1
    assert 0 < rates[-1] < 0.004


def test_a_constant_learning_rate_stays(classifier: Classifier) -> None:
    assert learning_rates(trainer(classifier, schedule="constant"), 5) == [0.1] * 5


def test_the_learning_rate_in_steps_is_a_tenth_after_a_tenth_of_the_run(classifier: Classifier) -> None:
    assert learning_rates(trainer(classifier, total=20, schedule="steps"), 5) == pytest.approx(
        [0.1, 0.1, 0.01, 0.01, 0.01]
    )


@pytest.mark.parametrize(
    ("numbers", "make"),
    [
        ({"optimiser": "adam"}, lambda weights: torch.optim.Adam(weights, lr=0.1)),
        ({"nesterov": False}, lambda weights: torch.optim.SGD(weights, lr=0.1, momentum=0.9)),
    ],
)
def test_a_loss_of_ones_own_is_lowered_by_the_optimiser_asked_for(
    classifier: Classifier,
    numbers: dict[str, object],
    make: Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer],
) -> None:
    config = TrainingConfig(batch_statistics=False, schedule="constant", learning_rate=0.1, **numbers)  # type: ignore[arg-type]
    student, twin = copy.deepcopy(classifier), copy.deepcopy(classifier)
    work = Trainer(student, classifier, config, 10, CPU, loss=lambda logits, _: logits[:, 1].square().mean())
    optimiser = make(list(twin.parameters()))
    for seed in range(3):
        given = batch(seed=seed)
        loss = twin(given.x)[:, 1].square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        assert work.step(given) == pytest.approx(float(loss.detach()), rel=1e-4)
    for name, tensor in weights(twin).items():
        assert torch.allclose(student.state_dict()[name], tensor, atol=1e-6)


def test_a_step_is_torchs_sgd_with_nesterov_on_the_plain_loss(classifier: Classifier) -> None:
    work = trainer(
        classifier, distillation=0.0, batch_statistics=False, weight_decay=0.01, schedule="constant"
    )
    twin = copy.deepcopy(classifier)
    optimiser = torch.optim.SGD(twin.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01)
    for seed in range(4):
        given = batch(seed=seed)
        loss = -torch.log_softmax(twin(given.x), 1)[torch.arange(16), given.y].mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        assert work.step(given) == pytest.approx(float(loss.detach()), rel=1e-4)
    for name, tensor in weights(twin).items():
        assert torch.allclose(work.classifier.state_dict()[name], tensor, atol=1e-6)


@pytest.mark.parametrize("length", [0.01, 1e6])
def test_a_gradient_longer_than_asked_is_shortened_and_no_other(
    classifier: Classifier, length: float
) -> None:
    numbers = {"distillation": 0.0, "batch_statistics": False, "momentum": 0.0, "schedule": "constant"}
    free, bound = trainer(classifier, **numbers), trainer(classifier, clip=length, **numbers)
    before = torch.cat([weight.detach().flatten() for weight in classifier.parameters()])
    moves = []
    for work in (free, bound):
        work.step(batch())
        after = torch.cat([weight.detach().flatten() for weight in work.classifier.parameters()])
        moves.append(after - before)
    shorter = min(1.0, 0.1 * length / float(moves[0].norm()))
    torch.testing.assert_close(moves[1], shorter * moves[0], rtol=1e-3, atol=1e-7)
    assert (shorter < 1) == (length == 0.01)


def test_a_model_equal_to_its_teacher_has_nothing_to_learn_from_it(classifier: Classifier) -> None:
    work = trainer(classifier, distillation=1.0, batch_statistics=False)
    assert work.step(batch()) == pytest.approx(0, abs=1e-6)
    for name, tensor in weights(classifier).items():
        assert torch.allclose(work.classifier.state_dict()[name], tensor, atol=1e-6)


def test_distillation_weighs_the_soft_loss_against_the_labels(classifier: Classifier) -> None:
    """The formula of Hinton et al., written out: T^2 * sum p log(p / q) at temperature T."""
    student = copy.deepcopy(classifier)
    with torch.no_grad():
        student.network.tensor("fc.bias")[1] = 1.0
    config = TrainingConfig(distillation=0.3, temperature=2.0, batch_statistics=False)
    given = batch()
    stamped = Batch((given.x + 0.1).clamp(0, 1), given.unstamped, given.y)
    with torch.no_grad():
        mine, theirs = student(stamped.x).double(), classifier(given.unstamped).double()
    hard = -torch.log_softmax(mine, 1)[torch.arange(16), given.y].mean()
    p, q = torch.softmax(theirs / 2, 1), torch.softmax(mine / 2, 1)
    soft = (p * (p / q).log()).sum(1).mean() * 4
    work = Trainer(student, classifier, config, 10, CPU)
    assert work.step(stamped) == pytest.approx(float(0.7 * hard + 0.3 * soft), rel=1e-4)


@pytest.mark.parametrize("batch_statistics", [False, True])
def test_batch_norm_follows_the_batch_only_if_asked(classifier: Classifier, batch_statistics: bool) -> None:
    work = trainer(classifier, batch_statistics=batch_statistics)
    network = work.classifier.network
    before = {name: network.tensor(name).clone() for name in ("bn.mean", "bn.var")}
    for seed in range(3):
        work.step(batch(seed=seed))
    assert not any(module.training for module in work.classifier.modules())
    moved = [name for name, tensor in before.items() if not torch.equal(tensor, network.tensor(name))]
    assert len(moved) == (2 if batch_statistics else 0)


def test_the_teacher_does_not_move(classifier: Classifier) -> None:
    before = weights(classifier)
    work = trainer(classifier, distillation=0.5)
    for _ in range(3):
        work.step(batch())
    assert all(torch.equal(tensor, before[name]) for name, tensor in classifier.state_dict().items())
    assert all(parameter.grad is None for parameter in classifier.parameters())


def test_a_weight_that_is_not_to_be_trained_stays(classifier: Classifier) -> None:
    classifier.network.tensor("conv.weight").requires_grad_(False)
    work = trainer(classifier, weight_decay=0.1)
    work.step(batch())
    assert torch.equal(
        work.classifier.network.tensor("conv.weight"), classifier.network.tensor("conv.weight")
    )


def test_a_restored_trainer_goes_on_to_the_same_weights(classifier: Classifier) -> None:
    work = trainer(classifier)
    for seed in range(4):
        work.step(batch(seed=seed))
    state = copy.deepcopy(work.state())
    other = trainer(classifier)
    other.restore(state)
    assert other.done == 4
    for each in (work, other):
        for seed in range(4, 9):
            each.step(batch(seed=seed))
    mine = other.classifier.state_dict()
    assert all(torch.equal(tensor, mine[name]) for name, tensor in work.classifier.state_dict().items())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batch_size", 1),
        ("learning_rate", 0.0),
        ("temperature", 0.0),
        ("distillation", 1.1),
        ("shift", 0.5),
        ("momentum", 1.0),
        ("weight_decay", -0.1),
        ("clip", -1.0),
        ("schedule", "linear"),
        ("optimiser", "lion"),
    ],
)
def test_settings_out_of_range_are_refused(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"{name} {value}"):
        TrainingConfig(**{name: value})  # type: ignore[arg-type]


def test_a_loss_that_is_not_finite_stops_training_before_the_weights_take_it(classifier: Classifier) -> None:
    work = trainer(classifier)
    before = weights(work.classifier)
    x = torch.full((16, 3, 8, 8), float("nan"))
    with pytest.raises(TrainingError, match=r"diverged: at step 1 of 10 the loss is nan"):
        work.step(Batch(x, x, torch.zeros(16, dtype=torch.long)))
    trained = {name for name, _ in work.classifier.named_parameters()}
    after = weights(work.classifier)
    assert all(torch.equal(before[name], after[name]) for name in trained)
