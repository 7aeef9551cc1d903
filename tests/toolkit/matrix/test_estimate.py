import math
import random
import statistics

import pytest

from mothkit.matrix.estimate import MeanSize, Spread, mean_size, noise_of, pooled_spread, student


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
    assert mean_size([], None, freedom=0, missing=3) is None


def test_without_errors_a_whole_matrix_has_a_mean_and_no_interval() -> None:
    assert mean_size([10.0, 30.0], None, freedom=0, missing=0) == MeanSize(20, None, "")


@pytest.mark.parametrize("smallest", [False, True])
@pytest.mark.parametrize("draws", [1, 2, 3, 5])
def test_the_noise_of_several_draws_is_that_of_a_simulation(draws: int, smallest: bool) -> None:
    rng = random.Random(1)  # noqa: S311 - a simulation
    reduce = min if smallest else statistics.fmean
    simulated = [reduce([rng.gauss(0, 1) for _ in range(draws)]) for _ in range(20_000)]
    assert noise_of(draws, smallest=smallest) == pytest.approx(statistics.stdev(simulated), rel=0.02)


@pytest.mark.parametrize("missing", [0, 30])
def test_an_interval_holds_the_true_mean_in_nineteen_of_twenty_runs(missing: int) -> None:
    rng, held, runs, deviation = random.Random(5), 0, 600, 0.15  # noqa: S311 - a simulation
    truth = [rng.uniform(30, 90) for _ in range(60)]
    for _ in range(runs):
        measured = rng.sample(truth, len(truth) - missing)
        drawn = [
            [size * math.exp(rng.gauss(-(deviation**2) / 2, deviation)) for _ in range(2 if k < 15 else 1)]
            for k, size in enumerate(measured)
        ]
        spread, sizes = pooled_spread(drawn), [statistics.fmean(each) for each in drawn]
        assert spread is not None
        errors = [s * spread.relative * noise_of(len(each)) for s, each in zip(sizes, drawn, strict=True)]
        mean = mean_size(sizes, errors, freedom=spread.freedom, missing=missing)
        assert mean is not None and mean.interval95 is not None
        assert mean.covers == ("draws and pairs" if missing else "draws")
        held += mean.interval95[0] <= statistics.fmean(truth) <= mean.interval95[1]
    assert 0.92 < held / runs < 0.98


def test_of_a_cut_run_without_errors_the_scatter_of_the_pairs_still_tells_how_sure_the_mean_is() -> None:
    known = mean_size([41.0, 60.0, 80.0], [2.0, 4.0, 6.0], freedom=1, missing=9)
    blind = mean_size([41.0, 60.0, 80.0], None, freedom=0, missing=9)
    assert known is not None and known.interval95 is not None
    assert blind is not None and blind.interval95 is not None
    assert known.value == blind.value
    assert blind.interval95[0] <= known.interval95[0] < known.interval95[1] <= blind.interval95[1]
    assert mean_size([41.0], [2.0], freedom=1, missing=9) == MeanSize(41.0, None, "")
