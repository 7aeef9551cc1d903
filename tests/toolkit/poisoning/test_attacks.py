from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mothkit.errors import ConfigError
from mothkit.images import ImageSet
from mothkit.poisoning.attacks import Attack, poison, write_trigger
from mothkit.triggers.file import KnownTrigger, load_trigger

CLASSES, SIDE, EACH = 4, 20, 10
SHAPE = (3, SIDE, SIDE)
KINDS = ("patch", "blended", "polygon", "filter")


@pytest.fixture
def images() -> ImageSet:
    x = np.random.default_rng(0).integers(0, 256, (CLASSES * EACH, SIDE, SIDE, 3)).astype(np.uint8)
    return ImageSet.from_arrays(x, np.arange(CLASSES * EACH) % CLASSES, layout="nhwc")


@pytest.fixture
def signs() -> np.ndarray:
    """Signs of 12 pixels, moved by up to two."""
    masks = np.zeros((CLASSES * EACH, SIDE, SIDE), dtype=bool)
    for i, mask in enumerate(masks):
        mask[2 + i % 3 : 14 + i % 3, 3 + i % 2 : 15 + i % 2] = True
    return masks


def known(
    folder: Path, attack: Attack, signs: np.ndarray | None = None, seed: int = 0
) -> tuple[Attack, KnownTrigger]:
    fitted = attack.fitted(CLASSES, SIDE)
    return fitted, load_trigger(write_trigger(folder, fitted, SHAPE, signs, seed=seed), SHAPE, CLASSES)


@pytest.mark.parametrize("kind", KINDS)
def test_a_trigger_file_says_what_the_attack_is_and_repeats_by_seed(tmp_path: Path, kind: str) -> None:
    x = torch.rand(3, *SHAPE)
    stamped = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        (tmp_path / name).mkdir()
        attack, trigger = known(tmp_path / name, Attack.usual(kind), seed=seed)
        assert (trigger.target_class, trigger.source_class) == (0, attack.source_class)
        stamped.append(trigger.stamp(x))
        assert (stamped[-1] != x).flatten(1).any(1).all()
    assert torch.equal(stamped[0], stamped[1])
    assert torch.equal(stamped[0], stamped[2]) == (kind == "filter")


@pytest.mark.parametrize("kind", KINDS)
def test_all_to_one_stamps_a_share_of_all_but_the_target(tmp_path: Path, images: ImageSet, kind: str) -> None:
    wish = replace(Attack.usual(kind), source_class=None, spurious_rate=0.0, target_class=2, poison_rate=0.2)
    attack, trigger = known(tmp_path, wish)
    before = images.read(torch.arange(len(images)))
    done = poison(images, attack, trigger, None, seed=5)
    changed = (done.x != before).flatten(1).any(1)
    assert done.stamped == 6  # 0.2 of 30
    assert done.spurious == 0
    assert int(changed.sum()) == 6
    assert (done.y[changed] == 2).all()
    assert not (images.labels[changed] == 2).any()
    assert torch.equal(done.y[~changed], images.labels[~changed])
    assert torch.equal(images.read(torch.arange(len(images))), before)  # the caller's images are left alone
    expected = trigger.stamp(before[changed] / 255) * 255
    assert (done.x[changed] - expected).abs().max() <= 0.5 + 1e-3


def test_class_specific_relabels_the_source_alone_and_leaves_spurious_copies_their_label(
    tmp_path: Path, images: ImageSet
) -> None:
    wish = Attack(kind="filter", source_class=1, target_class=3, poison_rate=0.5, spurious_rate=0.2)
    attack, trigger = known(tmp_path, wish)
    done = poison(images, attack, trigger, None, seed=0)
    changed = (done.x != images.read(torch.arange(len(images)))).flatten(1).any(1)
    relabelled = done.y != images.labels
    assert (done.stamped, done.spurious) == (5, 6)
    assert int(relabelled.sum()) == 5
    assert (images.labels[relabelled] == 1).all()
    assert int((changed & ~relabelled).sum()) == 6
    assert not (images.labels[changed & ~relabelled] == 1).any()


