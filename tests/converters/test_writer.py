"""Writing back: other weights, the same file; and nothing lost when it fails."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from mothkit_converters import UnsupportedOpError, WriteError, diff, read_source, to_torch, write_back

Save = Callable[..., Path]
Run = Callable[..., list[Any]]
Images = Callable[..., Any]


def shaken(bound: Any, amount: float = 0.01) -> Any:
    """Return a copy with every weight changed."""
    twin = copy.deepcopy(bound)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(amount * torch.sign(parameter) + amount)
    return twin


def left_over(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*.tmp")]


def test_unchanged_weights_make_the_same_file(real_model: Path, tmp_path: Path) -> None:
    try:
        bound = to_torch(real_model, allow_unbound=True)
    except UnsupportedOpError:
        pytest.skip("not imported yet")
    write_back(bound, tmp_path / "same.onnx")
    assert (tmp_path / "same.onnx").read_bytes() == real_model.read_bytes()
    write_back(shaken(bound), tmp_path / "changed.onnx")
    found = diff(real_model, tmp_path / "changed.onnx")
    assert found.only_weights
    assert {change.name for change in found.changes} <= {n for n, b in bound.ties.items() if b.trainable}
    with torch.no_grad():  # and back: parsing and writing lose nothing
        twin = to_torch(tmp_path / "changed.onnx", allow_unbound=True)
        for name in twin.ties:
            twin.tensor(name).copy_(bound.tensor(name))
    write_back(twin, tmp_path / "back.onnx")
    assert (tmp_path / "back.onnx").read_bytes() == real_model.read_bytes()


def test_the_written_file_computes_what_the_module_does(
    cnn: Path, tmp_path: Path, run: Run, images: Images
) -> None:
    bound = to_torch(cnn).train()
    bound(torch.from_numpy(images(8, 3, 8, 8)))  # moves the running statistics
    bound = shaken(bound).eval()
    write_back(bound, tmp_path / "out.onnx")
    x = images(5, 3, 8, 8)
    np.testing.assert_allclose(
        run(tmp_path / "out.onnx", x)[0], bound(torch.from_numpy(x)).detach().numpy(), rtol=1e-4, atol=1e-6
    )
    found = diff(cnn, tmp_path / "out.onnx")
    assert found.only_weights
    assert {change.name for change in found.changes} == set(bound.ties)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chosen=st.sets(st.sampled_from(["conv_w", "conv_b", "scale", "mean", "head_w"])))
def test_only_what_changed_is_touched(cnn: Path, chosen: set[str]) -> None:
    bound = to_torch(cnn)
    with torch.no_grad():
        for name in chosen:
            bound.tensor(name).add_(1)
    out = cnn.with_name("out.onnx")
    write_back(bound, out)
    assert {change.name for change in diff(cnn, out).changes} == chosen


@pytest.mark.parametrize("kind", ["raw", "typed", "constant"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_each_weight_stays_in_its_field_and_dtype(save: Save, dtype: str, kind: str) -> None:
    onnx_type = {"float16": "float16", "float32": "float", "float64": "double"}[dtype]
    text = (
        f'<ir_version: 8, opset_import: ["" : 17]> g ({onnx_type}[N, 3] x) => ({onnx_type}[N, 3] y)'
        " { y = MatMul(x, w) }"
    )
    values = np.arange(9).reshape(3, 3).astype(dtype)
    tensor = numpy_helper.from_array(values, "w")
    if kind == "typed":
        typed = values.view(np.uint16) if dtype == "float16" else values
        tensor = onnx.helper.make_tensor("w", tensor.data_type, [3, 3], values.ravel())
        assert not tensor.HasField("raw_data")
        assert typed.size == 9
    path = save(text)
    model = onnx.load(path)
    if kind == "constant":
        model.graph.node.insert(0, onnx.helper.make_node("Constant", [], ["w"], value=tensor))
    else:
        model.graph.initializer.append(tensor)
    path.write_bytes(model.SerializeToString())
    bound = to_torch(path)
    with torch.no_grad():
        bound.tensor("w")[1, 1] = 2.5
    out = path.with_name("out.onnx")
    write_back(bound, out)
    found = diff(path, out)
    assert found.only_weights
    assert [(c.name, c.max_abs) for c in found.changes] == [("w", 1.5)]
    assert to_torch(out).tensor("w")[1, 1] == 2.5


def outside(path: Path, *names: str, location: str = "weights.bin") -> Path:
    """Store these initializers in one external file, with a gap before each."""
    model = onnx.load(path)
    blob = b""
    for tensor in model.graph.initializer:
        if tensor.name in names:
            blob += b"\xab" * 64
            for key, value in (
                ("location", location),
                ("offset", len(blob)),
                ("length", len(tensor.raw_data)),
            ):
                tensor.external_data.add(key=key, value=str(value))
            blob += tensor.raw_data
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
    (path.parent / location).parent.mkdir(exist_ok=True)
    (path.parent / location).write_bytes(blob)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("location", ["weights.bin", "data/weights.bin"])
def test_external_data_keep_their_layout(cnn: Path, tmp_path: Path, location: str) -> None:
    outside(cnn, "conv_w", "head_w", location=location)
    (tmp_path / "new").mkdir()
    out = tmp_path / "new" / "out.onnx"
    bound = to_torch(cnn)
    write_back(bound, out)
    assert out.read_bytes() == cnn.read_bytes()
    assert (out.parent / location).read_bytes() == (cnn.parent / location).read_bytes()
    write_back(shaken(bound), out)
    found = diff(cnn, out)
    assert found.only_weights
    assert {"conv_w", "head_w"} <= {change.name for change in found.changes}
    assert left_over(tmp_path) == []


def test_the_originals_external_data_are_never_overwritten(cnn: Path) -> None:
    outside(cnn, "conv_w")
    data = cnn.with_name("weights.bin").read_bytes()
    bound = to_torch(cnn)
    write_back(bound, cnn.with_name("same.onnx"))  # points to the same, unchanged file
    with pytest.raises(WriteError, match="overwrite the original's"):
        write_back(shaken(bound), cnn.with_name("out.onnx"))
    with pytest.raises(WriteError, match="name of the model's external data"):
        write_back(bound, cnn.with_name("weights.bin"))
    assert cnn.with_name("weights.bin").read_bytes() == data
    assert not cnn.with_name("out.onnx").exists()


def test_somebody_elses_file_of_that_name_is_not_overwritten(cnn: Path, tmp_path: Path) -> None:
    outside(cnn, "conv_w")
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "weights.bin").write_bytes(b"precious")
    with pytest.raises(WriteError, match="belongs to something else"):
        write_back(to_torch(cnn), tmp_path / "new" / "out.onnx")
    assert (tmp_path / "new" / "weights.bin").read_bytes() == b"precious"


def test_the_original_is_never_overwritten(cnn: Path, tmp_path: Path) -> None:
    before = cnn.read_bytes()
    bound = shaken(to_torch(cnn))
    (tmp_path / "link.onnx").symlink_to(cnn)
    os.link(cnn, tmp_path / "hard.onnx")
    for path in (cnn, tmp_path / "link.onnx", tmp_path / "hard.onnx", tmp_path / "." / cnn.name):
        with pytest.raises(WriteError, match="the original"):
            write_back(bound, path)
    assert cnn.read_bytes() == before


def test_a_place_that_cannot_be_written_is_refused(cnn: Path, tmp_path: Path) -> None:
    bound = to_torch(cnn)
    with pytest.raises(WriteError, match="does not exist"):
        write_back(bound, tmp_path / "none" / "out.onnx")
    with pytest.raises(WriteError, match="folder or device"):
        write_back(bound, tmp_path)
    with pytest.raises(WriteError, match="folder or device"):
        write_back(bound, Path(os.devnull))
    with pytest.raises(WriteError, match="cannot be written"):
        write_back(bound, tmp_path / ("x" * 300))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_not_written(cnn: Path, tmp_path: Path, value: float) -> None:
    bound = to_torch(cnn)
    with torch.no_grad():
        bound.tensor("conv_b")[0] = value
    with pytest.raises(WriteError, match="'conv_b' holds values that are not finite"):
        write_back(bound, tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_a_failure_leaves_everything_as_it_was(
    cnn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, fault: BaseException
) -> None:
    out = tmp_path / "out.onnx"
    out.write_bytes(b"what stood here")
    bound = shaken(to_torch(cnn))

    def fail(*args: Any) -> None:
        raise fault

    monkeypatch.setattr(*((os, "fsync") if where == "fsync" else (Path, "replace")), fail)
    with pytest.raises(WriteError if isinstance(fault, OSError) else KeyboardInterrupt):
        write_back(bound, out)
    assert out.read_bytes() == b"what stood here"
    assert left_over(tmp_path) == []


def test_an_old_result_is_replaced(cnn: Path, tmp_path: Path) -> None:
    bound = to_torch(cnn)
    for amount in (0.1, 0.2):
        write_back(shaken(bound, amount), tmp_path / "out.onnx")
    torch.testing.assert_close(
        to_torch(tmp_path / "out.onnx").tensor("conv_w"), shaken(bound, 0.2).tensor("conv_w")
    )


def test_a_cut_module_writes_the_whole_file(cnn: Path, tmp_path: Path) -> None:
    write_back(shaken(to_torch(cnn, outputs=["logits"])), tmp_path / "out.onnx")
    found = diff(cnn, tmp_path / "out.onnx")
    assert found.only_weights
    assert len(found.changes) == 6


def test_the_source_may_be_gone(cnn: Path, tmp_path: Path) -> None:
    bound, content = to_torch(cnn), cnn.read_bytes()
    cnn.unlink()
    write_back(bound, tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx").read_bytes() == content


def test_half_precision_bit_by_bit_in_integers_is_written_anew(save: Save, tmp_path: Path) -> None:
    path = save(
        '<ir_version: 8, opset_import: ["" : 17]> g (float16[N, 3] x) => (float16[N, 3] y)'
        " { z = MatMul(x, w) y = Add(z, b) }"
    )
    model = onnx.load(path)
    model.graph.initializer.append(helper.make_tensor("w", TensorProto.FLOAT16, [3, 3], np.arange(9.0)))
    model.graph.initializer.append(numpy_helper.from_array(np.ones(3, np.float16), "b"))
    assert len(model.graph.initializer[0].int32_data) == 9
    path.write_bytes(model.SerializeToString())
    write_back(shaken(to_torch(path), 0.5), tmp_path / "out.onnx")
    found = diff(path, tmp_path / "out.onnx")
    assert found.only_weights
    assert [change.name for change in found.changes] == ["w", "b"]


def test_what_this_library_does_not_know_is_kept(cnn: Path, tmp_path: Path) -> None:
    cnn.write_bytes(cnn.read_bytes() + b"\xfa\x3e\x05later")  # field 999 of a newer ONNX
    write_back(shaken(to_torch(cnn)), tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx").read_bytes().endswith(b"\xfa\x3e\x05later")


def test_metadata_of_ours_are_entered_when_asked_for(
    cnn: Path, tmp_path: Path, run: Run, images: Images
) -> None:
    out, again = tmp_path / "out.onnx", tmp_path / "again.onnx"
    write_back(shaken(to_torch(cnn)), out, metadata={"mothkit.version": "1", "mothkit.method": "moth"})
    found = diff(cnn, out)
    assert found.only_weights
    assert not found.identical
    assert found.stamps == ("mothkit.method", "mothkit.version")
    assert read_source(out).metadata == {"classes": "4", "mothkit.version": "1", "mothkit.method": "moth"}
    write_back(to_torch(out), again, metadata={"mothkit.version": "2"})
    assert read_source(again).metadata == {"classes": "4", "mothkit.version": "2", "mothkit.method": "moth"}
    assert diff(out, again).stamps == ("mothkit.version",)
    assert not diff(out, again).changes
    x = images(2, 3, 8, 8)
    np.testing.assert_array_equal(run(out, x)[0], run(again, x)[0])


def test_metadata_of_others_are_not_touched(cnn: Path, tmp_path: Path) -> None:
    with pytest.raises(WriteError, match=r"'classes' does not begin with 'mothkit\.'"):
        write_back(to_torch(cnn), tmp_path / "out.onnx", metadata={"classes": "5"})
    assert not (tmp_path / "out.onnx").exists()


def test_an_original_that_was_written_to_meanwhile_is_not_taken(cnn: Path, tmp_path: Path) -> None:
    cnn.write_bytes(
        cnn.read_bytes() + b"\x08\x08"
    )  # says its version twice: no other program writes such bytes
    bound = to_torch(cnn)
    cnn.write_bytes(b"replaced since")
    with pytest.raises(WriteError, match="was written to since it was read"):
        write_back(bound, tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


def test_an_original_that_memory_holds_byte_by_byte_may_change(cnn: Path, tmp_path: Path) -> None:
    bound, content = to_torch(cnn), cnn.read_bytes()
    cnn.write_bytes(b"replaced since")
    write_back(bound, tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx").read_bytes() == content


def test_external_data_that_were_changed_meanwhile_are_not_taken(cnn: Path, tmp_path: Path) -> None:
    outside(cnn, "conv_w")
    bound = to_torch(cnn)
    (tmp_path / "new").mkdir()
    with cnn.with_name("weights.bin").open("ab") as stream:
        stream.write(b"more")
    with pytest.raises(WriteError, match="was changed since it was read"):
        write_back(bound, tmp_path / "new" / "out.onnx")
    cnn.with_name("weights.bin").unlink()
    with pytest.raises(WriteError, match="cannot be read"):
        write_back(bound, tmp_path / "new" / "out.onnx")
    assert list((tmp_path / "new").iterdir()) == []


def test_weights_that_share_external_bytes_are_not_written(cnn: Path, tmp_path: Path) -> None:
    model = onnx.load(outside(cnn, "scale", "shift"), load_external_data=False)
    first, second = (t for t in model.graph.initializer if t.name in ("scale", "shift"))
    del second.external_data[:]
    second.external_data.extend(first.external_data)
    cnn.write_bytes(model.SerializeToString())
    (tmp_path / "new").mkdir()
    with pytest.raises(WriteError, match=r"'scale' and 'shift' share bytes of 'weights\.bin'"):
        write_back(shaken(to_torch(cnn)), tmp_path / "new" / "out.onnx")


@pytest.mark.slow  # reads three gigabytes of zeros a few times
def test_external_files_may_be_larger_than_protobuf_can_be(cnn: Path, tmp_path: Path) -> None:
    far = 3 * 2**30
    model = onnx.load(outside(cnn, "conv_w", "head_w"), load_external_data=False)
    entries = {
        entry.key: entry for t in model.graph.initializer if t.name == "head_w" for entry in t.external_data
    }
    data = cnn.with_name("weights.bin").read_bytes()[int(entries["offset"].value) :]
    with cnn.with_name("weights.bin").open("r+b") as stream:
        stream.seek(far)
        stream.write(data)
    entries["offset"].value = str(far)
    cnn.write_bytes(model.SerializeToString())
    (tmp_path / "new").mkdir()
    bound = to_torch(cnn)
    out = tmp_path / "new" / "out.onnx"
    write_back(shaken(bound), out)
    written = out.with_name("weights.bin").stat()
    assert written.st_size == far + len(data)
    assert written.st_blocks * 512 < far / 10  # holes stay holes
    found = diff(cnn, out)
    assert found.only_weights
    assert {"conv_w", "head_w"} <= {change.name for change in found.changes}
