import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mothkit.hardening.patches import Suspect, in_their_turn, look_again, suspects

NAN = float("nan")
PAIRS = [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0)]


def among(*sizes: float, share: float = 0.45) -> list[Suspect]:
    """Return the suspects among directions with patches of these sizes; nan where none was found."""
    known = torch.tensor(sizes)
    return suspects(PAIRS[: len(sizes)], known, float(known.nanmedian()), share=share)


def test_a_patch_much_smaller_than_the_median_makes_a_suspect() -> None:
    assert among(100, 40, 90, 110, 10) == [Suspect(2, 0, 10, 90), Suspect(0, 2, 40, 90)]
    assert among(100, 41, 90, 110, 90) == []  # 0.456 of the median
    assert among(100, 99, 98, 102, 101) == []


def test_a_patch_that_missed_is_neither_small_nor_in_the_median() -> None:
    assert among(100, NAN, NAN, 40, 90) == [Suspect(1, 2, 40, 90)]
    assert among(NAN, NAN, NAN) == []


def test_a_suspect_tells_what_was_seen() -> None:
    text = str(Suspect(1, 0, 57.6, 264.7))
    assert "58 pixels turns class 1 into 0" in text
    assert "265 in the median" in text


def test_only_what_is_near_to_standing_out_is_looked_at_again() -> None:
    assert look_again(torch.tensor([100.0, 79.0, NAN, 81.0, 10.0]), 100) == [1, 4]
    assert look_again(torch.tensor([NAN, NAN]), NAN) == []


@given(st.integers(0, 9), st.integers(1, 5))
def test_each_has_its_turn_as_often_as_any_other(count: int, most: int) -> None:
    these = [Suspect(k, k + 1, 1.0, 9.0) for k in range(count)]
    turns = [in_their_turn(these, turn, most) for turn in range(max(1, count))]
    taken = [each.source for turn in turns for each in turn]
    assert all(len(turn) == min(most, count) == len({each.source for each in turn}) for turn in turns)
    counts = [taken.count(k) for k in range(count)]
    assert len(set(counts)) <= 1 or count <= most
    assert min(counts, default=1) > 0


@pytest.mark.parametrize("share", [0.2, 0.45, 0.9])
def test_the_share_is_the_bound(share: float) -> None:
    sizes = (100.0, 100.0, 100 * share - 0.1, 100 * share + 0.1, 100.0)
    assert [(each.source, each.target) for each in among(*sizes, share=share)] == [(1, 0)]
