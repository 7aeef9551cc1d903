import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mothkit.errors import ConfigError, ImageError, ShapeError
from mothkit.images import ImageSet
from mothkit.images.sources import LazySource, Limits, Pixels


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def images(count: int = 12, classes: int = 3, seed: int = 0) -> ImageSet:
    return ImageSet.from_arrays(noise(count, 4, 5, 3, seed=seed), np.arange(count) % classes)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# from_arrays


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_nhwc_nchw_and_grey_hold_the_same_pixels(kind: str) -> None:
    x = noise(6, 4, 5, 3)
    made = []
    for array, gray in ((x, False), (x.transpose(0, 3, 1, 2), False), (x[..., 0], True), (x[..., :1], True)):
        given_x = torch.from_numpy(array.copy()) if kind == "torch" else array
        found = ImageSet.from_arrays(given_x, [0, 1, 2, 0, 1, 2])
        expected = x[..., :1] if gray else x
        assert torch.equal(found.read(range(6)), torch.from_numpy(expected.transpose(0, 3, 1, 2).copy()))
        made.append(found)
    assert made[0].digest == made[1].digest
    assert made[2].digest == made[3].digest
    assert made[0].class_names == ("0", "1", "2")
    assert made[0].shape == (3, 4, 5)
    assert made[2].shape == (1, 4, 5)


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_the_set_keeps_no_alias_of_the_callers_arrays(kind: str) -> None:
    x, y = noise(4, 4, 4, 3), np.array([0, 1, 0, 1])
    given_x, given_y = (torch.from_numpy(x), torch.from_numpy(y)) if kind == "torch" else (x, y)
    found = ImageSet.from_arrays(given_x, given_y)
    before = found.read([0, 1, 2, 3])
    x[:], y[:] = 7, 0
    assert torch.equal(found.read([0, 1, 2, 3]), before)
    assert found.labels.tolist() == [0, 1, 0, 1]
    found.read([0]).zero_()  # what is handed out is the reader's own
    assert torch.equal(found.read([0]), before[:1])


def test_an_ambiguous_layout_must_be_told() -> None:
    x = noise(2, 3, 8, 3)
    with pytest.raises(ImageError, match=r"\[2, 3, 8, 3\] could be NCHW or NHWC; say which with layout="):
        ImageSet.from_arrays(x, [0, 1])
    assert ImageSet.from_arrays(x, [0, 1], layout="nchw").shape == (3, 8, 3)
    assert ImageSet.from_arrays(x, [0, 1], layout="nhwc").shape == (3, 3, 8)


@pytest.mark.parametrize(
    ("x", "y", "names", "message"),
    [
        (noise(2, 4, 4, 3).astype(np.float32), [0, 1], None, "pixels are float32, expected uint8"),
        (np.full((2, 4, 4), np.nan), [0, 1], None, "pixels are float64"),
        (noise(2, 4, 4, 3).astype(object), [0, 1], None, "pixels are object"),
        (noise(2, 4, 4, 4), [0, 1], None, r"\[2, 4, 4, 4\] are not nchw with 1 or 3 channels"),
        (noise(4, 4), [0, 1], None, "expected 3 or 4 dimensions"),
        (noise(0, 4, 4, 3), [], None, "labels are float64|there are no images"),
        (noise(2, 4, 0, 3), [0, 1], None, "there are no images"),
        (noise(2, 4, 4, 3), [0], None, r"2 images, but labels \[1\]"),
        (noise(2, 4, 4, 3), [[0, 1]], None, "expected integers"),
        (noise(2, 4, 4, 3), [0.0, 1.0], None, "labels are float64"),
        (noise(2, 4, 4, 3), [0, -1], None, "1 labels are out of range, first -1 of image 1"),
        (
            noise(2, 4, 4, 3),
            [0, 2],
            ("a", "b"),
            r"first 2 of image 1; there are 2 classes, so labels are 0\.\.1",
        ),
        (noise(2, 4, 4, 3), [0, 10**9], None, "out of range, first 1000000000"),
        (noise(2, 4, 4, 3), np.array([0, 2**64 - 1], np.uint64), None, "out of range"),
    ],
)
def test_arrays_that_are_no_labelled_images_are_refused(
    x: np.ndarray, y: object, names: tuple[str, ...] | None, message: str
) -> None:
    with pytest.raises(ImageError, match=message):
        ImageSet.from_arrays(x, y, names, origin="mine")  # type: ignore[arg-type]


