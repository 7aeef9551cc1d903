import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from mothkit.classifier import open_source
from mothkit.errors import ImageError, InputSpecError, ModelError, SizeError, UndecidedError
from mothkit.events import Event, PhaseStarted, PreprocessingMeasured
from mothkit.inputs import presets
from mothkit.opening import Settings, measure_preprocessing, open_model
from mothkit.preprocessing import ROUNDS, Search
from mothkit.records import to_json
from tests.levels import CLASSES, COLOURS, SIDE, brightness, draw, task, truth, write_model

SHARED = Path(__file__).resolve().parents[3] / "shared"
CPU = Settings(device="cpu")


def measured(model: Path, data: Path | str, settings: Settings = CPU) -> Search:
    return measure_preprocessing(open_source(model), settings, str(data))


def verdicts(found: Search) -> dict[str, str]:
    return {candidate.reading.name: candidate.verdict for candidate in found.candidates}


@pytest.mark.parametrize("name", [name for name in presets() if name != "mnist"])
@pytest.mark.parametrize(("channels", "layout"), [("rgb", "nhwc"), ("bgr", "nchw")])
def test_what_the_model_was_made_for_is_found(tmp_path: Path, name: str, channels: str, layout: str) -> None:
    found = measured(*task(tmp_path, truth(name, channels, layout), draw(900)))
    assert found.taken is not None, found.reason
    assert found.taken.spec == truth(name, channels, layout)
    assert found.candidates[0].verdict == "taken"
    assert found.candidates[0].right.all()


@pytest.mark.parametrize("name", ["unit", "byte", "signed", "mnist", "minmax"])
def test_grey_models_are_told_too(tmp_path: Path, name: str) -> None:
    found = measured(*task(tmp_path, truth(name, "gray"), draw(900, 1)))
    assert found.taken is not None, found.reason
    assert found.taken.spec == truth(name, "gray")
    assert len(found.candidates) == 5


@pytest.mark.parametrize("batch", [1, 7])
def test_a_fixed_batch_is_no_obstacle(tmp_path: Path, batch: int) -> None:
    found = measured(*task(tmp_path, truth("signed", "rgb"), draw(300), batch=batch))
    assert found.taken is not None
    assert found.taken.name == "signed rgb nchw"


def test_an_input_of_any_size_leaves_layout_and_channels_to_the_images(tmp_path: Path) -> None:
    spec = truth("unit", "bgr", "nhwc")
    found = measured(*task(tmp_path, spec, draw(600), shape=["n", "a", "b", "c"]))
    assert found.taken is not None, found.reason
    assert found.taken.spec == spec
    assert "failed" in verdicts(found).values()  # the other layout, and grey


def test_few_images_are_no_proof(tmp_path: Path) -> None:
    found = measured(*task(tmp_path, truth("unit", "rgb"), draw(12)))
    assert found.taken is None
    assert found.reason
    assert "taken" not in verdicts(found).values()


def test_images_of_one_class_are_refused(tmp_path: Path) -> None:
    model, data = task(tmp_path, truth("unit", "rgb"), draw(200))
    np.savez(data, x=draw(200), y=np.full(200, 3))
    with pytest.raises(ImageError, match="one class only"):
        measured(model, data)


@pytest.mark.parametrize("seed", range(5))
def test_labels_that_are_not_the_models_find_nothing(tmp_path: Path, seed: int) -> None:
    model, data = task(tmp_path, truth("unit", "rgb"), draw(400))
    np.savez(data, x=draw(400), y=np.random.default_rng(seed).integers(0, CLASSES, 400))
    found = measured(model, data)
    assert found.taken is None
    assert "not clearly above chance" in found.reason
    assert "--labels" in found.reason


def test_more_classes_than_scores_are_refused(tmp_path: Path) -> None:
    model, data = task(tmp_path, truth("unit", "rgb"), draw(100))
    np.savez(data, x=draw(100), y=np.arange(100))
    with pytest.raises(ImageError, match=r"has 100 classes, but .* gives 12 scores"):
        measured(model, data)


def test_grey_pictures_do_not_let_the_colour_order_block_the_rest(tmp_path: Path) -> None:
    x = np.repeat(draw(600, 1), 3, axis=3)
    found = measured(*task(tmp_path, truth("byte", "bgr"), x))
    assert found.taken is not None, found.reason
    assert found.taken.name == "byte rgb nchw"
    assert verdicts(found)["byte bgr nchw"] == "same"


