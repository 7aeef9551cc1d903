import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import Result

from mothkit.images import load_images
from tests.levels import draw, task, truth

Run = Callable[..., Result]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a model made for 0..255, BGR, its images, and too few of them."""
    monkeypatch.chdir(tmp_path)
    task(tmp_path, truth("byte", "bgr"), draw(600))
    held = np.load("data.npz")
    np.savez("few.npz", x=held["x"][:8], y=held["y"][:8])
    np.savez("test.npz", x=held["x"][400:], y=held["y"][400:])
    np.savez("clean.npz", x=held["x"][:400], y=held["y"][:400])
    return tmp_path


def test_inspect_shows_the_table_alone(folder: Path, run: Run) -> None:
    done = run("inspect", "m.onnx", "--data", "data.npz", "--quiet")
    assert (done.exit_code, done.stderr) == (0, "")
    header, best, *others = done.stdout.splitlines()
    assert header.split() == ["preprocess", "channels", "layout", "resize", "accuracy", "images", "loss"]
    assert best.split()[:5] == ["byte", "bgr", "nchw", "100.00", "%"]
    assert best.endswith("taken")
    assert len(others) == 15
    assert all("beaten" in line or "same" in line or "close" in line for line in others)


def test_inspect_gives_the_record_too(folder: Path, run: Run) -> None:
    done = run("inspect", "m.onnx", "--data", "data.npz", "--json", "-", "--device", "cpu")
    record = json.loads(done.stdout)
    found = record["preprocessing_search"]
    assert (record["command"], found["taken"], found["reason"]) == ("inspect", "byte bgr nchw", "")
    assert found["candidates"][0]["input_spec"]["scale"] == 255
    assert "byte" in done.stderr


def test_inspect_exits_with_1_where_nothing_is_clear(folder: Path, run: Run) -> None:
    done = run("inspect", "m.onnx", "--data", "few.npz", "--quiet")
    assert done.exit_code == 1
    assert done.stdout.startswith("preprocess")
    (line,) = done.stderr.splitlines()
    assert line.startswith("none taken: ")


@pytest.mark.parametrize("option", [("--layout", "nchw"), ("--resize", "crop"), ("--seed", "3")])
def test_inspect_without_images_takes_no_option_for_them(
    folder: Path, run: Run, option: tuple[str, str]
) -> None:
    done = run("inspect", "m.onnx", *option)
    assert done.exit_code == 2
    assert "--data" in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("evaluate", "m.onnx", "--data", "data.npz"),
        ("distance", "m.onnx", "--data", "data.npz", "--pairs", "0-1", "--steps", "1", "--images", "2"),
        ("parity", "m.onnx", "--torch", "--data", "data.npz"),
    ],
    ids=lambda command: command[0],
)
def test_commands_find_it_show_the_table_on_stderr_and_record_it(
    folder: Path, run: Run, command: tuple[str, ...]
) -> None:
    done = run(*command, "--device", "cpu", "--json", "record.json")
    assert done.exit_code == 0, done.stderr
    record = json.loads(Path("record.json").read_text())
    assert record["input_spec"]["name"] == "byte"
    assert record["input_spec"]["channels"] == "bgr"
    assert record["resize"] is None
    found = record["preprocessing_search"]
    assert (found["taken"], len(found["candidates"])) == ("byte bgr nchw", 16)
    assert any(line.startswith("byte ") and line.endswith("taken") for line in done.stderr.splitlines())
    assert "preprocess" not in done.stdout


@pytest.mark.parametrize("quiet", [True, False])
def test_a_command_stops_where_nothing_is_clear(folder: Path, run: Run, quiet: bool) -> None:
    done = run("evaluate", "m.onnx", "--data", "few.npz", *(["--quiet"] if quiet else []))
    assert (done.exit_code, done.stdout) == (2, "")
    *table, error = done.stderr.splitlines()
    assert error.startswith("error: m.onnx: how pixels become its input could not be told: ")
    assert bool(table) is not quiet


def test_parity_without_images_still_asks_for_it(folder: Path, run: Run) -> None:
    done = run("parity", "m.onnx", "--torch")
    assert done.exit_code == 2
    assert "give --preprocess" in done.stderr


def test_hardening_finds_it_by_clean_images_alone_and_the_record_beside_the_file_holds_it(
    folder: Path, run: Run
) -> None:
    harden = ("harden", "m.onnx", "--data", "clean.npz", "-o", "out.onnx", "--device", "cpu", "--quiet")
    done = run(*harden, "--eval-data", "test.npz", "--steps", "14", "--max-accuracy-drop", "100")
    assert done.exit_code == 0, done.output
    record = json.loads(Path("out.record.json").read_text())
    found = record["preprocessing_search"]
    assert record["seen"]["choice_of_preprocessing"] == [found["images"]["digest"]]
    assert found["images"]["origin"] == "clean.npz"
    assert found["images"]["digest"] not in record["seen"]["evaluation_only"]
    assert record["input_spec"]["name"] == "byte"
    assert len(load_images("clean.npz")) >= found["images"]["count"]
    record_of = run("evaluate", "out.onnx", "--data", "test.npz", "--device", "cpu", "--json", "-")
    again = json.loads(record_of.stdout)
    assert again["input_spec"] == record["input_spec"]
    assert "preprocessing_search" not in again


def test_the_way_to_resize_is_taken_from_the_record(folder: Path, run: Run) -> None:
    """The pictures are twice the model's size, each pixel four times, so that the whole of them is right."""
    for name in ("clean", "test"):
        held = np.load(f"{name}.npz")
        np.savez(f"{name}.npz", x=held["x"].repeat(2, axis=1).repeat(2, axis=2), y=held["y"])
    harden = ("harden", "m.onnx", "--data", "clean.npz", "-o", "out.onnx", "--device", "cpu", "--quiet")
    done = run(*harden, "--resize", "stretch", "--steps", "14", "--max-accuracy-drop", "100")
    assert done.exit_code == 0, done.output
    assert json.loads(Path("out.record.json").read_text())["resize"] == "stretch"
    done = run("evaluate", "out.onnx", "--data", "test.npz", "--device", "cpu", "--json", "-")
    assert json.loads(done.stdout)["resize"] == "stretch"
    done = run("evaluate", "m.onnx", "--data", "test.npz", "--preprocess", "byte", "--quiet")
    assert (done.exit_code, "use --resize" in done.stderr) == (2, True)
