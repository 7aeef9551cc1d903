import math
from collections import Counter
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mothkit.hardening.pairs import PairTable
from mothkit.inversion.found import Inverted

NAN = float("nan")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def table(classes: int, seed: int = 0) -> PairTable:
    ease, size, growth = torch.rand(3, classes, classes, generator=seeded(seed))
    return PairTable(ease, size, growth, growth.clone(), torch.zeros(classes, classes))


def best_pairs(ease: Tensor, growth: Tensor, alpha: float, count: int) -> list[tuple[int, int]]:
    """The paper's rule, said again: the highest sum of both directions, first in row order among equals."""

    def score(pair: tuple[int, int]) -> float:
        s, t = pair
        both = float(ease[s, t] + ease[t, s]), float(growth[s, t] + growth[t, s])
        return (1 - alpha) * both[0] + alpha * both[1]

    pairs = combinations(range(len(ease)), 2)
    return sorted(pairs, key=score, reverse=True)[:count]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    classes=st.integers(2, 7),
    count=st.integers(1, 30),
    alpha=st.sampled_from([0.0, 0.3, 1.0]),
)
def test_without_exploration_the_best_pairs_are_taken_once_each(
    seed: int, classes: int, count: int, alpha: float
) -> None:
    pairs = table(classes, seed)
    wanted = best_pairs(pairs.ease, pairs.growth, alpha, count)
    chosen = pairs.choose(count, exploration=0, alpha=alpha, generator=seeded())
    assert chosen == wanted
    assert len(chosen) == min(count, classes * (classes - 1) // 2)


def test_equal_scores_give_the_first_pair_in_row_order_and_the_diagonal_never_counts() -> None:
    best = torch.eye(4) * 99
    pairs = PairTable(best, torch.zeros(4, 4), best.clone(), best.clone(), torch.zeros(4, 4))
    assert pairs.choose(2, exploration=0, alpha=0.5, generator=seeded()) == [(0, 1), (0, 2)]
    assert pairs.choose_by_bound(2, width=0) == [(0, 1), (0, 2)]


def test_alpha_moves_the_choice_from_ease_to_growth() -> None:
    pairs = PairTable(*torch.zeros(5, 3, 3))
    pairs.ease[2, 0] = 1.0  # one direction is enough
    pairs.growth[1, 2] = 1.0
    assert pairs.choose(1, exploration=0, alpha=0.4, generator=seeded()) == [(0, 2)]
    assert pairs.choose(1, exploration=0, alpha=0.6, generator=seeded()) == [(1, 2)]


@pytest.mark.parametrize("exploration", [0.0, 0.3, 1.0])
def test_a_random_pair_is_chosen_as_often_as_exploration_says(exploration: float) -> None:
    draws, classes, generator = 3000, 4, seeded()
    pairs = table(classes)
    best = best_pairs(pairs.ease, pairs.growth, 0.5, 1)[0]
    counts = Counter(
        pairs.choose(1, exploration=exploration, alpha=0.5, generator=generator)[0] for _ in range(draws)
    )
    for pair in combinations(range(classes), 2):
        share = exploration / 6 + (1 - exploration) * (pair == best)
        spread = (share * (1 - share) / draws) ** 0.5
        assert abs(counts[pair] / draws - share) <= 4.5 * spread


def test_visits_count_a_pair_in_both_directions() -> None:
    pairs, generator = table(5), seeded()
    counts: Counter[tuple[int, int]] = Counter()
    for _ in range(50):
        counts.update(pairs.choose(3, exploration=0.5, alpha=0.5, generator=generator))
    assert torch.equal(pairs.visits, pairs.visits.T)
    assert pairs.visits.diagonal().sum() == 0
    for (s, t), count in counts.items():
        assert s < t
        assert pairs.visits[s, t] == count
    assert pairs.visits.sum() == 2 * 50 * 3


def test_the_same_generator_chooses_the_same() -> None:
    one, two = (table(6).choose(8, exploration=0.5, alpha=0.5, generator=seeded(3)) for _ in range(2))
    assert one == two


# -- the upper confidence bound -------------------------------------------------------------------------------


def test_the_bound_is_the_mean_gain_and_what_visits_leave_open() -> None:
    """Three pairs, worked by hand: N = 3 + 1 + 1 visits, the warm-up's counted; sqrt(2 ln 5) is 1.794."""
    pairs = PairTable(*torch.zeros(5, 3, 3))
    pairs.gain[0, 1], pairs.gain[1, 0] = 0.8, 0.4  # mean 0.6
    pairs.gain[2, 0] = 0.5  # mean 0.25
    pairs.visits[0, 1] = pairs.visits[1, 0] = 2.0
    # bounds at width w: 0.6 + 1.036 w, 0.25 + 1.794 w, 0 + 1.794 w
    for width, wanted in ((0.3, [(0, 1), (0, 2), (1, 2)]), (0.6, [(0, 2), (0, 1), (1, 2)])):
        copy = PairTable(**{name: tensor.clone() for name, tensor in pairs.state().items()})
        assert copy.choose_by_bound(3, width=width) == wanted
    assert pairs.choose_by_bound(2, width=0.9) == [(0, 2), (1, 2)]  # 1.86, 1.61, 1.53


@settings(max_examples=30, deadline=None)
@given(
    classes=st.integers(2, 6), count=st.integers(1, 20), rounds=st.integers(1, 30), width=st.floats(0.01, 2)
)
def test_pairs_that_gain_alike_are_visited_alike(classes: int, count: int, rounds: int, width: float) -> None:
    pairs = PairTable.after_warm_up(torch.zeros(classes, classes), torch.full((classes,), 10.0))
    pairs.gain.fill_(0.5)
    for _ in range(rounds):
        for s, t in pairs.choose_by_bound(count, width=width):
            for direction in ((s, t), (t, s)):
                pairs.size[direction] = 10.0
                pairs.update(*direction, 15.0)
    visits = pairs.visits[torch.ones(classes, classes).triu(1).bool()]
    assert visits.max() - visits.min() <= 1
    assert visits.sum() == rounds * min(count, classes * (classes - 1) // 2)


def test_no_pair_is_visited_more_in_vain_than_ucb1_promises() -> None:
    """Auer et al. 2002, theorem 1: at most 8 ln(n) / gap^2 + 1 + pi^2 / 3 visits in the mean, rewards in 0 to 1."""
    classes, rounds, runs, generator = 3, 600, 10, seeded()
    chance = {(0, 1): 0.9, (0, 2): 0.5, (1, 2): 0.3}
    visits: Counter[tuple[int, int]] = Counter()
    for _ in range(runs):
        pairs = PairTable.after_warm_up(torch.zeros(classes, classes), torch.full((classes,), 1.0))
        for _ in range(rounds):
            (pair,) = pairs.choose_by_bound(1, width=2.0)
            reward = float(torch.rand((), generator=generator)) < chance[pair]
            for direction in (pair, pair[::-1]):
                pairs.size[direction] = 1.0
                pairs.update(*direction, 2.0 if reward else 0.0)  # a gain of 1 or -1
            visits[pair] += 1
    for pair in ((0, 2), (1, 2)):
        promised = 8 * math.log(rounds) / (0.9 - chance[pair]) ** 2 + 1 + math.pi**2 / 3
        assert runs <= visits[pair] <= runs * promised
    assert visits[0, 1] > visits[0, 2] > visits[1, 2]


def test_a_gain_is_the_mean_over_visits_and_the_warm_up_with_no_outlier() -> None:
    pairs = PairTable.after_warm_up(torch.zeros(2, 2), torch.tensor([20.0, 10.0]))
    sizes, gains = (15.0, 12.0, 60.0, NAN), (0.5, -0.2, 1.0, 0.0)  # five times as large counts as twice
    for number, (size, _) in enumerate(zip(sizes, gains, strict=True), start=1):
        assert pairs.choose_by_bound(1, width=1.0) == [(0, 1)]
        pairs.update(0, 1, size)
        assert float(pairs.gain[0, 1]) == pytest.approx((0.5 + sum(gains[:number])) / (number + 1))
    assert float(pairs.gain[1, 0]) == 1.0


def test_all_pairs_are_chosen_and_visited() -> None:
    pairs = table(4)
    assert pairs.choose_all() == list(combinations(range(4), 2))
    assert torch.equal(pairs.visits, 1 - torch.eye(4))


# -- what is learnt -------------------------------------------------------------------------------------------


def test_warm_up_gives_each_direction_the_size_of_its_targets_universal_trigger() -> None:
    pairs = PairTable.after_warm_up(torch.rand(3, 3), torch.tensor([10.0, 40.0, 20.0]))
    for s in range(3):
        assert pairs.size[s].tolist() == [10, 40, 20]
        assert pairs.growth[s].tolist() == [0.25, 1, 0.5]  # relative to the largest
    assert pairs.visits.sum() == 0


def test_a_universal_trigger_that_was_not_found_counts_as_the_hardest() -> None:
    pairs = PairTable.after_warm_up(torch.zeros(3, 3), torch.tensor([10.0, NAN, 20.0]))
    assert pairs.growth[0].tolist() == [0.5, 1, 1]
    assert pairs.size[:, 1].isnan().all()
    assert not pairs.size[:, 0].isnan().any()
    none = PairTable.after_warm_up(torch.zeros(3, 3), torch.tensor([NAN] * 3))
    assert (none.growth == 1).all()
    assert none.choose(1, exploration=0, alpha=1, generator=seeded()) == [(0, 1)]


def test_growth_is_the_running_mean_of_the_relative_growth_of_the_size() -> None:
    """D <- (D + (a - S) / S) / 2 and S <- a, with the numbers worked by hand."""
    pairs = PairTable.after_warm_up(torch.zeros(2, 2), torch.tensor([20.0, 10.0]))
    pairs.update(0, 1, 15.0)  # grew by a half; D was 0.5
    assert (pairs.size[0, 1], pairs.growth[0, 1]) == (15, 0.5)
    pairs.update(0, 1, 12.0)  # shrank by a fifth
    assert pairs.size[0, 1] == 12
    assert pairs.growth[0, 1] == pytest.approx((0.5 - 0.2) / 2)
    assert (pairs.size[1, 0], pairs.growth[1, 0]) == (20, 1)  # the other direction has its own


def test_a_first_size_has_nothing_to_grow_from_and_shares_no_memory() -> None:
    """The published code makes size and growth one array here: sizes then stand where growth belongs."""
    pairs = PairTable.after_warm_up(torch.zeros(3, 3), torch.tensor([NAN, 8.0, 8.0]))
    pairs.update(1, 0, 30.0)
    assert (pairs.size[1, 0], pairs.growth[1, 0]) == (30, 0.5)
    assert pairs.size[2, 0].isnan()  # no other direction was written to
    pairs.update(1, 0, 33.0)
    assert pairs.growth[1, 0] == pytest.approx((0.5 + 0.1) / 2)
    assert pairs.size[1, 0] == 33


def test_a_pair_for_which_nothing_is_found_makes_way_for_others() -> None:
    pairs = PairTable.after_warm_up(torch.zeros(3, 3), torch.tensor([9.0, 9.0, 8.0]))
    assert pairs.choose(1, exploration=0, alpha=1, generator=seeded()) == [(0, 1)]
    pairs.update(0, 1, NAN)
    pairs.update(1, 0, NAN)
    assert pairs.size[0, 1] == 9  # the last success stands
    assert pairs.choose(1, exploration=0, alpha=1, generator=seeded()) == [(0, 2)]


def test_the_callers_tensors_are_not_written_to() -> None:
    ease, universal = torch.rand(3, 3), torch.tensor([1.0, 2.0, 3.0])
    before = ease.clone()
    pairs = PairTable.after_warm_up(ease, universal)
    pairs.update(0, 1, 5.0)
    pairs.choose(3, exploration=0.5, alpha=0.5, generator=seeded())
    pairs.ease.zero_()
    assert torch.equal(ease, before)
    assert universal.tolist() == [1, 2, 3]


def test_a_table_goes_on_from_its_state() -> None:
    one = table(5)
    one.update(0, 1, 3.0)
    two = PairTable(**{name: tensor.clone() for name, tensor in one.state().items()})
    for _ in range(3):
        assert one.choose(2, exploration=0.5, alpha=0.5, generator=seeded(1)) == two.choose(
            2, exploration=0.5, alpha=0.5, generator=seeded(1)
        )
    assert torch.equal(one.visits, two.visits)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31), classes=st.integers(2, 7), count=st.integers(0, 30))
