import hashlib
import pickle
import resource
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from mothkit.errors import ResumeError
from mothkit.hardening.checkpoint import Checkpoint

STATE = {
    "weights": {"a": torch.arange(20.0).view(4, 5), "count": torch.tensor(7)},
    "own": {(0, 1): torch.ones(2), (1, 0): torch.zeros(2)},
    "tried": [(3, -0.5, {"a": torch.eye(2)})],
    "rounds": 12,
    "universal": None,
}


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return Path.write_text, (self.marker, "boom")


def opened(path: Path, fingerprint: str = "run 1") -> Checkpoint:
    return Checkpoint(path, fingerprint, resume=True)


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.checkpoint"


@pytest.fixture
def saved(path: Path) -> bytes:
    opened(path).save(STATE)
    return path.read_bytes()


def test_what_was_saved_comes_back(path: Path, saved: bytes) -> None:
    state = opened(path).load()
    assert state is not None
    assert state.keys() == STATE.keys()
    assert torch.equal(state["weights"]["a"], torch.arange(20.0).view(4, 5))
    assert state["weights"]["count"].dtype == torch.int64
    assert list(state["own"]) == [(0, 1), (1, 0)]
    assert state["own"][0, 1].tolist() == [1, 1]
    assert state["tried"][0][:2] == (3, -0.5)
    assert state["rounds"] == 12
    assert state["universal"] is None
    assert names(path.parent) == [path.name]  # no temporary file is left


def test_a_second_save_replaces_the_first(path: Path, saved: bytes) -> None:
    opened(path).save({"rounds": 13})
    assert opened(path).load() == {"rounds": 13}


def test_without_resume_or_without_a_file_there_is_nothing_to_load(path: Path) -> None:
    assert opened(path).load() is None
    opened(path).save(STATE)
    assert Checkpoint(path, "run 1").load() is None


def test_another_runs_checkpoint_is_refused_and_kept(path: Path, saved: bytes) -> None:
    with pytest.raises(ResumeError, match=r"x\.checkpoint: belongs to a run with another model") as caught:
        opened(path, "run 2").load()
    assert "--resume" in str(caught.value)
    assert path.read_bytes() == saved


def test_every_truncation_is_refused(path: Path, saved: bytes) -> None:
    for length in range(0, len(saved), 7):
        path.write_bytes(saved[:length])
        with pytest.raises(ResumeError, match="delete it and start anew"):
            opened(path).load()


def test_every_flipped_bit_is_noticed(path: Path, saved: bytes) -> None:
    """torch.load alone takes a file whose weights were damaged: its zip reader checks no sum."""
    draw = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(saved)
        damaged[draw.integers(len(saved))] ^= 1 << int(draw.integers(8))
        path.write_bytes(damaged)
        with pytest.raises(ResumeError, match="start anew"):
            opened(path).load()


def test_garbage_is_refused(path: Path) -> None:
    draw = np.random.default_rng(0)
    torch.save(STATE, path)
    for content in (path.read_bytes(), b"", *(draw.bytes(n) for n in range(1, 100))):
        path.write_bytes(content)
        with pytest.raises(ResumeError, match="is no checkpoint of this version"):
            opened(path).load()


@pytest.mark.parametrize("by_torch", [False, True])
@pytest.mark.parametrize("sealed", [False, True])
def test_a_pickle_runs_nothing_even_behind_a_right_sum(
    path: Path, saved: bytes, by_torch: bool, sealed: bool
) -> None:
    marker = path.with_name("boom")
    torch.save({"fingerprint": "run 1", "state": Bomb(marker)}, path)
    bomb = path.read_bytes() if by_torch else pickle.dumps(Bomb(marker), protocol=2)
    first_line = saved[: saved.index(b"\n") + 1]
    path.write_bytes(first_line + hashlib.sha256(bomb).digest() + bomb if sealed else bomb)
    with pytest.raises(ResumeError, match="start anew"):
        opened(path).load()
    assert not marker.exists()


@pytest.mark.parametrize(
    "state", [[1, 2], {"state": {}}, {"fingerprint": "run 1"}, {"fingerprint": "run 1", "state": 3}]
)
def test_a_sealed_file_of_another_content_is_refused(path: Path, saved: bytes, state: object) -> None:
    torch.save(state, path)
    content = path.read_bytes()
    path.write_bytes(saved[: saved.index(b"\n") + 1] + hashlib.sha256(content).digest() + content)
    with pytest.raises(ResumeError, match="cannot be read as a checkpoint"):
        opened(path).load()


def test_a_place_that_cannot_be_written_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    file, folder = tmp_path / "file", tmp_path / "folder"
    file.write_text("not mine")
    folder.mkdir()
    for path in (tmp_path / "absent" / "c", file / "c", folder):
        with pytest.raises(ResumeError, match="the checkpoint cannot be written"):
            opened(path).save(STATE)
    assert names(tmp_path) == ["file", "folder"]
    assert file.read_text() == "not mine"


def test_a_folder_in_its_place_is_an_error(path: Path) -> None:
    path.mkdir()
    with pytest.raises(ResumeError, match=r"x\.checkpoint: the checkpoint cannot be read: Is a directory"):
        opened(path).load()


def test_no_room_is_an_error_and_the_older_checkpoint_stays(path: Path, saved: bytes) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(ResumeError, match="the checkpoint cannot be written: File too large"):
            opened(path).save({"a": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == saved
    assert names(path.parent) == [path.name]


def test_it_is_due_after_its_time_and_not_right_after_a_save(path: Path) -> None:
    assert Checkpoint(path, "a", every=0).due()
    assert not Checkpoint(path, "a", every=1e6).due()
    spent = Checkpoint(path, "a", every=100, _last=-1e9)
    assert spent.due()
    spent.save({})
    assert not spent.due()


def test_what_takes_long_to_write_is_written_more_rarely(path: Path) -> None:
    now = time.monotonic()
    assert Checkpoint(path, "a", every=100, _last=now - 150, _took=0.5).due()
    assert not Checkpoint(path, "a", every=100, _last=now - 150, _took=1.0).due()


def test_it_knows_whether_the_file_is_its_own(path: Path, saved: bytes) -> None:
    anew, resumed = Checkpoint(path, "a"), opened(path)
    assert not anew.is_ours
    assert not resumed.is_ours
    resumed.load()
    assert resumed.is_ours
    anew.save({})
    assert anew.is_ours


def test_it_can_be_removed_twice(path: Path, saved: bytes) -> None:
    opened(path).remove()
    assert not path.exists()
    opened(path).remove()
