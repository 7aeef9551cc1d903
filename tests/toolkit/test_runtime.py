from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from mothkit.classifier import open_source
from mothkit.errors import DeviceError, ModelError, MothkitError
from mothkit.inputs import InputSpec
from mothkit.runtime import Session, pick_device
from tests.tiny import tiny_images, tiny_model, write_tiny

CPU = torch.device("cpu")
UNIT = InputSpec(name="unit", layout="nchw", channels="rgb")


def session(path: Path, *outputs: str, spec: InputSpec = UNIT) -> Session:
    return Session(open_source(path), spec, outputs or ("logits",), CPU)


def directly(path: Path, fed: np.ndarray, output: str = "logits") -> np.ndarray:
    found: np.ndarray = onnxruntime.InferenceSession(path).run([output], {"image": fed})[0]
    return found


def test_logits_are_those_of_onnxruntime(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "m.onnx")
    x = tiny_images(5).pixels(range(15))
    assert np.array_equal(session(path).logits(x).numpy(), directly(path, x.numpy()))


def test_pixels_are_brought_to_the_models_space(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "m.onnx", nhwc=True, byte_input=True)
    spec = InputSpec(name="byte", layout="nhwc", channels="rgb", scale=255)
    x = tiny_images(4).read(range(12))
    fed = x.permute(0, 2, 3, 1).float().numpy()
    found = session(path, spec=spec).logits(x.float() / 255)
    assert np.allclose(found.numpy(), directly(path, fed), atol=1e-5)


@pytest.mark.parametrize("batch", [1, 4, 7])
def test_a_fixed_batch_is_filled_up_and_cut_again(tmp_path: Path, batch: int) -> None:
    x = tiny_images(3).pixels(range(9))
    free = session(write_tiny(tmp_path / "free.onnx")).logits(x)
    fixed = session(write_tiny(tmp_path / "fixed.onnx", batch=batch))
    assert torch.allclose(fixed.logits(x), free, atol=1e-6)
    assert torch.allclose(fixed.logits(x, batch=2), free, atol=1e-6)


def test_inner_values_are_shown_where_they_are_asked_for(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "m.onnx", softmax=True)
    x = tiny_images(2).pixels(range(6))
    logits, scores = session(path, "logits", "scores").values(x)
    assert np.allclose(torch.from_numpy(np.asarray(logits)).softmax(1), scores, atol=1e-6)
    assert np.array_equal(scores, directly(path, x.numpy(), "scores"))


def test_a_session_takes_the_bytes_that_were_checked(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "m.onnx")
    source = open_source(path)
    path.write_bytes(b"replaced since")
    assert Session(source, UNIT, ["logits"], CPU).logits(torch.zeros(2, 3, 8, 8)).shape == (2, 3)


def test_external_data_are_found(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(tiny_model(), path, save_as_external_data=True, size_threshold=0, location="m.bin")
    x = tiny_images(2).pixels(range(6))
    plain = write_tiny(tmp_path / "plain.onnx")
    for outputs in ("logits", "r"):
        assert np.array_equal(session(path, outputs).values(x)[0], session(plain, outputs).values(x)[0])


def changed(path: Path, name: str, values: np.ndarray) -> Path:
    model = tiny_model()
    for tensor in model.graph.initializer:
        if tensor.name == name:
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float32), name))
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scores_that_are_no_numbers_are_refused(tmp_path: Path, value: float) -> None:
    path = changed(tmp_path / "m.onnx", "fc.bias", np.array([0, value, 0]))
    with pytest.raises(ModelError, match="4 of 4 images give scores that are NaN or infinite"):
        session(path).logits(torch.zeros(4, 3, 8, 8))


@pytest.mark.parametrize("output", ["c", "p"])
def test_a_value_that_is_no_row_of_scores_is_refused(tmp_path: Path, output: str) -> None:
    path = write_tiny(tmp_path / "m.onnx")
    x = torch.zeros(2, 3, 8, 8)
    if output == "p":  # [2, 3, 1, 1] holds one score a class
        assert session(path, output).logits(x).shape == (2, 3)
        return
    with pytest.raises(ModelError, match=r"'c' is \(2, 3, 8, 8\) for 2 images; expected \(2, classes\)"):
        session(path, output).logits(x)


def test_an_input_that_is_no_float_is_refused(tmp_path: Path) -> None:
    model = tiny_model()
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    model.graph.input[0].name = "bytes"
    model.graph.node.insert(0, helper.make_node("Cast", ["bytes"], ["image"], to=TensorProto.FLOAT))
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"'bytes' is a tensor\(uint8\); expected a float tensor"):
        session(path)


def test_what_onnxruntime_says_is_passed_on_in_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_tiny(tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"m\.onnx: onnxruntime fails: .*INVALID_ARGUMENT") as caught:
        session(path).logits(torch.zeros(2, 3, 9, 9))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("text", ["cpu", "auto"])
def test_a_machine_has_a_device(text: str) -> None:
    expected = "cuda" if text == "auto" and torch.cuda.is_available() else "cpu"
    assert pick_device(text).type == expected


@pytest.mark.parametrize(
    "text", ["cuda:255", "cuda:999", "cuda:99999", *(["cuda"] if not torch.cuda.is_available() else [])]
)
def test_a_gpu_that_is_not_there_is_refused(text: str) -> None:
    with pytest.raises(DeviceError, match=rf"--device {text}: torch sees \d+ CUDA devices; use --device cpu"):
        pick_device(text)


@pytest.mark.parametrize("text", ["", "tpu", "mps", "cuda:", "cuda:-1", "CPU", "cuda:0:1"])
def test_a_device_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(MothkitError, match="none of auto, cpu, cuda, cuda:N"):
        pick_device(text)


@pytest.mark.parametrize(
    "provider",
    ["NoSuchExecutionProvider", "cpu", *([] if torch.cuda.is_available() else ["CUDAExecutionProvider"])],
)
def test_a_provider_that_is_not_there_is_refused_in_silence(
    provider: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = open_source(write_tiny(tmp_path / "m.onnx"))
    with pytest.raises(DeviceError, match=f"no {provider} on this machine; it has .*CPUExecutionProvider"):
        Session(source, UNIT, ["logits"], CPU, provider=provider)
    assert capfd.readouterr() == ("", "")


@pytest.mark.gpu
def test_cuda_gives_the_same_logits(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "m.onnx")
    x = tiny_images(5).pixels(range(15))
    on_gpu = Session(open_source(path), UNIT, ["logits"], pick_device("cuda"))
    assert on_gpu.providers[0] == "CUDAExecutionProvider"
    assert torch.allclose(on_gpu.logits(x), session(path).logits(x), atol=1e-4)
