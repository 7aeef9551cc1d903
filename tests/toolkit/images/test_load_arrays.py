import gzip
import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mothkit.errors import ImageError
from mothkit.images import ImageSet, Limits, load_images

LIMITS = Limits(array_bytes=10_000, image_pixels=1_000)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


X, Y = noise(4, 6, 5, 3), np.array([0, 1, 2, 1])


def npz(path: Path, **arrays: Any) -> Path:
    np.savez_compressed(path, **arrays)
    return path


def npz_of_bytes(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def npy_header(shape: tuple[int, ...], descr: str = "|u1") -> bytes:
    text = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def idx(magic: int, array: np.ndarray, shape: tuple[int, ...] | None = None) -> bytes:
    shape = array.shape if shape is None else shape
    return struct.pack(f">{len(shape) + 1}I", magic, *shape) + array.tobytes()


def idx_pair(folder: Path, *, zipped: bool = False, images: bytes = b"", labels: bytes = b"") -> Path:
    gray = X[..., 0]
    images = images or idx(0x803, gray)
    labels = labels or idx(0x801, Y.astype(np.uint8))
    folder.mkdir(exist_ok=True)
    ending = ".gz" if zipped else ""
    path = folder / f"t10k-images-idx3-ubyte{ending}"
    pack = gzip.compress if zipped else bytes
    path.write_bytes(pack(images))
    (folder / f"t10k-labels-idx1-ubyte{ending}").write_bytes(pack(labels))
    return path


def pixels(found: ImageSet) -> np.ndarray:
    return found.read(range(len(found))).numpy().transpose(0, 2, 3, 1)


# npz


@pytest.mark.parametrize("names", [("x", "y"), ("images", "labels"), ("x", "labels")])
@pytest.mark.parametrize("split", [None, "train"])
@pytest.mark.parametrize("kind", [np.uint8, np.int64, ">i4"])
def test_npz_arrays(tmp_path: Path, names: tuple[str, str], split: str | None, kind: Any) -> None:
    x, y = (f"{name}_{split}" if split else name for name in names)
    path = npz(
        tmp_path / "a.npz", **{x: X, y: Y.astype(kind), "x_other": X[:1], "track": np.array([{}], object)}
    )
    found = load_images(f"{path}:{split}" if split else path)
    assert np.array_equal(pixels(found), X)
    assert found.labels.tolist() == Y.tolist()
    assert found.labels.dtype == torch.int64
    assert found.class_names == ("0", "1", "2")
    assert found.hashes() == ImageSet.from_arrays(X, Y).hashes()


@settings(max_examples=30, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5), st.sampled_from([0, 1, 3])),
    fortran=st.booleans(),
    gray=st.booleans(),
)
def test_npz_in_any_order_and_grey(
    tmp_path_factory: pytest.TempPathFactory, shape: tuple[int, ...], fortran: bool, gray: bool
) -> None:
    x = noise(*(shape if shape[3] else shape[:3]))
    stored = np.asfortranarray(x) if fortran else x
    path = npz(tmp_path_factory.mktemp("a") / "a.npz", x=stored, y=np.zeros((shape[0], 1), int))
    found = load_images(path, gray=gray)
    for image, result in zip(x, pixels(found), strict=True):
        picture = Image.fromarray(image.squeeze(2) if image.shape[2:] == (1,) else image)
        expected = np.asarray(picture.convert("RGB").convert("L" if gray else "RGB"))
        assert np.array_equal(result.reshape(expected.shape), expected)


