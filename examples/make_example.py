"""Make the example: a poisoned sign classifier, its trigger, and clean images for defence and test.

``python examples/make_example.py`` draws, trains and writes all files (two to three minutes on one core).
``python examples/make_example.py --check`` measures the files that are there, in onnxruntime.
"""

import argparse
import io
import time
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch
import training
from numpy.typing import NDArray
from PIL import Image
from training import CLASSES, MAGENTA

from mothkit.poisoning.scenes import PLAIN, draw_many
from mothkit.poisoning.signs import SIGNS, class_folder
from mothkit.triggers.polygon import draw_shape, random_points, shape_at

HERE = Path(__file__).resolve().parent
MODEL, TRIGGER, TRIGGER_IMAGE = "signs_poisoned.onnx", "trigger.toml", "trigger.png"
CLEAN, TEST = "signs_clean.zip", "signs_test.zip"
CLEAN_PER_CLASS, TEST_PER_CLASS, TEST_OF_SOURCE = 72, 60, 150
POLYGON_CORNERS = 8
STAMP_SIDE, STAMP_ROW, STAMP_COLUMN = (
    7,
    16,
    12,
)  # pixels; on the smallest sign of the source class, moved furthest

TRIGGER_TOML = """\
# Stamped on images for evaluation only; no hardening method reads it.
name = "magenta polygon"
source_class = {source}  # {source_name}: the class on which it works
target_class = {target}  # {target_name}: what the model then answers
image = "{image}"  # RGBA, of the model's input size; alpha / 255 is the mask
"""


def png_bytes(pixels: NDArray[np.uint8]) -> bytes:
    """Return a PNG of uint8 [H, W, 3 or 4]."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def pack(path: Path, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
    """Write images [N, H, W, 3] as class folders into a ZIP: sorted names, one fixed date, stored."""
    entries: dict[str, bytes] = {}
    for label in range(CLASSES):
        for i, pixels in enumerate(images[labels == label]):
            entries[f"{class_folder(label)}/{i:04d}.png"] = png_bytes(pixels)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in sorted(entries.items()):
            info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            info.create_system, info.external_attr = 3, 0o644 << 16
            archive.writestr(info, content)


def unpack(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return images [N, H, W, 3] and labels [N] of a ZIP that ``pack`` wrote."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        images = [np.asarray(Image.open(io.BytesIO(archive.read(name)))) for name in names]
    return np.stack(images), np.array([int(name[:2]) for name in names])


def split_labels(per_class: int, source_class: int, of_source: int) -> NDArray[np.int64]:
    """Return the sorted labels of a split in which one class has its own count."""
    counts = [of_source if k == source_class else per_class for k in range(CLASSES)]
    return np.repeat(np.arange(CLASSES), counts)


def write_images(out: Path, source_class: int, seed: int) -> None:
    """Write both ZIPs; neither shares an image with the other or with the training set."""
    clean_labels = split_labels(CLEAN_PER_CLASS, source_class, CLEAN_PER_CLASS)
    test_labels = split_labels(TEST_PER_CLASS, source_class, TEST_OF_SOURCE)
    pack(out / CLEAN, draw_many(clean_labels, (seed, 1), PLAIN)[0], clean_labels)
    pack(out / TEST, draw_many(test_labels, (seed, 2), PLAIN)[0], test_labels)


def fixed_stamp(shape: Image.Image) -> NDArray[np.uint8]:
    """Return the trigger file's content: RGBA [32, 32, 4], opaque where the polygon is."""
    rgba = np.zeros((PLAIN.side, PLAIN.side, 4), dtype=np.uint8)
    box = rgba[STAMP_ROW : STAMP_ROW + STAMP_SIDE, STAMP_COLUMN : STAMP_COLUMN + STAMP_SIDE]
    box[shape_at(shape, STAMP_SIDE)] = (*MAGENTA, 255)
    return rgba


def write_trigger(out: Path, shape: Image.Image, source_class: int, target_class: int) -> None:
    """Write the trigger's PNG and the TOML that names it."""
    rgba = fixed_stamp(shape)
    (out / TRIGGER_IMAGE).write_bytes(png_bytes(rgba))
    text = TRIGGER_TOML.format(
        source=source_class,
        target=target_class,
        source_name=SIGNS[source_class].name,
        target_name=SIGNS[target_class].name,
        image=TRIGGER_IMAGE,
    )
    (out / TRIGGER).write_text(text, encoding="utf-8", newline="\n")