def test_the_weakest_pairs_are_those_with_the_smallest_trigger_in_either_direction(
    seed: int, classes: int, count: int
) -> None:
    pairs = table(classes, seed)
    pairs.size[torch.rand(classes, classes, generator=seeded(seed)) < 0.3] = NAN  # none was found
    chosen = pairs.choose_weakest(count)
    both = {(s, t): [pairs.size[s, t], pairs.size[t, s]] for s, t in combinations(range(classes), 2)}
    smallest = {
        pair: min((float(x) for x in sizes if not x.isnan()), default=math.inf)
        for pair, sizes in both.items()
    }
    assert len(set(chosen)) == len(chosen) == min(count, len(smallest))
    rest = [size for pair, size in smallest.items() if pair not in chosen]
    assert max((smallest[pair] for pair in chosen), default=0) <= min(rest, default=math.inf)
    assert all(pairs.visits[s, t] == pairs.visits[t, s] == 1 for s, t in chosen)


@pytest.mark.parametrize("rule", ["paper", "ucb"])
def test_a_pair_that_has_its_place_already_is_not_chosen_again(rule: str) -> None:
    taken = table(5).choose(4, exploration=0, alpha=0.5, generator=seeded())
    for _ in range(20):
        pairs = table(5)
        rest = (
            pairs.choose(9, exploration=0.5, alpha=0.5, generator=seeded(), without=taken)
            if rule == "paper"
            else pairs.choose_by_bound(9, width=0.2, without=taken)
        )
        assert len(set(rest)) == 6
        assert not set(rest) & set(taken)


def test_scouting_tells_sizes_and_leaves_what_it_did_not_find() -> None:
    pairs = PairTable.after_warm_up(torch.zeros(3, 3), torch.tensor([9.0, 9.0, 8.0]))
    triggers = torch.zeros(2, 1, 2, 2)
    found = Inverted(
        masks=triggers,
        patterns=triggers,
        mask_l1=torch.tensor([2.0, 1.0]),
        success_rate=torch.ones(2),
        found=torch.tensor([True, False]),
        cost=torch.ones(2),
        loss_start=(torch.ones(1), torch.ones(1)),
        loss_end=(torch.ones(1), torch.ones(1)),
    )
    growth = pairs.growth.clone()
    pairs.scouted([(2, 1), (0, 1)], found)
    assert (pairs.size[2, 1], pairs.size[0, 1]) == (2, 9)
    assert torch.equal(pairs.growth, growth)
    assert pairs.choose_weakest(1) == [(1, 2)]
