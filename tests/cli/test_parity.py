import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from typer.testing import Result

from tests.tiny import tiny_model, write_images, write_tiny

Run = Callable[..., Result]

UNIT = ("--preprocess", "unit", "--device", "cpu", "--quiet")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a model and clean images."""
    monkeypatch.chdir(tmp_path)
    write_tiny(Path("model.onnx"))
    write_images(Path("clean.npz"), 15)
    return tmp_path


def with_bias(path: str, bias: list[float]) -> None:
    model = tiny_model()
    for stored in model.graph.initializer:
        if stored.name == "fc.bias":
            stored.CopyFrom(numpy_helper.from_array(np.array(bias, dtype=np.float32), "fc.bias"))
    onnx.save(model, path)


def test_a_model_agrees_with_its_import(folder: Path, run: Run) -> None:
    done = run("parity", "model.onnx", "--torch", "--data", "clean.npz", *UNIT, "--json", "-")
    assert done.exit_code == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["compared_with"] == "torch"
    assert record["parity"]["agrees"] is True
    probes = [(probe["probe"], probe["batch"]) for probe in record["parity"]["probes"]]
    assert probes == [(name, batch) for name in ("clean", "stamped", "random") for batch in (1, 32)]


@pytest.mark.parametrize("other", [{"softmax": True}, {"batch": 1}, {"batch": 5}])
def test_files_that_compute_the_same_agree(folder: Path, run: Run, other: dict[str, bool | int]) -> None:
    write_tiny(Path("other.onnx"), **other)  # type: ignore[arg-type]
    done = run("parity", "model.onnx", "other.onnx", *UNIT)
    assert done.exit_code == 0, done.stdout


def test_a_known_difference_is_measured_and_exits_1(folder: Path, run: Run) -> None:
    with_bias("other.onnx", [0.25, 0, 0])
    done = run("parity", "model.onnx", "other.onnx", *UNIT, "--json", "-")
    assert done.exit_code == 1, done.stderr
    parity = json.loads(done.stdout)["parity"]
    assert parity["agrees"] is False
    assert parity["max_absolute"] == pytest.approx(0.25, abs=1e-5)
    assert "out of tolerance" in done.stderr


def test_flipped_classes_are_counted(folder: Path, run: Run) -> None:
    with_bias("other.onnx", [100, 0, 0])
    done = run("parity", "model.onnx", "other.onnx", "--data", "clean.npz", *UNIT, "--json", "-")
    clean = json.loads(done.stdout)["parity"]["probes"][1]
    assert (clean["probe"], clean["count"]) == ("clean", 32)
    assert 10 < clean["flips"] < 32  # those of 32 drawn from 45 that are not of class 0, which are 30


@pytest.mark.parametrize("args", [(), ("model.onnx", "--torch")])
def test_one_thing_to_compare_with_must_be_given(folder: Path, run: Run, args: tuple[str, ...]) -> None:
    done = run("parity", "model.onnx", *args, *UNIT)
    assert done.exit_code == 2
    assert "give a second file or --torch, one of them" in done.stderr


def test_other_numbers_of_classes_cannot_be_compared(folder: Path, run: Run) -> None:
    model = tiny_model()
    for stored, values in (
        (model.graph.initializer[5], np.ones((5, 3))),
        (model.graph.initializer[6], np.ones(5)),
    ):
        stored.CopyFrom(numpy_helper.from_array(values.astype(np.float32), stored.name))
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 5
    onnx.save(model, "five.onnx")
    done = run("parity", "model.onnx", "five.onnx", *UNIT)
    assert done.exit_code == 2
    assert "the two give (8, 3) and (8, 5)" in done.stderr


def any_size() -> None:
    model = tiny_model()
    for dim, name in zip(model.graph.input[0].type.tensor_type.shape.dim[2:], "hw", strict=True):
        dim.dim_param = name
    onnx.save(model, "free.onnx")


def test_a_model_of_any_size_needs_one(folder: Path, run: Run) -> None:
    any_size()
    done = run("parity", "free.onnx", "--torch", *UNIT)
    assert done.exit_code == 2
    assert "takes images of any size; give --data or --size" in done.stderr
    for args in (("--size", "5x11"), ("--size", "9"), ("--data", "clean.npz")):
        assert run("parity", "free.onnx", "--torch", *args, *UNIT).exit_code == 0


@pytest.mark.parametrize("size", ["0", "0x3", "3x", "x", "-1", "1.5", "3x3x3"])
def test_what_is_no_size_is_refused(folder: Path, run: Run, size: str) -> None:
    done = run("parity", "model.onnx", "--torch", f"--size={size}", *UNIT)
    assert done.exit_code == 2
    assert "is no size" in done.stderr