def test_a_label_file_names_the_indices_of_arrays(tmp_path: Path) -> None:
    path = npz(tmp_path / "a.npz", x=X, y=Y)
    (tmp_path / "l.txt").write_text("cat\ndog\neel\nfox")
    found = load_images(path, labels=tmp_path / "l.txt")
    assert found.class_names == ("cat", "dog", "eel", "fox")
    assert found.class_counts == (1, 2, 1, 0)
    (tmp_path / "l.txt").write_text("cat\ndog")
    with pytest.raises(
        ImageError, match=r"1 labels are out of range, first 2 of image 2; there are 2 classes"
    ):
        load_images(path, labels=tmp_path / "l.txt")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X}, r"no array y or labels; it holds x"),
        ({"y": Y}, r"no array x or images"),
        ({}, r"it holds no arrays"),
        ({"x": X, "images": X, "y": Y}, r"holds both x and images"),
        ({"x_train": X, "y_train": Y, "x_test": X}, r"a\.npz:test \(there are test, train\)"),
        ({"x": X, "y": Y[:3]}, r"x has 4 images, y has 3 labels"),
        ({"x": X[:0], "y": Y[:0]}, r"there are no images"),
        ({"x": X / np.float32(255), "y": Y}, r"x is float32 .*expected uint8, 0\.\.255; multiply pixels"),
        ({"x": np.full(X.shape, np.nan), "y": Y}, r"x is float64"),
        ({"x": X.astype(np.int64), "y": Y}, r"x is int64"),
        ({"x": X.astype(object), "y": Y}, r"x holds Python objects \(pickles\)"),
        ({"x": X, "y": Y.astype(object)}, r"y holds Python objects"),
        ({"x": X.transpose(0, 3, 1, 2), "y": Y}, r"x is \[4, 3, 6, 5\], expected \[N, H, W, 3\]"),
        ({"x": X[0, 0], "y": Y}, r"x is \[5, 3\], expected"),
        ({"x": X, "y": Y.astype(float)}, r"y is float64 \[4\], expected integer"),
        ({"x": X, "y": np.eye(4, dtype=int)}, r"y is int64 \[4, 4\]"),
        ({"x": X, "y": Y.astype(str)}, r"y is <U21"),
        ({"x": X, "y": Y - 1}, r"1 labels are out of range, first -1 of image 0"),
        ({"x": X, "y": Y + 10**6}, r"4 labels are out of range, first 1000000"),
        ({"x": X, "y": np.full(4, 2**64 - 1, np.uint64)}, r"out of range"),
        ({"x": noise(1, 40, 40), "y": Y[:1]}, r"x: images are 40x40, more than 1000 pixels"),
        ({"x": noise(40, 10, 30), "y": Y}, r"x is 12000 bytes, more than the limit of 10000"),
        ({"x": X, "y": np.zeros(2000, int)}, r"y is 16000 bytes, more than the limit"),
    ],
)
def test_npz_that_is_no_labelled_set_is_refused(
    tmp_path: Path, arrays: dict[str, np.ndarray], message: str
) -> None:
    path = npz(tmp_path / "a.npz", **arrays)
    with pytest.raises(ImageError, match=rf"a\.npz.*{message}"):
        load_images(path, limits=LIMITS)


def test_a_split_that_is_not_there_is_refused(tmp_path: Path) -> None:
    path = npz(tmp_path / "a.npz", x_train=X, y_train=Y)
    with pytest.raises(ImageError, match=r"no array x_val or images_val.*there are train"):
        load_images(f"{path}:val")


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (npy_header((4, 6, 5, 3)), r"should hold 360 bytes, but has 0"),
        (npy_header((1 << 40, 6, 5, 3)), r"more than the limit"),
        (npy_header((1 << 62, 1 << 5, 1 << 4, 3)), r"more than the limit"),
        (npy_header((-1, -1, 1, 1)) + b"x", r"."),
        (npy_header((4, 6, 5, 3), "|O"), r"Python objects"),
        (npy_header((4, 6, 5, 3), "nonsense"), r"is no npz that can be read"),
        (b"", r"is no npz that can be read"),
        (b"\x93NUMPY\x09\x00", r"npy version \(9, 0\) is not known"),
        (b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535, r"is no npz that can be read"),
        (npy(X) + b"more", r"should hold 360 bytes, but has 364"),
    ],
)
def test_npy_headers_that_lie_are_refused(tmp_path: Path, x: bytes, message: str) -> None:
    path = npz_of_bytes(tmp_path / "a.npz", x=x, y=npy(Y))
    with pytest.raises(ImageError, match=rf"a\.npz.*{message}"):
        load_images(path, limits=LIMITS)


@pytest.mark.parametrize("part", ["x", "y"])
def test_a_flipped_byte_in_an_array_is_noticed(tmp_path: Path, part: str) -> None:
    np.savez(tmp_path / "a.npz", x=X, y=Y)  # stored: no decompressor that could notice
    content = bytearray((tmp_path / "a.npz").read_bytes())
    array = {"x": X.tobytes(), "y": Y.tobytes()}[part]
    content[content.index(array) + len(array) - 1] ^= 1
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(ImageError, match=rf"Bad CRC-32 for file '{part}\.npy'"):
        load_images(tmp_path / "a.npz")


@settings(max_examples=100, deadline=None)
@given(where=st.integers(0, 10**6), value=st.integers(0, 255), cut=st.none() | st.integers(1, 10**6))
def test_a_damaged_npz_is_read_or_refused_but_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, where: int, value: int, cut: int | None
) -> None:
    path = npz(tmp_path_factory.mktemp("a") / "a.npz", x=X, y=Y)
    content = bytearray(path.read_bytes())
    content[where % len(content)] = value
    path.write_bytes(content[: cut % len(content)] if cut else content)
    try:
        load_images(path)
    except ImageError as error:
        assert "a.npz" in str(error)


