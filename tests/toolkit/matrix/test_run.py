import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mothkit.distance import Distances
from mothkit.errors import ConfigError, OutputError, ResumeError
from mothkit.events import Event, Note, PhaseStarted, StepDone, silent
from mothkit.inversion.config import QUICK, InversionConfig
from mothkit.matrix.draws import Sampling
from mothkit.matrix.run import PROFILES, MatrixSettings, profile_settings
from mothkit.measuring import MeasurementInterrupted, distance_file
from mothkit.opening import Settings
from tests.tiny import write_images, write_tiny

# Updates so large that every draw is a chunk of its own.
ONE_BY_ONE = MatrixSettings(
    directions=[(0, 1), (1, 2), (2, 0)],
    inversion=InversionConfig(steps=20, initial_cost=0.02, images_per_update=4096),
    sampling=Sampling(images_per_class=8),
)
SETTINGS = Settings(preprocess="unit", device="cpu")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a model and clean images."""
    monkeypatch.chdir(tmp_path)
    write_tiny(Path("model.onnx"))
    write_images(Path("clean.npz"), 10)
    return tmp_path


def run(what: MatrixSettings = ONE_BY_ONE, **given: Any) -> tuple[Distances, dict[str, Any]]:
    arguments = {"settings": SETTINGS, "out": Path("out")} | given
    return distance_file(Path("model.onnx"), "clean.npz", what=what, **arguments)


def interrupt_after(draws: int) -> Callable[[Event], None]:
    """Return a sink that is Ctrl-C in the middle of the next draw."""

    def emit(event: Event) -> None:
        if isinstance(event, StepDone) and event.step > 20 * draws:
            raise KeyboardInterrupt

    return emit


def without_times(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in {"seconds", "time"}}


def test_an_interrupted_run_leaves_what_it_found_and_ends_as_if_nothing_had_been(folder: Path) -> None:
    whole, record = run(out=Path("whole"))
    with pytest.raises(MeasurementInterrupted) as stopped:
        run(emit=interrupt_after(1))
    (first,) = stopped.value.distances.entries
    assert stopped.value.distances.missing == (2, 0)
    on_disk = json.loads(Path("out/distance.json").read_text())
    assert on_disk["complete"] is False
    assert on_disk["class_distance"]["entries"] == [first.to_dict()]
    told: list[Event] = []
    again, resumed = run(resume=True, emit=told.append)
    assert again.is_complete
    steps = [event.step for event in told if isinstance(event, StepDone)]
    assert min(steps) > 20  # the first draw was not made again
    assert without_times(resumed) == without_times(record)
    assert [e.to_dict() for e in again.entries] == [e.to_dict() for e in whole.entries]
    for name in ("distance.csv", "distance.npz", "distance.png"):
        assert Path("out", name).read_bytes() == Path("whole", name).read_bytes()


def test_an_interruption_before_anything_is_found_is_a_plain_one() -> None:
    with pytest.raises(KeyboardInterrupt) as stopped:
        run(emit=interrupt_after(0))
    assert not isinstance(stopped.value, MeasurementInterrupted)
    assert list(Path("out").iterdir()) == [Path("out/draws")]


def test_an_interruption_before_finished_draws_are_taken_up_tells_where_they_are() -> None:
    with pytest.raises(MeasurementInterrupted):
        run(emit=interrupt_after(1))

    def at_once(event: Event) -> None:
        if event == PhaseStarted("measure class distance"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as stopped:
        run(resume=True, emit=at_once)
    assert stopped.value.__notes__ == ["finished inversions are in out/draws; go on from them with --resume"]


def test_without_a_folder_an_interruption_still_tells_what_was_found() -> None:
    with pytest.raises(MeasurementInterrupted) as stopped:
        run(out=None, emit=interrupt_after(2))
    assert len(stopped.value.record["class_distance"]["entries"]) == 2


@pytest.mark.parametrize(
    "other",
    [
        {"what": replace(ONE_BY_ONE, inversion=replace(ONE_BY_ONE.inversion, steps=21))},
        {"what": replace(ONE_BY_ONE, sampling=Sampling(images_per_class=9))},
        {"what": replace(ONE_BY_ONE, directions=[(0, 1), (1, 2)])},
        {"settings": replace(SETTINGS, seed=1)},
        {"settings": replace(SETTINGS, preprocess="minmax")},
    ],
)
def test_a_run_with_other_settings_is_not_resumed(other: dict[str, Any]) -> None:
    with pytest.raises(MeasurementInterrupted):
        run(emit=interrupt_after(1))
    before = Path("out/draws/00000.json").read_bytes()
    with pytest.raises(ResumeError, match="belongs to a run with another model, images, seed or settings"):
        run(**{"resume": True} | other)
    assert Path("out/draws/00000.json").read_bytes() == before


def test_a_run_of_another_model_or_other_images_is_not_resumed() -> None:
    with pytest.raises(MeasurementInterrupted):
        run(emit=interrupt_after(1))
    write_images(Path("clean.npz"), 11)
    with pytest.raises(ResumeError, match="another model, images"):
        run(resume=True)
    write_images(Path("clean.npz"), 10)
    write_tiny(Path("model.onnx"), softmax=True)
    with pytest.raises(ResumeError, match="another model, images"):
        run(resume=True)


def test_another_budget_goes_on_from_the_same_draws() -> None:
    with pytest.raises(MeasurementInterrupted):
        run(emit=interrupt_after(1))
    assert run(replace(ONE_BY_ONE, seconds=600), resume=True)[0].is_complete


def test_a_run_that_its_time_ends_says_so() -> None:
    told: list[Event] = []
    distances, record = run(replace(ONE_BY_ONE, seconds=1e-6), emit=told.append)
    assert distances.measured == ()
    assert distances.missing == (3, 0)
    assert record["complete"] is False
    assert record["class_distance"]["mean"] is None
    assert Note("the time is up: 0 of 3 inversions are done") in told
    assert not Path("out/distance.json").exists()


def test_a_note_tells_what_becomes_of_an_earlier_run() -> None:
    told: list[Event] = []
    run(resume=True, emit=told.append)
    assert Note("nothing to resume: there is no run in out/draws; starting anew") in told
    run(emit=told.append)
    assert any(isinstance(e, Note) and "--resume would have gone on from them" in e.text for e in told)


def test_a_folder_that_cannot_take_results_is_refused_before_the_work() -> None:
    for wrong, why in (("model.onnx", "is read by this run"), ("no/such", "cannot be written to")):
        with pytest.raises(OutputError, match=why):
            run(out=Path(wrong))
    Path("file").touch()
    with pytest.raises(OutputError, match="is a file"):
        run(out=Path("file"))
    with pytest.raises(ConfigError, match="nothing to resume without a folder"):
        run(out=None, resume=True)


def test_classes_and_the_row_from_all_classes_are_resolved() -> None:
    assert MatrixSettings().resolve(3) == [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)]
    some = MatrixSettings(classes=[2, 0], universal=True)
    assert some.resolve(3) == [(2, 0), (0, 2), (None, 2), (None, 0)]
    row = MatrixSettings(directions=[], universal=True)
    assert row.resolve(3) == [(None, 0), (None, 1), (None, 2)]
    with pytest.raises(ConfigError, match="pairs and classes are both named"):
        MatrixSettings(directions=[(0, 1)], classes=[0, 1])
    with pytest.raises(ConfigError, match="the time budget is 0 s"):
        MatrixSettings(seconds=0)


def test_the_paper_s_profile_takes_the_smallest_of_three_and_the_default_one_is_quick() -> None:
    assert PROFILES["default"].inversion == QUICK
    paper = profile_settings("paper")
    assert (paper.inversion, paper.inversion.steps) == (InversionConfig(), 1000)
    assert (paper.sampling.repeats, paper.sampling.repeat_pairs, paper.sampling.smallest) == (3, None, True)
    changed = profile_settings("default", steps=7, images_per_class=5, repeats=4, repeat_pairs=6)
    assert changed.inversion == replace(QUICK, steps=7)
    assert changed.sampling == Sampling(images_per_class=5, repeats=4, repeat_pairs=6)
    with pytest.raises(ConfigError, match="no profile 'quick'; expected one of default, paper"):
        profile_settings("quick")
    with pytest.raises(ConfigError, match="every direction must be repeated equally often"):
        profile_settings("paper", repeat_pairs=3)


def test_the_record_tells_how_it_was_measured() -> None:
    _, record = run(replace(ONE_BY_ONE, universal=True), emit=silent)
    assert record["complete"] is True
    assert record["inversion"]["steps"] == 20
    assert record["sampling"]["images_per_class"] == 8
    assert [e["target_class"] for e in record["class_distance"]["universal"]["entries"]] == [0, 1, 2]