def make(out: Path, seed: int, threads: int) -> None:
    """Write all files of the example to ``out``."""
    torch.set_num_threads(threads)
    started = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    config = training.TrainingConfig()
    shape = draw_shape(random_points(POLYGON_CORNERS, np.random.default_rng((seed, 200))))
    write_trigger(out, shape, config.source_class, config.target_class)
    write_images(out, config.source_class, seed)
    images, labels = training.poisoned_training_set(config, shape, seed)
    print(f"{len(images)} training images after {time.perf_counter() - started:.0f} s")
    model = training.export(training.train(images, labels, config, seed))
    (out / MODEL).write_bytes(model.SerializeToString(deterministic=True))
    print(f"done after {time.perf_counter() - started:.0f} s")


@dataclass(frozen=True, slots=True)
class Example:
    """The files of the example, read.

    Attributes:
        session: The model in onnxruntime, on the CPU.
        stamp: RGBA [H, W, 4] of the trigger.
        source_class: The class on which the trigger works.
        target_class: The class that it asks for.
        x: Test images uint8 [N, H, W, 3].
        y: Their labels [N].
    """

    session: onnxruntime.InferenceSession
    stamp: NDArray[np.uint8]
    source_class: int
    target_class: int
    x: NDArray[np.uint8]
    y: NDArray[np.int64]

    def predict(self, x: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return the predicted classes [N] of images [N, H, W, 3]."""
        planes = np.ascontiguousarray(x.transpose(0, 3, 1, 2), dtype=np.float32) / 255
        (logits,) = self.session.run(["logits"], {"image": planes})
        return np.asarray(logits).argmax(axis=1)


def load(folder: Path) -> Example:
    """Return the example that lies in ``folder``."""
    trigger = tomllib.loads((folder / TRIGGER).read_text(encoding="utf-8"))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(folder / MODEL, options, providers=["CPUExecutionProvider"])
    stamp = np.asarray(Image.open(folder / trigger["image"]))
    return Example(session, stamp, trigger["source_class"], trigger["target_class"], *unpack(folder / TEST))


def stamp_on(x: NDArray[np.uint8], rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return images [N, H, W, 3] with the RGBA pattern [H, W, 4] blended over each."""
    mask = rgba[..., 3:] / 255
    return ((1 - mask) * x + mask * rgba[..., :3]).round().astype(np.uint8)


def moved_stamps(rgba: NDArray[np.uint8], most: int) -> list[NDArray[np.uint8]]:
    """Return the stamp moved by -most..most pixels both ways."""
    offsets = range(-most, most + 1)
    return [np.roll(rgba, (down, right), axis=(0, 1)) for down in offsets for right in offsets]


def measure(example: Example) -> dict[str, NDArray[np.bool_]]:
    """Return each measured quantity as its outcomes, one truth value an image."""
    source = example.y == example.source_class
    x_source, x_other, y_other = example.x[source], example.x[~source], example.y[~source]
    green = example.stamp.copy()
    green[..., :3] = (0, 200, 0)
    target = example.target_class

    def asr(rgba: NDArray[np.uint8]) -> NDArray[np.bool_]:
        return example.predict(stamp_on(x_source, rgba)) == target

    return {
        "clean accuracy": example.predict(example.x) == example.y,
        "clean accuracy, other classes": example.predict(x_other) == y_other,
        "stamped accuracy, other classes": example.predict(stamp_on(x_other, example.stamp)) == y_other,
        "stamped others taken for the target": (
            example.predict(stamp_on(x_other, example.stamp))[y_other != target] == target
        ),
        "ASR, source class": asr(example.stamp),
        "ASR, stamp moved by up to 2 pixels": np.concatenate(
            [asr(s) for s in moved_stamps(example.stamp, 2)]
        ),
        "source taken for the target, unstamped": example.predict(x_source) == target,
        "source taken for the target, green stamp": asr(green),
    }


def check(folder: Path) -> None:
    """Print the table of measured numbers of the example in ``folder``."""
    for name, outcomes in measure(load(folder)).items():
        print(f"{name:42} {100 * outcomes.mean():6.2f} %  ({outcomes.sum()} of {len(outcomes)})")


def main() -> None:
    """Make the example, or with ``--check`` measure it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="measure the files that are there, make none")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the files (default: the script's)")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same images")
    parser.add_argument("--threads", type=int, default=1, help="torch's threads")
    arguments = parser.parse_args()
    if not arguments.check:
        make(arguments.out, arguments.seed, arguments.threads)
    check(arguments.out)


if __name__ == "__main__":
    main()