# read, pixels, subset


@settings(max_examples=40, deadline=None)
@given(chosen=st.lists(st.integers(0, 11), max_size=20), seed=st.integers(0, 99))
def test_reading_and_subsets_are_indexing(chosen: list[int], seed: int) -> None:
    x = noise(12, 4, 5, 3, seed=seed).transpose(0, 3, 1, 2)
    found = ImageSet.from_arrays(x, np.arange(12) % 5)
    assert found.read(chosen).numpy().tolist() == x[chosen].tolist()
    assert torch.equal(found.pixels(chosen), torch.from_numpy(x[chosen]).float() / 255)
    if chosen:
        part = found.subset(chosen)
        back = torch.arange(len(part)).flip(0)
        assert np.array_equal(part.subset(back).read(back).numpy(), x[chosen])
        assert part.labels.tolist() == [i % 5 for i in chosen]
        assert part.hashes() == tuple(found.hashes()[i] for i in chosen)
        assert part.class_names == found.class_names


def test_a_mask_selects_like_its_positions() -> None:
    found = images()
    mask = found.labels == 1
    assert torch.equal(found.read(mask), found.read([1, 4, 7, 10]))
    assert found.subset(mask).class_counts == (0, 4, 0)


@pytest.mark.parametrize(
    "indices",
    [[12], [-1], [0.5], [[0, 1]], torch.tensor([True, False]), torch.tensor(3), torch.tensor([1.0])],
)
def test_indices_that_point_nowhere_are_refused(indices: list[int]) -> None:
    with pytest.raises(IndexError):
        images().read(indices)


def test_an_empty_subset_is_refused() -> None:
    with pytest.raises(ImageError, match="arrays: there are no images"):
        images().subset([])


# per_class, split, batches


@settings(max_examples=30, deadline=None)
@given(
    labels=st.lists(st.integers(0, 3), min_size=8, max_size=60), n=st.integers(1, 3), seed=st.integers(0, 9)
)
def test_per_class_is_even_seeded_and_without_repeats(labels: list[int], n: int, seed: int) -> None:
    labels = [*labels, *([0, 1, 2, 3] * 3)]
    found = ImageSet.from_arrays(noise(len(labels), 4, 4, 3), labels)
    drawn = found.per_class(n, seed=seed)
    assert drawn.class_counts == (n,) * 4
    assert len(set(drawn.hashes())) == len(drawn)
    assert set(drawn.hashes()) <= set(found.hashes())
    assert drawn.digest == found.per_class(n, seed=seed).digest


def test_another_seed_draws_others() -> None:
    found = images(90)
    assert found.per_class(5, seed=0).digest != found.per_class(5, seed=1).digest


def test_classes_with_fewer_images_are_named() -> None:
    found = ImageSet.from_arrays(noise(5, 4, 4, 3), [0, 0, 0, 1, 3], ("cat", "dog", "eel", "fox"))
    with pytest.raises(ImageError, match=r"3 classes have fewer: dog 1, eel 0, fox 1"):
        found.per_class(2, seed=0)
    with pytest.raises(ConfigError, match="0, not 1 or more"):
        found.per_class(0, seed=0)


@settings(max_examples=40, deadline=None)
@given(
    labels=st.lists(st.integers(0, 3), min_size=2, max_size=60),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 9),
)
def test_a_split_is_a_stratified_partition(labels: list[int], fraction: float, seed: int) -> None:
    found = ImageSet.from_arrays(noise(len(labels) + 2, 4, 4, 3), [*labels, 0, 0])
    rest, held = found.split(fraction, generator=seeded(seed))
    assert sorted(rest.hashes() + held.hashes()) == sorted(found.hashes())
    for total, kept, back in zip(found.class_counts, rest.class_counts, held.class_counts, strict=True):
        assert kept + back == total
        assert abs(back - fraction * total) <= 1
        assert total < 2 or (kept >= 1 and back >= 1)
    again = found.split(fraction, generator=seeded(seed))
    assert (rest.digest, held.digest) == (again[0].digest, again[1].digest)