def test_a_network_that_normalises_each_image_takes_the_plainest(tmp_path: Path) -> None:
    """Instance normalisation makes unit, byte, signed and minmax one input."""
    ones = [numpy_helper.from_array(np.full(3, v, np.float32), n) for v, n in ((1, "s"), (0, "z"))]
    first = [
        *(helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in ones),
        helper.make_node("InstanceNormalization", ["image", "s", "z"], ["normal"], epsilon=1e-12),
        helper.make_node("Relu", ["normal"], ["x"]),
    ]
    x = draw(600)
    fed = torch.from_numpy(x).permute(0, 3, 1, 2).double()
    normal = (fed - fed.mean((2, 3), keepdim=True)) / fed.std((2, 3), keepdim=True, correction=0)
    b = normal.relu().mean((2, 3)) @ COLOURS.double()
    levels = b.quantile(torch.linspace(0.05, 0.95, CLASSES).double())
    np.savez(tmp_path / "d.npz", x=x, y=(b[:, None] - levels).abs().argmin(1))
    model = write_model(tmp_path / "m.onnx", truth("unit", "rgb"), levels.tolist(), first=first)
    found = measured(model, tmp_path / "d.npz")
    assert found.taken is not None, found.reason
    assert found.taken.name == "unit rgb nchw"
    told = verdicts(found)
    assert {told[f"{name} rgb nchw"] for name in ("byte", "signed", "minmax")} == {"same"}


