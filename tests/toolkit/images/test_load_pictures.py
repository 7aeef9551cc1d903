import io
import os
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import transforms

from mothkit.errors import ConfigError, ImageError, SizeError
from mothkit.images import ImageSet, Limits, load_images
from mothkit.images.load import split_path


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encoded(pixels: np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def png(color_type: int, depth: int, rows: bytes, width: int = 2, height: int = 2) -> bytes:
    """A PNG by hand, for what Pillow does not write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def in_folder(root: Path, files: dict[str, bytes]) -> Path:
    root.mkdir(exist_ok=True)
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            path.mkdir(exist_ok=True)
        else:
            path.write_bytes(content)
    return root


def in_zip(root: Path, files: dict[str, bytes]) -> Path:
    path = root.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


Make = Callable[[Path, dict[str, bytes]], Path]
both = pytest.mark.parametrize("make", [in_folder, in_zip])
X = noise(4, 6, 5, 3)
PAIR = {"cat/1.png": encoded(X[0]), "dog/1.png": encoded(X[1])}


def pixels(found: ImageSet) -> np.ndarray:
    return found.read(range(len(found))).numpy().transpose(0, 2, 3, 1)


# what is read


@both
def test_class_folders_are_classes_in_sorted_order(make: Make, tmp_path: Path) -> None:
    files = {"dog/b.png": X[0], "cat/z.png": X[1], "dog/a.bmp": X[2], "cat/y.ppm": X[3]}
    kinds = {"png": "PNG", "bmp": "BMP", "ppm": "PPM"}
    path = make(tmp_path / "set", {n: encoded(x, kinds[n[-3:]]) for n, x in files.items()})
    found = load_images(path)
    assert found.class_names == ("cat", "dog")
    assert found.labels.tolist() == [0, 0, 1, 1]
    assert np.array_equal(pixels(found), X[[3, 1, 2, 0]])
    assert found.origin == str(path)
    assert found.shape == (3, 6, 5)
    assert found.hashes() == ImageSet.from_arrays(X[[3, 1, 2, 0]], [0, 0, 1, 1]).hashes()


@both
def test_what_is_read_is_what_pillow_reads(make: Make, tmp_path: Path) -> None:
    palette = Image.fromarray(X[2]).quantize(16)
    stream = io.BytesIO()
    palette.save(stream, "PNG")
    files = {
        "a/1.jpg": encoded(X[0], "JPEG"),
        "a/2.JPEG": encoded(X[0][..., 0], "JPEG"),
        "a/3.pgm": encoded(X[1][..., 0], "PPM"),
        "a/4.png": stream.getvalue(),
        "a/5.png": encoded(X[0][..., 0] > 99),
        "a/6.ppm": b"P6 5 6 15\n" + bytes(range(15)) * 6,
    }
    path = make(tmp_path / "set", files)
    for gray, mode in ((False, "RGB"), (True, "L")):
        found = load_images(path, gray=gray)
        expected = [
            np.asarray(Image.open(io.BytesIO(c)).convert("RGB").convert(mode)) for c in files.values()
        ]
        assert np.array_equal(pixels(found).squeeze(), np.stack(expected).squeeze())


def test_grey_pictures_become_rgb_with_equal_channels_unless_grey_is_asked_for(tmp_path: Path) -> None:
    path = in_folder(tmp_path / "set", {"a/1.png": encoded(X[0][..., 0])})
    rgb, gray = load_images(path), load_images(path, gray=True)
    assert rgb.shape == (3, 6, 5)
    assert torch.equal(rgb.read([0])[:, 1:2], gray.read([0]))
    assert np.array_equal(gray.read([0])[0, 0], X[0][..., 0])


@both
def test_folder_names_that_are_numbers_are_sorted_as_such(make: Make, tmp_path: Path) -> None:
    path = make(tmp_path / "set", {f"{n}/i.png": encoded(X[0]) for n in ("10", "2", "0", "1")})
    assert load_images(path).class_names == ("0", "1", "2", "10")
    path = make(tmp_path / "other", {f"{n}/i.png": encoded(X[0]) for n in ("10", "2", "x")})
    assert load_images(path).class_names == ("10", "2", "x")


@pytest.mark.parametrize("lead", ["", "data/"])
def test_a_zip_may_have_a_leading_folder_and_a_folder_in_it_can_be_chosen(tmp_path: Path, lead: str) -> None:
    train = {f"{lead}train/{name}": content for name, content in PAIR.items()}
    path = in_zip(
        tmp_path / "set", train | {f"{lead}test/cat/9.png": encoded(X[2]), f"{lead}README.md": b"hi"}
    )
    assert np.array_equal(pixels(load_images(f"{path}:train")), X[:2])
    assert np.array_equal(pixels(load_images(f"{path}:{lead}test/")), X[2:3])
    with pytest.raises(ImageError, match=r"no folder 'val' in it; there are test, train"):
        load_images(f"{path}:val")
    with pytest.raises(ImageError, match=r"holds the folder 'cat'; give the folder.*ARCHIVE\.zip:FOLDER"):
        load_images(path)
    led = in_zip(
        tmp_path / "led", {f"data/{name}": content for name, content in PAIR.items()} | {"data/": b""}
    )
    assert np.array_equal(pixels(load_images(led)), X[:2])


def test_a_folder_in_a_folder_can_be_chosen_too(tmp_path: Path) -> None:
    root = in_folder(tmp_path / "set", {f"train/{name}": content for name, content in PAIR.items()})
    assert load_images(f"{root}:train").digest == load_images(root / "train").digest
    with pytest.raises(ImageError, match="there is no folder"):
        load_images(f"{root}:test")


def test_a_zip_from_windows_with_backslashes(tmp_path: Path) -> None:
    path = in_zip(tmp_path / "set", {n.replace("/", "\\"): c for n, c in PAIR.items()})
    assert load_images(path).class_names == ("cat", "dog")


@both
def test_hidden_files_and_companions_are_passed_over(make: Make, tmp_path: Path) -> None:
    extra = [".DS_Store", "cat/._1.png", "__MACOSX/cat/1.png", "cat/GT.csv", "README.md", ".git/x/y"]
    path = make(tmp_path / "set", PAIR | dict.fromkeys(extra, b"?"))
    assert len(load_images(path)) == 2


@settings(max_examples=25, deadline=None)
@given(height=st.integers(1, 20), width=st.integers(1, 20), gray=st.booleans(), seed=st.integers(0, 9))
def test_resizing_is_pillows_bilinear_also_for_arrays(
    tmp_path_factory: pytest.TempPathFactory, height: int, width: int, gray: bool, seed: int
) -> None:
    folder, x = tmp_path_factory.mktemp("set"), noise(7, 9, 3, seed=seed)
    path = in_folder(folder / "images", {"a/1.png": encoded(x)})
    np.savez(folder / "a.npz", x=x[None], y=[0])
    picture = Image.fromarray(x).convert("L" if gray else "RGB")
    expected = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))
    for source in (path, folder / "a.npz"):
        found = load_images(source, size=(height, width), gray=gray, resize="stretch")
        assert np.array_equal(pixels(found)[0].squeeze(), expected.squeeze())


def test_opaque_alpha_is_dropped(tmp_path: Path) -> None:
    alpha = np.concatenate([X[0], np.full((6, 5, 1), 255, np.uint8)], axis=2)
    path = in_folder(tmp_path / "set", {"a/1.png": encoded(alpha), "a/2.png": encoded(alpha[..., 2:])})
    assert np.array_equal(pixels(load_images(path))[0], X[0])
    assert np.array_equal(load_images(path, gray=True).read([1])[0, 0], X[0][..., 2])


# labels


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("l.txt", "\ufeffdog\n\n  cat \n"),
        ("l.csv", "folder,index\ndog, 0\ncat,1\n\n"),
        ("l.csv", "cat,1\r\ndog,0"),
        ("l.json", '{"cat": 1, "dog": 0}'),
        ("l.json", '["dog", "cat"]'),
    ],
)
@both
def test_a_label_file_says_the_models_order(make: Make, tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    found = load_images(make(tmp_path / "set", PAIR), labels=tmp_path / name)
    assert found.class_names == ("dog", "cat")
    assert found.labels.tolist() == [1, 0]
    assert np.array_equal(pixels(found), X[:2])


def test_a_mapping_may_leave_indices_of_the_model_out(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("cat,1\ndog,3")
    found = load_images(in_folder(tmp_path / "set", PAIR), labels=tmp_path / "l.csv")
    assert found.class_names == ("class_0", "cat", "class_2", "dog")
    assert found.class_counts == (0, 1, 0, 1)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("l.txt", b"cat", r"1 folders are no class of .*l\.txt, first 'dog'"),
        ("l.txt", b"cat\ndog\nfox", r"1 classes of .*l\.txt have no folder, first 'fox'"),
        ("l.txt", b"cat\ndog\ncat", r"class 'cat' is named twice"),
        ("l.txt", b" \n", r"l\.txt: names no classes"),
        ("l.txt", b"\xff\xfe\x00", r"l\.txt: labels cannot be read"),
        ("l.csv", b"cat,0\ndog,0", r"classes 'cat' and 'dog' both have index 0"),
        ("l.csv", b"cat,0\ndog,-1", r"'dog' has index -1, not in 0\.\."),
        ("l.csv", b"cat,0\ndog,99999999", r"'dog' has index 99999999"),
        ("l.csv", b"cat,0\ndog,one", r"l\.csv, line 2: expected 'folder,index', found 'dog,one'"),
        ("l.csv", b"cat,0,1", r"line 1: expected"),
        ("l.csv", b"a" * 200_000 + b",1", r"labels cannot be read"),
        ("l.json", b"{", r"l\.json: labels cannot be read"),
        ("l.json", b"[" * 99_999, r"l\.json: labels cannot be read"),
        ("l.json", b"3", r"expected a JSON object"),
        ("l.json", b'{"cat": "0"}', r"expected a JSON object"),
        ("l.json", b'{"cat": true}', r"expected a JSON object"),
        ("l.json", b'[["cat", 0]]', r"expected a JSON object"),
        ("l.json", b'{"cat": 0, "dog": 1, "cat": 2}', r"'cat' is named twice"),
        ("l.json", b"{}", r"names no classes"),
        ("l.txt", b"x" * ((16 << 20) + 1), r"no label file"),
    ],
)
def test_bad_label_files_are_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ImageError, match=message):
        load_images(in_folder(tmp_path / "set", PAIR), labels=tmp_path / name)


def test_a_missing_label_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"none\.txt: labels cannot be read"):
        load_images(in_folder(tmp_path / "set", PAIR), labels=tmp_path / "none.txt")


# what is refused


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"no class folders, and so no labels"),
        ({"1.png": PAIR["cat/1.png"]}, r"1\.png lies in no class folder"),
        (PAIR | {"2.png": b""}, r"2\.png lies in no class folder"),
        (PAIR | {"fox/": b""}, r"1 class folders have no images, first 'fox'; fill or remove"),
        (PAIR | {"fox/notes.txt": b""}, r"class folders have no images, first 'fox'"),
        (PAIR | {"cat/2.webp": b""}, r"cat/2\.webp is none of \.png"),
        (PAIR | {"cat/noise": b""}, r"cat/noise is none of"),
        (PAIR | {"cat/old/2.png": b""}, r"class folder 'cat' holds the folder 'old'"),
        (PAIR | {"cat/2.png": b""}, r"2\.png: broken image"),
        (PAIR | {"cat/2.png": b"GIF89a" + bytes(99)}, r"2\.png: broken image: no PNG, JPEG"),
        (PAIR | {"cat/2.png": encoded(X[0], "GIF")}, r"2\.png: broken image"),
        (
            PAIR | {"cat/2.png": encoded(X[0][:4])},
            r"differ in size: 2 of 3 are 6x5 .*2\.png with 4x5; use --resize",
        ),
        (PAIR | {"cat/2.png": png(2, 16, bytes(26))}, r"2\.png: image is RGB of 16 bits; save it"),
        (PAIR | {"cat/2.png": png(0, 16, bytes(10))}, r"2\.png: image is I;16 of 16 bits"),
        (PAIR | {"cat/2.ppm": b"P6 2 2 65535\n" + bytes(24)}, r"2\.ppm: image is RGB of 16 bits"),
        (PAIR | {"cat/2.ppm": b"P3 1 1 300\n1 2 3\n"}, r"2\.ppm: image is RGB of 16 bits"),
        (PAIR | {"cat/2.pgm": b"P5 2 2 65535\n" + bytes(8)}, r"2\.pgm: image is I of"),
        (
            PAIR | {"cat/2.png": png(2, 8, b"", 9000, 9000)},
            r"2\.png: image is 9000x9000, more than the limit",
        ),
    ],
)
@both
def test_a_set_that_is_not_sound_is_refused(
    make: Make, tmp_path: Path, files: dict[str, bytes], message: str
) -> None:
    path = make(tmp_path / "set", files)
    with pytest.raises(ImageError, match=message):
        load_images(path)


def test_cmyk_is_refused(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.fromarray(X[0]).convert("CMYK").save(stream, "JPEG")
    with pytest.raises(ImageError, match=r"1\.jpg: image is CMYK; save it as RGB"):
        load_images(in_folder(tmp_path / "set", {"a/1.jpg": stream.getvalue()}))


@pytest.mark.parametrize("kind", ["RGBA", "LA", "P", "key"])
@both
def test_transparent_pixels_are_refused_when_read(make: Make, tmp_path: Path, kind: str) -> None:
    picture = Image.new("RGBA", (5, 6), (9, 9, 9, 254)) if kind in ("RGBA", "LA") else Image.new("P", (5, 6))
    stream = io.BytesIO()
    if kind == "key":
        Image.new("RGB", (5, 6)).save(stream, "PNG", transparency=(0, 0, 0))
    else:
        picture.convert(kind).save(stream, "PNG", **({"transparency": 0} if kind == "P" else {}))
    found = load_images(make(tmp_path / "set", PAIR | {"cat/2.png": stream.getvalue()}))
    with pytest.raises(ImageError, match=r"2\.png: image has transparent pixels; flatten it"):
        found.read([1])


@both
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP"])
def test_a_cut_off_image_is_named_when_it_is_read(make: Make, tmp_path: Path, kind: str) -> None:
    whole = encoded(noise(40, 40, 3), kind)
    found = load_images(make(tmp_path / "set", {"a/1.png": whole, "a/2.png": whole[: len(whole) // 2]}))
    assert len(found.read([0])) == 1
    with pytest.raises(ImageError, match=r"a.2\.png: broken image: .*; mend or remove it"):
        found.read([0, 1])
    with pytest.raises(ImageError, match=r"a.2\.png: broken image"):
        list(found.batches(2))


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(["PNG", "JPEG", "BMP", "PPM"]),
    where=st.integers(0, 10**6),
    value=st.integers(0, 255),
)
def test_a_damaged_picture_is_read_or_refused_but_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, kind: str, where: int, value: int
) -> None:
    content = bytearray(encoded(X[0], kind))
    content[where % min(len(content), 60)] = value
    path = in_folder(tmp_path_factory.mktemp("set"), {"a/1.png": bytes(content)})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            load_images(path).read([0])
        except ImageError as error:
            assert "1.png" in str(error)


def test_sizes_are_checked_against_the_models(tmp_path: Path) -> None:
    path = in_folder(tmp_path / "set", PAIR | {"cat/2.png": encoded(noise(8, 8, 3))})
    message = r"2 of 3 images are not 8x8 \(height x width\), first .*1\.png with 6x5; use --resize"
    with pytest.raises(ImageError, match=message):
        load_images(path, size=(8, 8))
    found = load_images(path, size=(8, 8), resize="stretch")
    assert found.shape == (3, 8, 8)
    assert np.array_equal(pixels(found)[1], noise(8, 8, 3))


@settings(max_examples=40, deadline=None)
@given(height=st.integers(1, 60), width=st.integers(1, 60), side=st.integers(1, 40), seed=st.integers(0, 9))
def test_fit_crop_is_how_torchvision_evaluates_imagenet_models(
    tmp_path_factory: pytest.TempPathFactory, height: int, width: int, side: int, seed: int
) -> None:
    x = noise(height, width, 3, seed=seed)
    path = in_folder(tmp_path_factory.mktemp("set"), {"a/1.png": encoded(x)})
    evaluate = transforms.Compose([transforms.Resize(round(side * 8 / 7)), transforms.CenterCrop(side)])
    expected = np.asarray(evaluate(Image.fromarray(x))) if (height, width) != (side, side) else x
    found = load_images(path, size=(side, side), resize="fit-crop")
    assert np.array_equal(pixels(found)[0], expected)


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 9), width=st.integers(1, 9), size=st.tuples(st.integers(1, 12), st.integers(1, 12))
)
def test_crops_have_the_models_size_and_nothing_from_beyond_the_picture(
    tmp_path_factory: pytest.TempPathFactory, height: int, width: int, size: tuple[int, int]
) -> None:
    path = in_folder(
        tmp_path_factory.mktemp("set"), {"a/1.png": encoded(np.full((height, width, 3), 255, np.uint8))}
    )
    assert (pixels(load_images(path, size=size, resize="fit-crop")) == 255).all()
    if height < size[0] or width < size[1]:
        with pytest.raises(SizeError, match=r"1 of 1 images are smaller than .* first .*1\.png"):
            load_images(path, size=size, resize="crop")
    else:
        assert (pixels(load_images(path, size=size, resize="crop")) == 255).all()


def test_crop_takes_the_middle_as_it_is_also_from_arrays(tmp_path: Path) -> None:
    x = noise(2, 9, 7, 3)
    np.savez(tmp_path / "a.npz", x=x, y=[0, 0])
    found = load_images(tmp_path / "a.npz", size=(5, 3), resize="crop")
    assert np.array_equal(pixels(found), x[:, 2:7, 2:5])


@pytest.mark.parametrize("size", [None, (0, 5), (-1, -1), (10**6, 10**6)])
def test_a_size_that_cannot_be_is_refused(tmp_path: Path, size: tuple[int, int] | None) -> None:
    with pytest.raises(ConfigError, match="size"):
        load_images(in_folder(tmp_path / "set", PAIR), size=size, resize="stretch")


@both
def test_the_count_of_files_is_bounded(make: Make, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="more than 1 files"):
        load_images(make(tmp_path / "set", PAIR), limits=Limits(files=1))


def test_a_member_that_unpacks_to_too_much_is_refused_unread(tmp_path: Path) -> None:
    path = in_zip(tmp_path / "set", {"a/1.png": encoded(X[0]) + bytes(10**6)})
    with pytest.raises(ImageError, match=r"1\.png: broken image: unpacks to 1000\d+ bytes, more than"):
        load_images(path, limits=Limits(image_pixels=100))


def test_a_broken_zip_is_refused(tmp_path: Path) -> None:
    path = in_zip(tmp_path / "set", PAIR)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageError, match=r"set\.zip: is no zip that can be read"):
        load_images(path)
    at = whole.index(b"cat/1.png") + 60
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :])
    with pytest.raises(ImageError, match=r"cat/1\.png: broken image"):
        load_images(path).read([0])


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    path = in_zip(tmp_path / "set", PAIR)
    content = bytearray(path.read_bytes())
    entry = content.index(b"PK\x01\x02")
    content[entry + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"1 images are encrypted, first cat/1\.png"):
        load_images(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    path = in_folder(tmp_path / "set", PAIR)
    os.mkfifo(path / "cat" / "2.png")
    with pytest.raises(ImageError, match=r"2\.png: is neither a file nor a folder"):
        load_images(path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ImageError, match="is no set of images"):
        load_images(tmp_path / "pipe")


def test_a_file_that_changes_its_size_after_loading_still_has_the_sets_shape(tmp_path: Path) -> None:
    path = in_folder(tmp_path / "set", PAIR)
    found = load_images(path)
    (path / "cat/1.png").write_bytes(encoded(noise(9, 9, 3)))
    with pytest.raises(ImageError, match=r"1\.png.*9x9"):
        found.read([0])


# paths


@pytest.mark.parametrize(
    ("text", "path", "part"),
    [
        ("a.npz", "a.npz", None),
        ("a.npz:train", "a.npz", "train"),
        ("C:\\data\\a.npz", "C:\\data\\a.npz", None),
        ("C:/data/a.npz", "C:/data/a.npz", None),
        ("C:\\data\\a.npz:train", "C:\\data\\a.npz", "train"),
        ("a.npz:", "a.npz:", None),
        (":train", ":train", None),
    ],
)
def test_the_part_after_a_colon(text: str, path: str, part: str | None) -> None:
    assert split_path(text) == (Path(path), part)


def test_a_path_that_exists_with_its_colon_is_meant_as_it_is(tmp_path: Path) -> None:
    assert load_images(in_folder(tmp_path / "a:b", PAIR)).class_names == ("cat", "dog")


@pytest.mark.parametrize("name", ["none", "none.npz:train", "x" * 5000, "nul\0byte"])
def test_a_path_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(ImageError, match="no such file or folder"):
        load_images(name)


def test_a_file_of_another_kind_is_refused_with_what_is_expected(tmp_path: Path) -> None:
    for name, content in (("a.onnx", b"\x08\x07"), ("a.png", encoded(X[0])), ("empty", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ImageError, match=r"is no set of images; expected a folder"):
            load_images(tmp_path / name)
