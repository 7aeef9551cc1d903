from dataclasses import replace

import pytest
import torch

from mothkit.classifier import Classifier
from mothkit.errors import ConfigError
from mothkit.events import Event, Note
from mothkit.hardening.nc import NcConfig, anomaly_index
from tests.backdoored import TARGET, accuracy, asr
from tests.tuned import harden, weights

NAN = float("nan")


def test_the_index_counts_consistent_deviations_from_the_median() -> None:
    sizes = torch.tensor([10.0, 11, 12, 13, 2, NAN])  # median 11, deviations 1 0 1 2 9: their median is 1
    index = anomaly_index(sizes)
    assert index[:5].tolist() == pytest.approx([each / 1.4826 for each in (-1, 0, 1, 2, -9)])
    assert index[5].isnan()
    assert anomaly_index(torch.tensor([3.0, 3, 3])).tolist() == [0, 0, 0]
    assert anomaly_index(torch.full((3,), NAN)).isnan().all()


def test_the_planted_class_is_flagged_and_its_trigger_unlearnt(backdoored: Classifier) -> None:
    """With three classes the index of the smallest trigger cannot pass 2 as it does among ten."""
    assert asr(backdoored) > 0.95
    hardened = harden("nc", backdoored, inversion=NcConfig().inversion, epochs=15)
    assert hardened.details["flagged"] == [TARGET]
    sizes = hardened.details["mask_l1"]
    assert sizes[TARGET] == min(sizes)
    assert sizes[TARGET] < 10  # the planted square has 9 pixels
    assert hardened.classifier is not None
    assert asr(hardened.classifier) < 0.2
    assert accuracy(hardened.classifier) > 0.95


def test_where_nothing_is_flagged_nothing_changes_and_that_is_said(backdoored: Classifier) -> None:
    told: list[Event] = []
    hardened = harden("nc", backdoored, outlier=50.0, emit=told.append)
    assert hardened.details["flagged"] == []
    assert (hardened.steps, hardened.cut) == (0, False)
    assert weights(hardened.classifier) == weights(backdoored)
    assert any(isinstance(event, Note) and "stay as they were" in event.text for event in told)


@pytest.mark.parametrize(
    ("name", "value"), [("outlier", 0.0), ("stamped", 0.0), ("stamped", 1.1), ("inversion_images", 0)]
)
def test_settings_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{name} is {value}"):
        replace(NcConfig(), **{name: value})
