import json
import resource
from pathlib import Path

import pytest
import torch

from mothkit.errors import OutputError, ResumeError
from mothkit.evaluation import Rate
from mothkit.matrix.draws import Draw, Measured
from mothkit.matrix.store import DrawStore, write_bytes
from mothkit.triggers.patch import Trigger

CHUNK = [Draw(0, 1), Draw(None, 2, 1)]


def found(draws: list[Draw], seed: int = 0) -> list[Measured]:
    generator = torch.Generator().manual_seed(seed)
    triggers = [
        Trigger(*(torch.rand(c, 4, 5, generator=generator) for c in (1, 3))) for _ in range(len(draws))
    ]
    return [Measured(d, 2.5, True, 0.95, 20, Rate(3, 4), t) for d, t in zip(draws, triggers, strict=True)]


def opened(folder: Path, *, resume: bool = False, fingerprint: str = "a") -> DrawStore:
    store = DrawStore(folder, fingerprint)
    store.open(resume=resume)
    return store


def kept(folder: Path) -> Path:
    """A folder with one chunk."""
    opened(folder).save(0, found(CHUNK))
    return folder


def test_what_was_saved_is_loaded_by_the_run_that_goes_on(tmp_path: Path) -> None:
    saved = opened(tmp_path / "draws").save(7, found(CHUNK))
    loaded = opened(tmp_path / "draws", resume=True).load(7, CHUNK)
    assert loaded is not None
    for each, other, original in zip(loaded, saved, found(CHUNK), strict=True):
        assert (each.draw, each.mask_l1, each.found, each.success_rate) == (original.draw, 2.5, True, 0.95)
        assert (each.images, each.held_out) == (20, Rate(3, 4))
        for trigger in (each.trigger, other.trigger):
            assert torch.equal(trigger.mask, original.trigger.mask)
            assert torch.equal(trigger.pattern, original.trigger.pattern)
    assert opened(tmp_path / "draws", resume=True).load(0, CHUNK) is None


def test_more_chunks_than_files_may_be_open_are_held(tmp_path: Path) -> None:
    store, limits = opened(tmp_path), resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (60, limits[1]))
    try:
        held = [store.save(k, found([Draw(0, 1, k)], seed=k)) for k in range(100)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    for k, (each,) in enumerate(held):
        assert torch.equal(each.trigger.pattern, found([Draw(0, 1, k)], seed=k)[0].trigger.pattern)


def test_an_earlier_run_is_replaced_by_the_first_chunk_of_a_new_one(tmp_path: Path) -> None:
    kept(tmp_path)
    fresh = opened(tmp_path, fingerprint="b")
    assert fresh.load(0, CHUNK) is None
    assert opened(tmp_path, resume=True).load(0, CHUNK) is not None  # still there
    fresh.save(1, found(CHUNK))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["00001.f32", "00001.json", "plan.json"]
    with pytest.raises(ResumeError, match="another model, images, seed or settings"):
        opened(tmp_path, resume=True)


@pytest.mark.parametrize("cut", [0, 1, 100])
def test_a_damaged_chunk_is_refused_by_name(tmp_path: Path, cut: int) -> None:
    store = opened(kept(tmp_path), resume=True)
    array = tmp_path / "00000.f32"
    array.write_bytes(array.read_bytes()[:-1] + b"\x7f" if cut == 0 else array.read_bytes()[:-cut])
    with pytest.raises(
        ResumeError, match=r"00000.f32: is damaged; delete 00000.json to measure its part again"
    ):
        store.load(0, CHUNK)
    (tmp_path / "00000.json").unlink()
    assert store.load(0, CHUNK) is None


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"sha256": 1}', '{"sha256": null, "shape": [], "draws": 3}']
)
def test_numbers_that_cannot_be_read_are_refused_by_name(tmp_path: Path, text: str) -> None:
    store = opened(kept(tmp_path), resume=True)
    (tmp_path / "00000.json").write_text(text)
    with pytest.raises(ResumeError, match=r"00000\.(json|f32): .*delete"):
        store.load(0, CHUNK)


@pytest.mark.parametrize("shape", [[2, 4, 4, 6], [3, 4, 4, 5], [2, 4, -4, -5], [2, 80], [1, 8, 4, 5]])
def test_a_shape_that_does_not_fit_is_refused(tmp_path: Path, shape: list[int]) -> None:
    store = opened(kept(tmp_path), resume=True)
    told = json.loads((tmp_path / "00000.json").read_text()) | {"shape": shape}
    (tmp_path / "00000.json").write_text(json.dumps(told))
    with pytest.raises(ResumeError, match=r"00000.json: cannot be read"):
        store.load(0, CHUNK)


def test_a_missing_array_and_a_missing_draw_are_refused(tmp_path: Path) -> None:
    store = opened(kept(tmp_path), resume=True)
    with pytest.raises(ResumeError, match="holds other draws than were planned"):
        store.load(0, [Draw(0, 1)])
    (tmp_path / "00000.f32").unlink()
    with pytest.raises(ResumeError, match=r"00000.json: cannot be read \(FileNotFoundError"):
        store.load(0, CHUNK)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": "mothkit draws 0"}'])
def test_a_plan_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    (kept(tmp_path) / "plan.json").write_text(text)
    with pytest.raises(ResumeError, match=r"plan\.json"):
        opened(tmp_path, resume=True)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "00000.json").write_text("mine")
    with pytest.raises(OutputError, match="holds files of something else"):
        opened(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        opened(tmp_path / "file")
    assert (tmp_path / "00000.json").read_text() == "mine"


def test_a_chunk_that_cannot_be_written_is_an_error_and_leaves_nothing_half(tmp_path: Path) -> None:
    store = opened(kept(tmp_path), resume=True)
    (tmp_path / "00001.f32").mkdir()
    with pytest.raises(OutputError, match="what was measured cannot be kept"):
        store.save(1, found(CHUNK))
    assert sorted(f.name for f in tmp_path.iterdir() if f.is_file()) == [
        "00000.f32",
        "00000.json",
        "plan.json",
    ]


def test_a_file_that_cannot_be_replaced_stays_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(OSError, match="there"):
        write_bytes(tmp_path / "there", b"new")
    assert [file.name for file in tmp_path.iterdir()] == ["there"]
