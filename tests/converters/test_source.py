"""Reading a stranger's file: what is told about it, and what is refused."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from mothkit_converters import (
    ExternalDataError,
    InvalidModelError,
    NotOnnxError,
    SourceError,
    TooLargeError,
    read_source,
)
from mothkit_converters import external as external_module
from mothkit_converters import source as source_module


def store_outside(path: Path, **entries: Any) -> Path:
    """Move ``head_w`` of the model to weights.bin beside it, and overwrite its external data entries."""
    model = onnx.load(path)
    tensor = next(t for t in model.graph.initializer if t.name == "head_w")
    data = tensor.raw_data
    (path.parent / "weights.bin").write_bytes(b"\xff" * 16 + data + b"\xee" * 8)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in ({"location": "weights.bin", "offset": 16, "length": len(data)} | entries).items():
        tensor.external_data.add(key=key, value=str(value))
    path.write_bytes(model.SerializeToString())
    return path


def test_a_source_tells_what_the_file_says(cnn: Path) -> None:
    source = read_source(cnn)
    assert source.sha256 == hashlib.sha256(cnn.read_bytes()).hexdigest()
    assert (source.opset, source.ir_version, source.producer) == (17, 8, "mothkit tests")
    assert source.metadata == {"classes": "4"}
    assert [(v.name, v.dtype, v.shape) for v in source.inputs] == [("x", "float", ("N", 3, 8, 8))]
    assert [(v.name, v.shape) for v in source.outputs] == [("probabilities", ("N", 4))]
    assert source.operators["Conv"] == 1


@pytest.mark.parametrize("domain", ["", "ai.onnx", "ai.onnx.ml"])
def test_an_opset_newer_than_all_that_are_known_is_refused(cnn: Path, domain: str) -> None:
    model = onnx.load(cnn)
    model.opset_import.add(domain=domain, version=99)
    cnn.write_bytes(model.SerializeToString())
    with pytest.raises(InvalidModelError, match=f"imports opset 99 of {domain or 'ai.onnx'}"):
        read_source(cnn)


def test_initializers_among_the_inputs_are_not_asked_for(cnn: Path) -> None:
    model = onnx.load(cnn)
    model.graph.input.append(helper.make_tensor_value_info("conv_b", TensorProto.FLOAT, [5]))
    cnn.write_bytes(model.SerializeToString())
    assert [value.name for value in read_source(cnn).inputs] == ["x"]


@pytest.mark.parametrize("content", [b"", b"not a model at all", b"\x08\x08", b"PK\x03\x04" + bytes(50)])
def test_what_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(NotOnnxError, match=r"model\.onnx: .*expected"):
        read_source(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotOnnxError, match="no such file"):
        read_source(tmp_path / "none.onnx")
    with pytest.raises(NotOnnxError, match="is not a file"):
        read_source(tmp_path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 0.9999))
def test_a_file_cut_anywhere_is_refused(cnn: Path, share: float) -> None:
    content = cnn.read_bytes()
    cut = cnn.with_name("cut.onnx")
    cut.write_bytes(content[: int(share * len(content))])
    with pytest.raises(SourceError, match=r"cut\.onnx"):
        read_source(cut)


def test_a_huge_file_is_refused_before_it_is_read(cnn: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_module, "MAX_BYTES", 100)
    with pytest.raises(TooLargeError, match="at most 100"):
        read_source(cnn)


@pytest.mark.parametrize(
    ("dims", "data", "said"),
    [
        ([5, 3, 3, 3], bytes(8), "stores 8 bytes, expected 540"),
        ([10**9, 10**9], bytes(8), "stores 8 bytes, expected 4000000000000000000"),
        ([-1, 3], bytes(8), "negative dimension"),
    ],
)
def test_a_tensor_that_does_not_fit_its_shape_is_refused(
    cnn: Path, dims: list[int], data: bytes, said: str
) -> None:
    model = onnx.load(cnn)
    del model.graph.initializer[0].dims[:]
    model.graph.initializer[0].dims.extend(dims)
    model.graph.initializer[0].raw_data = data
    cnn.write_bytes(model.SerializeToString())
    with pytest.raises(InvalidModelError, match=f"conv_w.*{said}"):
        read_source(cnn)


def test_too_few_typed_values_are_refused(cnn: Path) -> None:
    model = onnx.load(cnn)
    model.graph.initializer[1].ClearField("raw_data")
    model.graph.initializer[1].float_data.extend([1.0, 2.0])
    cnn.write_bytes(model.SerializeToString())
    with pytest.raises(InvalidModelError, match="stores 2 values, expected 5"):
        read_source(cnn)


def test_a_model_that_breaks_the_rules_is_refused(cnn: Path) -> None:
    model = onnx.load(cnn)
    model.graph.node[0].input[1] = "nowhere"
    cnn.write_bytes(model.SerializeToString())
    with pytest.raises(InvalidModelError, match=r"breaks ONNX's rules.*nowhere"):
        read_source(cnn)


def test_external_data_are_loaded(cnn: Path) -> None:
    before = read_source(cnn).proto
    source = read_source(store_outside(cnn))
    assert source.proto.SerializeToString() == before.SerializeToString()
    assert set(source.digests) == {"model.onnx", "weights.bin"}


@pytest.mark.parametrize(
    "location", ["../weights.bin", "/etc/passwd", "a/../../weights.bin", "..\\weights.bin", "C:\\w.bin", ""]
)
def test_external_data_outside_the_folder_are_refused(cnn: Path, location: str) -> None:
    with pytest.raises(ExternalDataError, match="outside the model's folder"):
        read_source(store_outside(cnn, location=location))


def test_a_link_out_of_the_folder_is_refused(cnn: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    secret = tmp_path_factory.mktemp("elsewhere") / "secret.bin"
    secret.write_bytes(bytes(4096))
    store_outside(cnn)
    (cnn.parent / "weights.bin").unlink()
    (cnn.parent / "weights.bin").symlink_to(secret)
    with pytest.raises(ExternalDataError, match="outside the model's folder"):
        read_source(cnn)


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"location": "gone.bin"}, "gone.bin', which is missing"),
        ({"offset": 10**12}, "needs bytes .* which has only"),
        ({"offset": -4}, "offset -4"),
        ({"length": 4}, "needs 1280 bytes"),
        ({"length": "many"}, "invalid literal"),
    ],
)
def test_external_data_that_do_not_fit_are_refused(cnn: Path, entries: dict[str, Any], said: str) -> None:
    with pytest.raises(ExternalDataError, match=said):
        read_source(store_outside(cnn, **entries))


def test_external_data_are_bounded(cnn: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store_outside(cnn)
    monkeypatch.setattr(external_module, "MAX_EXTERNAL_BYTES", 10**7 - 1)
    with (cnn.parent / "weights.bin").open("ab") as stream:
        stream.truncate(10**7)
    with pytest.raises(TooLargeError, match=r"external data have 10000000 bytes"):
        read_source(cnn)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.onnx")
    with pytest.raises(NotOnnxError, match="is not a file"):
        read_source(tmp_path / "model.onnx")


def test_real_models_are_read(real_model: Path) -> None:
    source = read_source(real_model)
    assert source.inputs
    assert source.outputs
    assert np.sum(list(source.operators.values())) == len(source.proto.graph.node)
