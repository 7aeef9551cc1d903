from dataclasses import replace

import torch

from mothkit.classifier import Classifier
from mothkit.distance import class_distances
from mothkit.events import Event, PhaseStarted
from mothkit.hardening.base import Budget
from mothkit.hardening.inverting import Inverter
from mothkit.hardening.moth import Moth
from mothkit.hardening.pairwise import Pairwise
from mothkit.hardening.profiles import DEFAULT, PAPER, MothConfig
from mothkit.hardening.rounds import InRounds
from mothkit.hardening.scouting import scout
from mothkit.hardening.training import Sampler
from mothkit.hardening.universal import Universal
from tests.tiny import CLASSES, tiny_images

CPU = torch.device("cpu")
IMAGES = tiny_images(40)
ALL = CLASSES * (CLASSES - 1)
NEAR, FAR = 1, 2  # the model is told to think of them first and last
SHORT = replace(
    DEFAULT,
    warm_up=replace(DEFAULT.warm_up, steps=10),
    training=replace(DEFAULT.training, batch_size=24),
    views=1,
)


def lean(classifier: Classifier) -> None:
    """Make it favour ``NEAR`` over ``FAR``, as far as its accuracy allows."""
    (bias,) = (each for name, each in classifier.named_parameters() if name.endswith("bias") and "fc" in name)
    with torch.no_grad():
        bias[NEAR] += 0.6
        bias[FAR] -= 0.6


def inverter(classifier: Classifier) -> Inverter:
    generator = torch.Generator().manual_seed(0)
    return Inverter(classifier, Sampler(IMAGES, DEFAULT.training, generator), generator, CPU)


def harden(
    classifier: Classifier, config: MothConfig, *, method: type[InRounds] = Moth
) -> tuple[int, list[str]]:
    """Return how many directions were scouted, and the phases that the run told of."""
    phases: list[str] = []

    def emit(event: Event) -> None:
        if isinstance(event, PhaseStarted):
            phases.append(event.name)

    hardened = method(config).harden(
        classifier,
        IMAGES,
        generator=torch.Generator().manual_seed(0),
        device=CPU,
        emit=emit,
        budget=Budget(max_accuracy_drop=100, steps=8),
    )
    scouted: int = hardened.details["scouted_directions"]
    return scouted, phases


def test_scouting_ranks_the_near_before_the_far_as_a_whole_measurement_does(classifier: Classifier) -> None:
    lean(classifier)
    found = scout(
        inverter(classifier), DEFAULT.scout, DEFAULT.scout_images, CLASSES, work=1e9, emit=lambda _: None
    )
    assert found is not None
    directions, triggers = found
    assert len(set(directions)) == ALL
    sizes = dict(zip(directions, triggers.mask_l1.tolist(), strict=True))
    whole = class_distances(
        classifier, IMAGES, directions, generator=torch.Generator().manual_seed(0), device=CPU
    )
    measured = {(e.source_class, e.target_class): e.class_distance for e in whole.entries}
    assert min(sizes, key=lambda d: sizes[d]) == min(measured, key=lambda d: measured[d])
    for target in (NEAR, FAR):
        assert all(bool(triggers.found[k]) for k, (_, t) in enumerate(directions) if t == target)


def test_work_bounds_how_many_directions_are_scouted(classifier: Classifier) -> None:
    config, images = DEFAULT.scout, DEFAULT.scout_images
    each = images * config.steps
    looking = inverter(classifier)
    for wanted in (1, 4):
        found = scout(looking, config, images, CLASSES, work=each * (wanted + 0.5), emit=lambda _: None)
        assert found is not None
        assert len(set(found[0])) == wanted == len(found[1].mask_l1)
    assert scout(looking, config, images, CLASSES, work=0.9 * each, emit=lambda _: None) is None


def test_moth_scouts_every_pair_once_by_pixels_and_by_patches_and_says_so(classifier: Classifier) -> None:
    scouted, phases = harden(classifier, SHORT)
    assert scouted == ALL
    looked = ["warm-up: every pair", "warm-up: every pair by patches"]
    assert [name for name in phases if "pair" in name] == [*looked, "harden pairs"]
    scouted, phases = harden(classifier, replace(SHORT, patch_share=0.0))
    assert scouted == ALL
    assert looked[1] not in phases


def test_scouting_takes_no_more_than_a_share_of_what_the_rounds_take(classifier: Classifier) -> None:
    long = replace(SHORT.scout, steps=3 * SHORT.scout.steps)
    scouted, _ = harden(classifier, replace(SHORT, scout=long, steps_per_class=2))
    assert 0 < scouted < ALL


def test_neither_the_papers_profile_nor_universal_triggers_scout(classifier: Classifier) -> None:
    small = replace(
        PAPER, warm_up=replace(PAPER.warm_up, steps=10), inversion=replace(PAPER.inversion, steps=10), views=1
    )
    for scouted, phases in (harden(classifier, small), harden(classifier, SHORT, method=Universal)):
        assert scouted == 0
        assert not [name for name in phases if "every pair" in name]


def test_the_methods_that_moth_is_compared_with_seek_nothing_taught(classifier: Classifier) -> None:
    taught = {"warm-up: every pair by patches", "warm-up: tints"}
    assert taught <= set(harden(classifier, SHORT)[1])
    assert taught.isdisjoint(harden(classifier, SHORT, method=Pairwise)[1])
