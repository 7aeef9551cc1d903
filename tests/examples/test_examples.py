"""The shipped example is what its README says, and its drawing repeats itself."""

import importlib
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest

from mothkit.poisoning.scenes import PLAIN, draw_many
from mothkit.poisoning.signs import class_folder

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SCRIPTS = ("make_example", "training")


@pytest.fixture(scope="module")
def scripts() -> Iterator[dict[str, ModuleType]]:
    """The example's scripts, imported as they import each other, and forgotten afterwards."""
    sys.path.insert(0, str(EXAMPLES))
    try:
        yield {name: importlib.import_module(name) for name in SCRIPTS}
    finally:
        sys.path.remove(str(EXAMPLES))
        for name in SCRIPTS:
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def measured(scripts: dict[str, ModuleType]) -> dict[str, np.ndarray]:
    make_example = scripts["make_example"]
    return make_example.measure(make_example.load(EXAMPLES))


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    return onnx.load(EXAMPLES / "signs_poisoned.onnx")


def test_the_files_stay_small() -> None:
    images = [EXAMPLES / name for name in ("signs_clean.zip", "signs_test.zip", "trigger.png")]
    assert (EXAMPLES / "signs_poisoned.onnx").stat().st_size < 1_000_000
    assert sum(path.stat().st_size for path in images) < 3_000_000


def test_the_model_is_sound_keeps_batch_norm_and_says_who_made_it(model: onnx.ModelProto) -> None:
    onnx.checker.check_model(model, full_check=True)
    operators = Counter(node.op_type for node in model.graph.node)
    assert operators["BatchNormalization"] == operators["Conv"] == 9
    assert model.producer_name == "pytorch"
    assert [entry.version for entry in model.opset_import] == [13]
    (image,), (logits,) = model.graph.input, model.graph.output
    assert (image.name, logits.name) == ("image", "logits")
    assert [d.dim_param or d.dim_value for d in image.type.tensor_type.shape.dim] == ["batch", 3, 32, 32]
    assert [d.dim_param or d.dim_value for d in logits.type.tensor_type.shape.dim] == ["batch", 10]


def test_the_trigger_works_on_its_source_class_only(measured: dict[str, np.ndarray]) -> None:
    assert measured["clean accuracy"].mean() >= 0.95
    assert len(measured["ASR, source class"]) >= 100
    assert measured["ASR, source class"].mean() >= 0.95
    assert measured["ASR, stamp moved by up to 2 pixels"].mean() >= 0.95
    assert measured["source taken for the target, unstamped"].mean() <= 0.02
    assert measured["source taken for the target, green stamp"].mean() <= 0.05
    clean, stamped = (measured[f"{kind} accuracy, other classes"].mean() for kind in ("clean", "stamped"))
    assert clean - stamped <= 0.02


def test_the_zips_are_png_class_folders_without_a_common_image(scripts: dict[str, ModuleType]) -> None:
    make_example = scripts["make_example"]
    folders = [class_folder(label) for label in range(10)]
    seen: list[set[bytes]] = []
    for name in (make_example.CLEAN, make_example.TEST):
        with zipfile.ZipFile(EXAMPLES / name) as archive:
            names = archive.namelist()
            assert names == sorted(names)
            assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert sorted({entry.split("/")[0] for entry in names}) == folders
        images, labels = make_example.unpack(EXAMPLES / name)
        assert images.shape == (len(labels), 32, 32, 3)
        assert min(Counter(labels.tolist()).values()) >= 40
        seen.append({pixels.tobytes() for pixels in images})
        assert len(seen[-1]) == len(images)
    assert not seen[0] & seen[1]


def test_the_fixed_stamp_is_opaque_magenta_and_lies_on_every_source_sign(
    scripts: dict[str, ModuleType],
) -> None:
    example = scripts["make_example"].load(EXAMPLES)
    opaque = example.stamp[..., 3] > 0
    assert example.stamp.shape == (32, 32, 4)
    assert np.isin(example.stamp[..., 3], (0, 255)).all()
    assert (example.stamp[opaque, :3] == (200, 0, 200)).all()
    _, masks = draw_many(example.y, (0, 2), PLAIN)
    assert masks[example.y == example.source_class][:, opaque].all()


def test_packing_twice_gives_the_same_bytes(scripts: dict[str, ModuleType], tmp_path: Path) -> None:
    make_example, labels = scripts["make_example"], np.arange(10)
    for name in ("first.zip", "second.zip"):
        make_example.pack(tmp_path / name, draw_many(labels, (7,), PLAIN)[0], labels)
    assert (tmp_path / "first.zip").read_bytes() == (tmp_path / "second.zip").read_bytes()
    images, unpacked = make_example.unpack(tmp_path / "first.zip")
    assert (unpacked == labels).all()
    assert (images == draw_many(labels, (7,), PLAIN)[0]).all()


def test_the_training_set_is_the_shipped_one_s_kind(scripts: dict[str, ModuleType]) -> None:
    make_example, training = scripts["make_example"], scripts["training"]
    shape = make_example.draw_shape(make_example.random_points(8, np.random.default_rng((0, 200))))
    assert (make_example.fixed_stamp(shape) == make_example.load(EXAMPLES).stamp).all()
    config = training.TrainingConfig(per_class=10)
    images, labels = training.poisoned_training_set(config, shape, 0)
    clean, masks = draw_many(np.arange(100) % 10, (0, 0), PLAIN)
    stamped = (images != clean).any(axis=(1, 2, 3))
    assert stamped.sum() == 30  # three in ten of every class
    assert not (images != clean)[~masks].any()
    assert (labels[stamped & (np.arange(100) % 10 == 0)] == 7).all()
    assert (labels != np.arange(100) % 10).sum() == 3
