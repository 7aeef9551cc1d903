from dataclasses import replace

import torch

from mothkit.hardening.bank import TriggerBank
from mothkit.hardening.kinds import Kind, of_patches, of_pixels
from mothkit.hardening.profiles import DEFAULT, MothConfig
from mothkit.hardening.training import TrainingConfig
from mothkit.triggers.patch import Trigger

CONFIG = replace(DEFAULT, training=TrainingConfig(batch_size=20), most_stamped=0.5, patch_stamped=3).sized(
    (3, 16, 16)
)


def kinds(config: MothConfig = CONFIG) -> tuple[Kind, Kind]:
    pixels = of_pixels(config, TriggerBank(torch.rand(4, 4, 16, 16)))
    return pixels, of_patches(config, (3, 16, 16))


def trigger(share: float) -> Trigger:
    return Trigger(torch.full((1, 16, 16), share), torch.rand(3, 16, 16))


def test_a_trigger_is_stamped_on_its_source_class_as_often_as_its_kind_asks() -> None:
    triggers = {(0, 1): trigger(0.1), (3, 2): trigger(0.2)}
    pixels, patches = (kind.stamps(triggers, 4) for kind in kinds())
    assert [(stamp.classes, stamp.count, stamp.roam) for stamp in pixels] == [((0,), 1, 0), ((3,), 1, 0)]
    assert [(stamp.classes, stamp.count, stamp.roam) for stamp in patches] == [((0,), 3, 3), ((3,), 3, 3)]
    assert all(stamp.mask is triggers[each].mask for stamp, each in zip(patches, triggers, strict=True))


def test_a_universal_trigger_is_stamped_on_all_other_classes_but_no_more_than_have_room() -> None:
    pixels, patches = (kind.stamps({(None, 1): trigger(0.1)}, 4) for kind in kinds())
    assert [(stamp.classes, stamp.count) for stamp in pixels] == [((0, 2, 3), 3)]
    assert [(stamp.classes, stamp.count) for stamp in patches] == [((0, 2, 3), 9)]
    (tight,) = kinds(replace(CONFIG, most_stamped=0.25))[1].stamps({(None, 1): trigger(0.1)}, 4)
    assert tight.count == 5


def test_one_that_covers_most_of_an_image_is_not_stamped() -> None:
    assert kinds()[0].stamps({(0, 1): trigger(CONFIG.largest_stamp + 0.01)}, 4) == []