@pytest.mark.parametrize("fraction", [0, 1, -0.5, 2, float("nan")])
def test_a_fraction_out_of_range_is_refused(fraction: float) -> None:
    with pytest.raises(ConfigError, match="not in"):
        images().split(fraction, generator=seeded())


def test_a_split_of_single_images_is_refused() -> None:
    with pytest.raises(ImageError, match="no class has two images"):
        images(3).split(0.5, generator=seeded())


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 20), size=st.integers(1, 25), seed=st.none() | st.integers(0, 9))
def test_batches_visit_every_image_once(count: int, size: int, seed: int | None) -> None:
    found = images(count)
    batches = list(found.batches(size, None if seed is None else seeded(seed)))
    assert [len(y) for _, y in batches[:-1]] == [size] * (len(batches) - 1)
    x, y = torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])
    order = torch.arange(count) if seed is None else torch.randperm(count, generator=seeded(seed))
    assert torch.equal(x, found.pixels(order))
    assert torch.equal(y, found.labels[order])
    assert x.dtype == torch.float32
    assert x.min() >= 0
    assert x.max() <= 1


def test_a_batch_size_below_one_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="batch size is 0"):
        images().batches(0)


# hashes


def test_a_hash_is_sha256_of_shape_and_pixels() -> None:
    x = noise(1, 4, 5, 3)
    expected = hashlib.sha256(b"3x4x5:" + x[0].transpose(2, 0, 1).tobytes()).hexdigest()
    assert ImageSet.from_arrays(x, [0]).hashes() == (expected,)
    wide = x.transpose(0, 3, 1, 2).reshape(1, 3, 5, 4)  # the same bytes in another shape
    assert ImageSet.from_arrays(wide, [0]).hashes() != (expected,)


def test_the_digest_sees_pixels_labels_and_order() -> None:
    x = noise(3, 4, 4, 3)
    base = ImageSet.from_arrays(x, [0, 1, 2])
    assert base.digest == ImageSet.from_arrays(x.copy(), [0, 1, 2], origin="elsewhere").digest
    assert base.digest != ImageSet.from_arrays(x, [0, 2, 1]).digest
    assert base.digest != base.subset([1, 0, 2]).digest
    assert base.digest != ImageSet.from_arrays(x ^ 1, [0, 1, 2]).digest


def test_overlap_counts_shared_images() -> None:
    found = images(12)
    assert found.overlap(found.subset([3, 4, 5])) == 3
    assert found.subset([3, 4, 5]).overlap(found) == 3
    assert found.subset([0, 0, 1]).overlap(found.subset([0])) == 2
    assert found.overlap(images(12, seed=1)) == 0


def test_overlap_of_other_shapes_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"\[3, 4, 5\].*\[1, 4, 5\]"):
        images().overlap(ImageSet.from_arrays(noise(2, 4, 5), [0, 1]))


# the cache


@settings(max_examples=30, deadline=None)
@given(reads=st.lists(st.lists(st.integers(0, 9), max_size=8), max_size=6), room=st.integers(0, 12))
def test_a_lazy_source_gives_the_same_with_any_cache_and_decodes_what_fits_once(
    reads: list[list[int]], room: int
) -> None:
    x = noise(10, 1, 2, 3)
    decoded: list[int] = []

    def decode(index: int) -> Pixels:
        decoded.append(index)
        return x[index]

    source = LazySource(decode, 10, (1, 2, 3), cache_bytes=room * 6 + 5)
    for indices in reads:
        found = source.read(np.array(indices, dtype=np.int64))
        assert np.array_equal(found, x[indices])
        found[:] = 0  # must not reach the cache
    if room >= 10 and all(len(set(indices)) == len(indices) for indices in reads):
        assert len(decoded) == len(set(decoded))
    assert source._cache.nbytes <= room * 6 + 5


def test_limits_check_themselves() -> None:
    with pytest.raises(ConfigError, match="files is -1"):
        Limits(files=-1)


def test_a_set_says_what_it_is() -> None:
    assert repr(images()) == "ImageSet('arrays', 12 images [3, 4, 5], 3 classes)"
