import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from mothkit_cli.words import parse_pairs, parse_seconds, parse_size
from tests.tiny import write_images, write_tiny

Run = Callable[..., Result]

DISTANCE = (
    "distance",
    "model.onnx",
    "--data",
    "clean.npz",
    "--preprocess",
    "unit",
    "--device",
    "cpu",
    "--quiet",
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a model and clean images."""
    monkeypatch.chdir(tmp_path)
    write_tiny(Path("model.onnx"))
    write_images(Path("clean.npz"), 10)
    return tmp_path


def test_distances_of_the_pairs_asked_for_are_recorded_in_order(folder: Path, run: Run) -> None:
    done = run(*DISTANCE, "--pairs", "2-0, 0-1", "--steps", "150", "--json", "-")
    assert done.exit_code == 0, done.stderr
    record = json.loads(done.stdout)
    entries = record["class_distance"]["entries"]
    assert [(entry["source_class"], entry["target_class"]) for entry in entries] == [(2, 0), (0, 1)]
    for entry in entries:
        assert entry["found"] and entry["success_rate"] >= 0.9
        assert entry["images"] == 10
        assert 0 < entry["class_distance"] < 3 * 8 * 8
        assert entry["share"] == pytest.approx(entry["class_distance"] / (3 * 8 * 8))
    assert record["class_distance"]["mean"] == pytest.approx(sum(e["class_distance"] for e in entries) / 2)
    assert record["class_distance"]["failed"] == []
    assert record["inversion"]["steps"] == 150


def test_all_directions_are_measured_unless_pairs_are_named(folder: Path, run: Run) -> None:
    done = run(*DISTANCE, "--steps", "1", "--images", "4")
    assert done.exit_code == 0, done.stderr
    rows = [line.split()[0] for line in done.stdout.splitlines()[1:]]
    assert rows == ["0-1", "0-2", "1-0", "1-2", "2-0", "2-1", "mean"]


def test_the_same_seed_gives_the_same_distances(folder: Path, run: Run) -> None:
    def measure(seed: int) -> object:
        done = run(*DISTANCE, "--pairs", "0-1", "--steps", "20", "--seed", seed, "--json", "-")
        return json.loads(done.stdout)["class_distance"]

    assert measure(0) == measure(0) != measure(1)


def test_classes_and_a_row_from_all_of_them_have_tables_of_their_own(folder: Path, run: Run) -> None:
    done = run(*DISTANCE, "--classes", "2,0", "--universal", "--steps", "30", "--repeats", "3")
    assert done.exit_code == 0, done.stderr
    rows = [line.split()[0] for line in done.stdout.splitlines() if not line.startswith("direction")]
    assert rows == ["2-0", "0-2", "mean", "all-2", "all-0", "mean"]
    assert done.stdout.count("95 % interval over draws") == 2
    row = run(*DISTANCE, "--pairs", "none", "--universal", "--steps", "5", "--repeats", "1")
    rows = [line.split()[0] for line in row.stdout.splitlines()[1:]]
    assert rows == ["all-0", "all-1", "all-2", "mean"]


def test_results_go_to_a_folder_and_are_gone_on_from(folder: Path, run: Run) -> None:
    asked = (*DISTANCE, "--pairs", "0-1", "--steps", "30", "-o", "out")
    first = run(*asked, "--json", "-")
    assert first.exit_code == 0, first.stderr
    assert (folder / "out/distance.html").exists()
    again = run(*asked, "--json", "-", "--resume")
    assert json.loads(again.stdout)["class_distance"] == json.loads(first.stdout)["class_distance"]
    other = run(*asked, "--resume", "--profile", "paper")
    assert other.exit_code == 2
    assert "belongs to a run with another model, images, seed or settings" in other.stderr
    lost = run(*DISTANCE, "--resume")
    assert lost.exit_code == 2
    assert "--resume goes with --out" in lost.stderr


def test_a_time_in_which_nothing_is_found_is_told_by_the_exit_code(folder: Path, run: Run) -> None:
    done = run(*DISTANCE, "--budget", "0.000001s", "--json", "-")
    assert done.exit_code == 3
    assert "nothing was measured in time" in done.stderr
    told = json.loads(done.stdout)["class_distance"]
    assert (told["mean"], told["measured"], told["not_measured"]) == (None, 0, 6)


@pytest.mark.parametrize("text", ["", "0,", "a", "-1", "0;1"])
def test_classes_that_are_no_numbers_are_refused(folder: Path, run: Run, text: str) -> None:
    done = run(*DISTANCE, f"--classes={text}")
    assert done.exit_code == 2
    assert "is no list of classes" in done.stderr


@pytest.mark.parametrize(
    ("pairs", "told"),
    [
        ("0-0", "the pair 0-0 is not two different classes of 0 to 2"),
        ("0-3", "the pair 0-3 is not two different classes of 0 to 2"),
        ("0:1", "'0:1' is no list of pairs"),
        ("", "'' is no list of pairs"),
        ("0-1,", "'0-1,' is no list of pairs"),
        ("-1-0", "is no list of pairs"),
    ],
)
def test_pairs_that_are_none_are_refused(folder: Path, run: Run, pairs: str, told: str) -> None:
    done = run(*DISTANCE, "--pairs", pairs)
    assert done.exit_code == 2
    assert told in done.stderr


@pytest.mark.parametrize(
    ("text", "found"), [(None, None), ("3-5,5-3", [(3, 5), (5, 3)]), (" 1-2 ", [(1, 2)])]
)
def test_pairs_are_read(text: str | None, found: object) -> None:
    assert parse_pairs(text) == found


@pytest.mark.parametrize(
    ("text", "seconds"), [(None, None), ("90s", 90), ("10m", 600), ("1.5h", 5400), ("7", 7), (" 2m ", 120)]
)
def test_lengths_of_time_are_read(text: str | None, seconds: float | None) -> None:
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["0", "0.0h", "-1s", "1d", "", "m", "1e3", "inf", "nan"])
def test_what_is_no_length_of_time_is_refused(folder: Path, run: Run, text: str) -> None:
    done = run("harden", "model.onnx", "--data", "clean.npz", "-o", "out.onnx", f"--budget={text}")
    assert done.exit_code == 2
    assert "is no length of time" in done.stderr


@pytest.mark.parametrize(
    ("text", "size"), [(None, None), ("224", (224, 224)), ("32x48", (32, 48)), ("8X9", (8, 9))]
)
def test_sizes_are_read(text: str | None, size: object) -> None:
    assert parse_size(text) == size
