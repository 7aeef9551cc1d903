"""Dropout at every version: still in eval mode, active in train mode; and operators that only draw."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mothkit_converters import UnsupportedOpError
from tests.converters.ops.single import assert_agrees, imported, one, versions

X = np.random.default_rng(0).normal(size=(40, 50)).astype("f4")
RANDOM = (
    "Bernoulli",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
)


@pytest.mark.parametrize(("op", "version"), versions("Dropout"))
def test_nothing_is_dropped_in_eval_mode(op: str, version: int) -> None:
    given = {} if version >= 12 else {"ratio": 0.3}
    given |= {"is_test": 1} if version < 7 else {}
    ratio = [np.array(0.3, "f4")] if version >= 12 else []
    assert_agrees(op, X, *ratio, opset=version, expected=[X], **given)


@pytest.mark.parametrize(("op", "version"), versions("Dropout"))
def test_a_share_is_dropped_in_train_mode(op: str, version: int) -> None:
    given = {"ratio": 0.3} | ({"is_test": 1} if version < 7 else {}) if version < 12 else {}
    ratio = [np.array(0.3, "f4")] if version >= 12 else []
    for stored in [(1,), ()] if ratio else [()]:
        network = imported(one(op, X, *ratio, opset=version, stored=stored, **given)[0]).train()
        torch.manual_seed(0)
        left_in = [torch.tensor(0.3)] if ratio and not stored else []
        found = network(torch.from_numpy(X), *left_in)
        kept = found != 0
        assert 0.27 < 1 - kept.float().mean() < 0.33
        np.testing.assert_allclose(found[kept], torch.from_numpy(X)[kept] / 0.7, rtol=1e-5)


def test_half_is_dropped_where_no_ratio_is_given() -> None:
    for version in (7, 13):
        network = imported(one("Dropout", X, opset=version)[0]).train()
        torch.manual_seed(0)
        assert 0.47 < (network(torch.from_numpy(X)) == 0).float().mean() < 0.53


@pytest.mark.parametrize("version", [12, 13, 22])
def test_the_mask_tells_what_was_kept(version: int) -> None:
    assert_agrees("Dropout", X, opset=version, outputs=2, expected=[X, np.ones(X.shape, bool)])
    ratio = np.array(0.3, "f4")
    network = imported(one("Dropout", X, ratio, opset=version, stored=[1], outputs=2)[0]).train()
    torch.manual_seed(0)
    found, kept = network(torch.from_numpy(X))
    assert 0.27 < 1 - kept.float().mean() < 0.33
    np.testing.assert_allclose(found, torch.where(kept, torch.from_numpy(X) / 0.7, 0), rtol=1e-5)


@pytest.mark.parametrize("stored", [(1, 2), ()])
@pytest.mark.parametrize("version", [12, 13, 22])
def test_training_mode_may_drop_nothing(version: int, stored: tuple[int, ...]) -> None:
    inputs = X, np.array(0.0, "f4"), np.array(True)
    mask = np.ones(X.shape, bool)
    assert_agrees("Dropout", *inputs, opset=version, stored=stored, outputs=2, expected=[X, mask])
    off = X, np.array(0.3, "f4"), np.array(False)
    assert_agrees("Dropout", *off, opset=version, stored=stored, outputs=2, expected=[X, mask])


@pytest.mark.parametrize("version", [12, 13, 22])
def test_training_mode_that_drops_is_refused(version: int) -> None:
    inputs = X, np.array(0.3, "f4"), np.array(True)
    with pytest.raises(UnsupportedOpError, match="training_mode is true"):
        imported(one("Dropout", *inputs, opset=version, stored=[1, 2])[0])
    asked = imported(one("Dropout", *inputs, opset=version)[0])
    with pytest.raises(UnsupportedOpError, match="training_mode is true"):
        asked(*(torch.from_numpy(np.asarray(x)) for x in inputs))


@pytest.mark.parametrize("version", [1, 6])
def test_the_oldest_versions_drop_unless_told_that_it_is_a_test(version: int) -> None:
    with pytest.raises(UnsupportedOpError, match="is_test is 0"):
        imported(one("Dropout", X, opset=version)[0])
    assert_agrees("Dropout", X, opset=version, expected=[X], ratio=0.0)


@pytest.mark.parametrize("version", [1, 6, 7, 10])
def test_a_mask_that_old_versions_do_not_define_is_refused(version: int) -> None:
    settings = {"is_test": 1} if version < 7 else {}
    with pytest.raises(UnsupportedOpError, match="its output 'o1' is used"):
        imported(one("Dropout", X, opset=version, outputs=2, **settings)[0])


@pytest.mark.parametrize(("op", "version"), versions(*RANDOM))
def test_what_is_random_is_refused(op: str, version: int) -> None:
    inputs = [] if op in ("RandomNormal", "RandomUniform") else [np.abs(X)]
    settings = {} if inputs else {"shape": [2, 3]}
    model, _ = one(op, *inputs, opset=version, **settings)
    if not inputs:  # an importer wants an input
        model.graph.input.extend(one("Abs", X, opset=13)[0].graph.input)
    with pytest.raises(UnsupportedOpError, match="its output is random"):
        imported(model)
