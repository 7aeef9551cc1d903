import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from typer.testing import Result

Run = Callable[..., Result]
MakeModel = Callable[..., Path]


def test_a_file_does_not_differ_from_itself(run: Run, make_model: MakeModel) -> None:
    model = make_model()
    result = run("diff", model, model)
    assert result.exit_code == 0
    assert result.stdout == "0 of 3 initializers changed\neverything else is byte-identical\n"


def test_changed_weights_are_listed_with_their_norms(run: Run, make_model: MakeModel, tmp_path: Path) -> None:
    path, changed = make_model(), tmp_path / "changed.onnx"
    model = onnx.load(path)
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == "conv.bias")
    values = numpy_helper.to_array(bias).copy()
    values[:2] += np.float32([3.0, 4.0])
    bias.raw_data = values.tobytes()
    onnx.save(model, changed)
    result = run("diff", path, changed, "--json", "-")
    record = json.loads(result.stdout)
    assert (result.exit_code, record["only_weights"], record["identical"]) == (0, True, False)
    [change] = record["changes"]
    assert (change["name"], change["shape"]) == ("conv.bias", [5])
    assert np.allclose([change["l2"], change["max_abs"]], [5.0, 4.0], rtol=1e-5)
    assert "1 of 3 initializers changed" in result.stderr
    assert "everything else is byte-identical" in result.stderr


def test_anything_else_that_differs_is_named_and_exits_with_1(run: Run, make_model: MakeModel) -> None:
    result = run("diff", make_model(), make_model("other.onnx", tail=None, producer="another test"))
    assert result.exit_code == 1
    assert "byte-identical" not in result.stdout
    assert "differs: the producer's name" in result.stdout


def test_a_file_that_is_no_model_is_named(run: Run, make_model: MakeModel, tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("no model")
    result = run("diff", make_model(), tmp_path / "text.onnx")
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert "text.onnx" in result.stderr
