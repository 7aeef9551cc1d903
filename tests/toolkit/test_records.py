import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mothkit.errors import OutputError
from mothkit.events import Event, Note, PhaseStarted, StepDone
from mothkit.records import PhaseClock, record_path, to_json, write_record, write_texts

JSON_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), JSON_VALUES, max_size=4))
def test_plain_json_comes_back_as_it_was(record: dict[str, Any]) -> None:
    assert json.loads(to_json(record)) == record


def test_numbers_of_other_libraries_stay_numbers() -> None:
    record = {
        "float32": np.float32(0.5),
        "array": np.arange(3),
        "scalar": torch.tensor(2),
        "tensor": torch.tensor([1.5, float("nan")]),
        "infinite": float("inf"),
        "tuple": (1, Path("a/b")),
    }
    assert json.loads(to_json(record)) == {
        "float32": 0.5,
        "array": [0, 1, 2],
        "scalar": 2,
        "tensor": [1.5, None],
        "infinite": None,
        "tuple": [1, "a/b"],
    }


def test_a_file_name_that_is_no_unicode_can_be_written(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff\xfe.npz")
    write_record({"origin": name, "readable": "тест"}, tmp_path / "a.json")
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text)["origin"] == name
    assert "тест" in text


@pytest.mark.parametrize(
    ("model", "record"),
    [("a.onnx", "a.record.json"), ("b/a.v2.onnx", "b/a.v2.record.json"), ("a", "a.record.json")],
)
def test_a_record_lies_beside_its_model(model: str, record: str) -> None:
    assert record_path(Path(model)) == Path(record)


def test_a_record_replaces_the_old_one_and_leaves_nothing_else(tmp_path: Path) -> None:
    for number in (1, 2):
        write_record({"number": number}, tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text()) == {"number": 2}
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_where_there_is_no_room_the_old_record_stands(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))
    try:
        with pytest.raises(OutputError, match=r"a\.json: the record cannot be written: File too large"):
            write_record({"long": "x" * 1000}, tmp_path / "a.json")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "a.json").read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_several_files_are_written_together_or_not_at_all(tmp_path: Path) -> None:
    first, second = tmp_path / "a.txt", tmp_path / "b.txt"
    write_texts({first: "one", second: "two"})
    with pytest.raises(OSError, match="missing"):
        write_texts({first: "new", second: "new", tmp_path / "missing" / "c.txt": "new"})
    assert (first.read_text(), second.read_text()) == ("one", "two")
    assert sorted(tmp_path.iterdir()) == [first, second]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"nowhere/a\.json: the record cannot be written: No such file"):
        write_record({}, tmp_path / "nowhere" / "a.json")


def test_the_clock_passes_events_on_and_counts_every_phase() -> None:
    seen: list[Event] = []
    clock = PhaseClock(seen.append)
    events = [PhaseStarted("a"), StepDone(1, 2), PhaseStarted("b"), Note("n"), PhaseStarted("a")]
    for event in events:
        clock(event)
    assert seen == events
    assert list(clock.stop()) == ["start", "a", "b"]
    assert all(seconds >= 0 for seconds in clock.stop().values())


def test_records_are_cheap_to_import() -> None:
    code = "import sys, mothkit.records; print({'torch', 'numpy', 'onnx'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