def test_readings_that_are_equally_right_are_left_to_the_user(tmp_path: Path) -> None:
    """Without a bias the largest logit does not depend on scale: 0..1 and 0..255 are both always right."""
    x = draw(500)
    y = (torch.from_numpy(x).double().mean((1, 2))).argmax(1)
    np.savez(tmp_path / "d.npz", x=x, y=y)
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["p"]),
        helper.make_node("Flatten", ["p"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "scale-free",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    found = measured(tmp_path / "m.onnx", tmp_path / "d.npz")
    assert found.taken is None
    assert "is not clearly ahead of" in found.reason
    assert "--preprocess" in found.reason
    assert {"unit", "byte"} <= {
        c.reading.spec.name for c in found.candidates if c.verdict in ("leads", "close")
    }
    assert "--channels" not in found.reason


def test_readings_that_the_model_cannot_take_fail_alone(tmp_path: Path) -> None:
    """The square root of what is below 0 is no number."""
    spec, x = truth("unit", "rgb"), draw(600)
    first = [helper.make_node("Sqrt", ["image"], ["x"])]
    b = brightness(spec, (255 * np.sqrt(x / 255)).round().astype(np.uint8))
    levels = b.quantile(torch.linspace(0.04, 0.96, CLASSES)).tolist()
    y = (b[:, None] - torch.tensor(levels)).abs().argmin(1)
    np.savez(tmp_path / "d.npz", x=x, y=y)
    found = measured(write_model(tmp_path / "m.onnx", spec, levels, first=first), tmp_path / "d.npz")
    assert found.taken is not None, found.reason
    assert found.taken.name == "unit rgb nchw"
    failed = [candidate for candidate in found.candidates if candidate.verdict == "failed"]
    assert {"signed rgb nchw", "imagenet bgr nchw"} <= {candidate.reading.name for candidate in failed}
    assert all("NaN" in candidate.detail for candidate in failed)
    assert json.loads(to_json(found.to_dict()))["candidates"][-1]["accuracy"] is None


def test_a_model_that_takes_nothing_is_named(tmp_path: Path) -> None:
    first = [helper.make_node("Log", ["negative"], ["x"]), helper.make_node("Abs", ["image"], ["a"])]
    first = [
        first[1],
        helper.make_node("Sub", ["a", "a"], ["zero"]),
        helper.make_node("Log", ["zero"], ["x"]),
    ]
    model, data = task(tmp_path, truth("unit", "rgb"), draw(50), first=first)
    with pytest.raises(ModelError, match=r"m\.onnx: .*NaN or infinite"):
        measured(model, data)


def test_what_is_said_narrows_the_candidates_down(tmp_path: Path) -> None:
    model, data = task(tmp_path, truth("caffe", "bgr"), draw(400))
    assert len(measured(model, data).candidates) == 16
    found = measured(model, data, replace(CPU, channels="bgr"))
    assert len(found.candidates) == 8
    assert {candidate.reading.spec.channels for candidate in found.candidates} == {"bgr"}
    (alone, other) = measured(model, data, replace(CPU, preprocess="caffe")).candidates
    assert (alone.reading.name, other.reading.name) == ("caffe bgr nchw", "caffe rgb nchw")
    with pytest.raises(InputSpecError, match="has 8"):
        measured(model, data, replace(CPU, layout="nhwc"))


def test_the_record_repeats_and_says_what_the_choice_has_seen(tmp_path: Path) -> None:
    model, data = task(tmp_path, truth("byte", "rgb"), draw(2600))
    first, again, other = (measured(model, data, replace(CPU, seed=seed)).to_dict() for seed in (0, 0, 1))
    assert json.loads(to_json(first)) == json.loads(to_json(again))
    assert first["images"]["digest"] != other["images"]["digest"]
    assert first["taken"] == other["taken"] == "byte rgb nchw"
    assert first["images"]["count"] in ROUNDS
    assert len(first["candidates"]) == 16
    for candidate in first["candidates"]:
        assert candidate["accuracy"]["count"] <= first["images"]["count"]


def test_classes_are_measured_evenly_whatever_their_share(tmp_path: Path) -> None:
    x = draw(3000)
    model, data = task(tmp_path, truth("caffe", "rgb"), x)
    y = np.load(data)["y"]
    kept = np.flatnonzero((y == 5) | (np.arange(len(y)) % 12 == 0))  # most are of class 5
    np.savez(data, x=x[kept], y=y[kept])
    found = measured(model, data)
    assert found.taken is not None
    assert len(found.seen) == ROUNDS[0] < len(kept)
    counts = found.seen.labels.bincount()
    assert counts.max() - counts.min() <= 1
    assert found.chance == int(counts.max()) / ROUNDS[0]


def write_pictures(folder: Path, x: np.ndarray, y: np.ndarray) -> Path:
    for k, (image, label) in enumerate(zip(x, y, strict=True)):
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / str(label) / f"{k:04}.png")
    return folder


@pytest.mark.parametrize("way", ["stretch", "fit-crop", "crop"])
def test_the_way_to_resize_is_found_with_it(tmp_path: Path, way: str) -> None:
    """The pictures get brighter from their edge to their middle, so that each way sees another brightness."""
    from mothkit.images.sources import convert

    rng = np.random.default_rng(0)
    across = 1 - np.abs(np.linspace(-1, 1, 20))
    bump = np.minimum.outer(across, across)[..., None]
    x = np.clip(rng.uniform(0, 90, (500, 1, 1, 3)) + rng.uniform(60, 165, (500, 1, 1, 3)) * bump, 0, 255)
    x = x.astype(np.uint8)
    small = np.stack([convert(Image.fromarray(image), (3, SIDE, SIDE), way) for image in x])  # type: ignore[arg-type]
    model, data = task(tmp_path, truth("unit", "rgb"), small.transpose(0, 2, 3, 1))
    pictures = write_pictures(tmp_path / "pictures", x, np.load(data)["y"])
    found = measured(model, pictures)
    assert found.taken is not None, found.reason
    assert found.taken.name == f"unit rgb nchw {way}"
    opened = open_model(model, CPU, data=str(pictures))
    assert opened.settings.resize == way
    assert opened.images(pictures).shape == (3, SIDE, SIDE)


def test_pictures_that_are_too_small_are_not_cropped(tmp_path: Path) -> None:
    model, data = task(tmp_path, truth("unit", "rgb"), draw(200))
    pictures = write_pictures(tmp_path / "p", draw(200, side=6), np.load(data)["y"])
    assert {c.reading.resize for c in measured(model, pictures).candidates} == {"stretch", "fit-crop"}
    with pytest.raises(SizeError, match="smaller than 8x8"):
        measured(model, pictures, replace(CPU, resize="crop"))


def test_opening_takes_what_is_found_and_shows_the_table_first(tmp_path: Path) -> None:
    model, data = task(tmp_path, truth("byte", "bgr"), draw(600))
    events: list[Event] = []
    opened = open_model(model, CPU, data=str(data), emit=events.append)
    assert opened.spec == truth("byte", "bgr")
    (shown,) = [event for event in events if isinstance(event, PreprocessingMeasured)]
    assert shown.record == opened.preprocessing_search
    assert any(isinstance(event, PhaseStarted) and "125 images" in event.name for event in events)
    known = open_model(model, replace(CPU, preprocess="unit"), data=str(data))
    assert (known.spec.name, known.preprocessing_search) == ("unit", None)


def test_opening_stops_where_nothing_is_clear(tmp_path: Path) -> None:
    model, data = task(tmp_path, truth("unit", "rgb"), draw(12))
    events: list[Event] = []
    with pytest.raises(UndecidedError, match=r"m\.onnx: how pixels become its input could not be told: "):
        open_model(model, CPU, data=str(data), emit=events.append)
    assert isinstance(events[-1], PreprocessingMeasured)


@pytest.mark.parametrize(
    ("model", "data", "name"),
    [
        ("nad_wrn16_badnets", "cifar10_lossless.npz:test", "unit rgb nchw"),
        ("moth_resnet20_nat", "cifar10_lossless.npz:test", "byte rgb nhwc"),
        ("zoo/winml_cifar10", "cifar10_lossless.npz:test", "signed rgb nchw"),
        ("zoo/vnn_vit_ibp", "cifar10_lossless.npz:test", "cifar10_narrow rgb nchw"),
        ("zoo/vnn_resnet2b", "cifar10_lossless.npz:train", "cifar10 rgb nchw"),
        ("zoo/burn_mnist", "mnist", "mnist gray nchw"),
        ("zoo/mainform_mnist", "mnist", "unit gray nchw"),
        ("zoo/lenet_sanjum", "mnist", None),  # never trained
        ("zoo/mxnet_mnist", "mnist", None),  # as good at 0..255 as at 0..1
    ],
)
def test_published_models(model: str, data: str, name: str | None) -> None:
    path, images = SHARED / "models" / f"{model}.onnx", SHARED / "data" / data
    if not path.exists():
        pytest.skip("the published models are not here")
    found = measured(path, images)
    assert (found.taken and found.taken.name) == name
