from collections import Counter

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mothkit.hardening.stamping import in_turn
from mothkit.hardening.training import TriggerStamp


def stamps(count: int, images: int) -> list[TriggerStamp]:
    mask, pattern = torch.ones(1, 2, 2), torch.ones(3, 2, 2)
    return [TriggerStamp(mask, pattern, (number,), images) for number in range(count)]


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 30), images=st.integers(1, 5), room=st.integers(1, 60), first=st.integers(0, 1000)
)
def test_every_trigger_has_its_turn_as_often_as_any_other(
    count: int, images: int, room: int, first: int
) -> None:
    all_of_them = stamps(count, images)
    turns: Counter[tuple[int, ...]] = Counter({stamp.classes: 0 for stamp in all_of_them})
    for step in range(first, first + 50):
        chosen = in_turn(all_of_them, step, room)
        assert sum(stamp.count for stamp in chosen) <= max(room, images)
        assert len({stamp.classes for stamp in chosen}) == len(chosen)
        turns.update(stamp.classes for stamp in chosen)
    assert max(turns.values()) - min(turns.values()) <= 1


def test_where_all_fit_all_are_stamped_in_their_order() -> None:
    all_of_them = stamps(8, 1)
    assert in_turn(all_of_them, 3, 8) == all_of_them
    assert in_turn([], 3, 8) == []
