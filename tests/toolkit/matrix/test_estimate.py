import math
import random
import statistics

import pytest

from mothkit.matrix.estimate import Spread, mean_size, pooled_spread, student


@pytest.mark.parametrize(
    ("freedom", "point"), [(1, 12.7062), (4, 2.7764), (5, 2.5706), (10, 2.2281), (20, 2.0860), (200, 1.9719)]
)
def test_the_points_of_students_t_are_those_of_the_tables(freedom: int, point: float) -> None:
    assert student(freedom) == pytest.approx(point, abs=0.004)


def test_the_spread_of_one_direction_is_the_deviation_of_its_logarithms() -> None:
    sizes = [50.0, 55.0, 47.0]
    spread = pooled_spread([sizes, [80.0]])
    assert spread == Spread(pytest.approx(statistics.stdev(map(math.log, sizes))), 2)


def test_without_a_repetition_there_is_no_spread() -> None:
    assert pooled_spread([[50.0], [60.0], []]) is None


def test_without_a_trigger_there_is_no_mean() -> None:
    assert mean_size([], None, missing=3) is None


def test_without_a_spread_a_whole_matrix_has_a_mean_and_no_interval() -> None:
    mean = mean_size([[10.0], [30.0]], None, missing=0)
    assert mean is not None
    assert (mean.value, mean.interval95, mean.covers) == (20, None, "")


def drawn(rng: random.Random, truth: float, deviation: float, draws: int) -> list[float]:
    return [truth * math.exp(rng.gauss(-(deviation**2) / 2, deviation)) for _ in range(draws)]


@pytest.mark.parametrize("missing", [0, 30])
def test_an_interval_holds_the_true_mean_in_nineteen_of_twenty_runs(missing: int) -> None:
    rng, held, runs = random.Random(5), 0, 600  # noqa: S311 - a simulation
    truth = [rng.uniform(30, 90) for _ in range(60)]
    for _ in range(runs):
        measured = rng.sample(truth, len(truth) - missing)
        sizes = [drawn(rng, size, 0.15, 2 if k < 15 else 1) for k, size in enumerate(measured)]
        mean = mean_size(sizes, pooled_spread(sizes), missing=missing)
        assert mean is not None
        assert mean.interval95 is not None
        assert mean.covers == ("draws and pairs" if missing else "draws")
        held += mean.interval95[0] <= statistics.fmean(truth) <= mean.interval95[1]
    assert 0.92 < held / runs < 0.98


def test_the_interval_of_a_cut_run_is_wider() -> None:
    sizes = [[40.0, 42.0], [60.0], [80.0]]
    spread = pooled_spread(sizes)
    whole, cut = (mean_size(sizes, spread, missing=missing) for missing in (0, 9))
    assert whole is not None
    assert cut is not None
    assert whole.value == cut.value

    def width(mean: object) -> float:
        low, high = mean.interval95  # type: ignore[attr-defined]
        return float(high - low)

    blind = mean_size(sizes, None, missing=9)
    assert width(blind) >= width(cut)  # nothing is known of the draws: their error is not taken off twice