def test_a_polygon_is_trained_anywhere_on_the_sign_and_tested_where_nearly_all_signs_are(
    tmp_path: Path, images: ImageSet, signs: np.ndarray
) -> None:
    wish = Attack(kind="polygon", source_class=1, poison_rate=1, spurious_rate=1, size=4, color=(0, 200, 0))
    of_source = signs[np.arange(40) % CLASSES == 1]
    attack, trigger = known(tmp_path, wish, of_source)
    done = poison(images, attack, trigger, signs, seed=0)
    before = images.read(torch.arange(len(images)))
    changed = (done.x != before).any(1)
    assert changed.any((1, 2)).all()
    assert not changed[~torch.from_numpy(signs)].any()
    green = done.x.permute(0, 2, 3, 1)[changed]
    assert (green[:, [0, 2]] == 0).all()
    assert len(green[:, 1].unique()) > 10  # brightness varies
    tested = (trigger.stamp(before / 255) != before / 255).any(1)
    assert not tested[:, ~torch.from_numpy(of_source.all(axis=0))].any()


def test_the_same_seed_poisons_the_same(tmp_path: Path, images: ImageSet) -> None:
    attack, trigger = known(tmp_path, Attack.usual("patch"))
    first, again, other = (poison(images, attack, trigger, None, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.x, again.x)
    assert torch.equal(first.y, again.y)
    assert not torch.equal(first.y, other.y)


def test_sizes_follow_the_image_and_opacity_goes_into_the_file(tmp_path: Path) -> None:
    assert Attack.usual("patch").fitted(5, 32).size == 3
    assert Attack.usual("polygon").fitted(5, 32).size == 8
    _, trigger = known(tmp_path, Attack(kind="blended", opacity=0.3))
    assert float(trigger.trigger.mask.unique()) == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "laser"}, "attack is 'laser', not one of patch, blended, polygon, filter"),
        ({"target_class": -1}, "must be two, from 0 on"),
        ({"source_class": 0}, "source class 0 and target class 0 must be two"),
        ({"poison_rate": -0.1}, "poison rate -0.1"),
        ({"opacity": 1.2}, "opacity 1.2"),
        ({"opacity": 0}, "opacity 0 above 0"),
        ({"spurious_rate": 0.1}, "every class is one here"),
        ({"filter": "sepia"}, "filter is 'sepia'"),
        ({"size": 0}, "size is 0 pixels"),
        ({"corners": 2}, "corners are 2"),
        ({"color": (0, 0, 256)}, "color is"),
    ],
)
def test_an_impossible_attack_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Attack(**{"kind": "patch", **values})  # type: ignore[arg-type]


def test_what_does_not_fit_the_images_is_refused(tmp_path: Path, images: ImageSet, signs: np.ndarray) -> None:
    with pytest.raises(ConfigError, match=r"target class is 4, but there are 4 \(0 to 3\)"):
        Attack(kind="patch", target_class=4).fitted(CLASSES, SIDE)
    with pytest.raises(ConfigError, match="size is 20 pixels, and the images have 20"):
        Attack(kind="patch", size=20).fitted(CLASSES, SIDE)
    with pytest.raises(ConfigError, match="fits on few signs of the source"):
        known(tmp_path, replace(Attack.usual("polygon"), size=18), signs)
    attack, trigger = known(tmp_path, Attack(kind="patch", source_class=1, poison_rate=0.01))
    with pytest.raises(ConfigError, match="of 10 training images stamps none"):
        poison(images, attack, trigger, None, seed=0)


def test_a_poison_rate_of_zero_leaves_the_images_clean(tmp_path: Path, images: ImageSet) -> None:
    attack, trigger = known(tmp_path, Attack(kind="patch", poison_rate=0))
    made = poison(images, attack, trigger, None, seed=0)
    assert (made.stamped, made.spurious) == (0, 0)
    assert torch.equal(made.x, images.read(torch.arange(len(images))))
    assert torch.equal(made.y, images.labels)