def test_an_npz_of_another_size_is_refused_or_resized(tmp_path: Path) -> None:
    path = npz(tmp_path / "a.npz", x=X, y=Y)
    with pytest.raises(ImageError, match=r"4 of 4 images are not 8x8 .*first image 0 with 6x5; use --resize"):
        load_images(path, size=(8, 8))
    assert load_images(path, size=(8, 8), resize="stretch").shape == (3, 8, 8)
    assert load_images(path, size=(6, 5)).shape == (3, 6, 5)


# IDX


@pytest.mark.parametrize("zipped", [False, True])
def test_an_idx_pair_is_found_by_its_images_or_its_folder(tmp_path: Path, zipped: bool) -> None:
    path = idx_pair(tmp_path / "mnist", zipped=zipped)
    for source in (path, tmp_path / "mnist", str(path)):
        found = load_images(source, gray=True)
        assert np.array_equal(pixels(found), X[..., :1])
        assert found.labels.tolist() == Y.tolist()
    assert load_images(path).shape == (3, 6, 5)


def test_plain_images_with_gzipped_labels_and_the_dotted_names(tmp_path: Path) -> None:
    (tmp_path / "t10k-images.idx3-ubyte").write_bytes(idx(0x803, X[..., 0]))
    (tmp_path / "t10k-labels.idx1-ubyte.gz").write_bytes(gzip.compress(idx(0x801, Y.astype(np.uint8))))
    assert len(load_images(tmp_path)) == 4


GRAY, Y8 = X[..., 0], Y.astype(np.uint8)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (idx(0x801, Y8), b"", r"images.*starts with 00000801, but IDX images start with 00000803"),
        (b"\0\0\x08", b"", r"images.*starts with 000008, but"),
        (b"", idx(0x803, GRAY), r"labels.*starts with 00000803, but IDX labels start with 00000801"),
        (b"", idx(0x801, Y8[:3]), r"has 4 images, but t10k-labels.* has 3 labels"),
        (idx(0x803, GRAY, (5, 6, 5)), b"", r"declares \[5, 6, 5\], 150 bytes, but holds 120; fetch it again"),
        (idx(0x803, GRAY, (3, 6, 5)), b"", r"declares \[3, 6, 5\], 90 bytes, but holds more"),
        (idx(0x803, GRAY, (0, 6, 5)), b"", r"there are no images"),
        (idx(0x803, GRAY, (4, 0, 5)), b"", r"there are no images"),
        (idx(0x803, GRAY, (2**32 - 1,) * 3), b"", r"more than the limit"),
        (idx(0x803, GRAY, (1, 2**20, 1)), b"", r"more than the limit"),
        (idx(0x803, noise(1, 40, 40)), b"", r"more than the limit"),
    ],
)
def test_idx_files_that_are_not_sound_are_refused(
    tmp_path: Path, zipped: bool, images: bytes, labels: bytes, message: str
) -> None:
    path = idx_pair(tmp_path / "mnist", zipped=zipped, images=images, labels=labels)
    with pytest.raises(ImageError, match=rf"t10k-.*{message}"):
        load_images(path, limits=LIMITS)


def test_a_truncated_or_corrupt_gzip_is_named(tmp_path: Path) -> None:
    path = idx_pair(tmp_path / "mnist", zipped=True)
    whole = path.read_bytes()
    for content in (whole[:-20], whole[:-1], whole[:12], whole[:-6] + b"\0\0" + whole[-4:]):
        path.write_bytes(content)
        with pytest.raises(
            ImageError, match=r"t10k-images-idx3-ubyte\.gz: cannot be read: .*; fetch it again"
        ):
            load_images(path)


def test_a_gzip_bomb_is_read_no_further_than_it_declares(tmp_path: Path) -> None:
    path = idx_pair(tmp_path / "mnist", zipped=True, images=idx(0x803, GRAY) + bytes(50_000_000))
    with pytest.raises(ImageError, match="but holds more"):
        load_images(path)


def test_missing_labels_and_wrong_choices_are_named(tmp_path: Path) -> None:
    path = idx_pair(tmp_path / "mnist")
    labels = path.with_name("t10k-labels-idx1-ubyte")
    with pytest.raises(ImageError, match="is not the file of the images"):
        load_images(labels)
    with pytest.raises(ImageError, match="is no set of images"):
        load_images(f"{path}:train")
    (tmp_path / "mnist" / "train-images-idx3-ubyte").write_bytes(path.read_bytes())
    with pytest.raises(ImageError, match=r"holds 2 IDX image files; give one of them: t10k-.*, train-"):
        load_images(tmp_path / "mnist")
    labels.unlink()
    with pytest.raises(
        ImageError, match=r"there are no labels; expected t10k-labels-idx1-ubyte or .*\.gz beside"
    ):
        load_images(path)
