"""ONNX's own backend test cases, and what becomes of one: right, refused, or wrong.

Right is: the outputs have the expected shape and dtype, and differ by at most rtol 1e-3, atol 1e-5.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.backend.test
import torch
from onnx import ModelProto, TensorProto, numpy_helper

from mothkit_converters import ConversionError, UnsupportedOpError, to_torch
from mothkit_converters.scopes import all_nodes

RTOL, ATOL = 1e-3, 1e-5
DATA = Path(onnx.backend.test.__file__).parent / "data"
KINDS = ("node", "light", "pytorch-converted", "pytorch-operator", "simple")
_CORE_TYPES = frozenset({1, 2, 3, 6, 7, 9, 10, 11, 16})  # float to bfloat16, bytes, the larger integers, bool
_CORE = frozenset(
    """
    Abs Acos Acosh Add AffineGrid And ArgMax ArgMin Asin Asinh Atan Atanh Attention AveragePool BatchNormalization
    Cast CastLike Ceil Celu Clip Concat Constant ConstantOfShape Conv ConvInteger ConvTranspose Cos Cosh CumSum
    DepthToSpace DequantizeLinear Div Dropout DynamicQuantizeLinear Einsum Elu Equal Erf Exp Expand EyeLike Flatten
    Floor GRU Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual
    GridSample GroupNormalization HardSigmoid HardSwish Hardmax Identity If InstanceNormalization IsInf IsNaN LRN
    LSTM LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax Loop LpNormalization LpPool MatMul
    MatMulInteger Max MaxPool Mean MeanVarianceNormalization Min Mish Mod Mul Neg NonZero Not OneHot Or PRelu Pad Pow
    QLinearConv QLinearMatMul QuantizeLinear RMSNormalization RNN Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum
    ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize
    RotaryEmbedding Round Scatter ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh Size Slice
    Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Swish Tan Tanh ThresholdedRelu Tile TopK
    Transpose Trilu Unsqueeze Upsample Where Xor
    """.split()  # noqa: SIM905 - a list of them would be a page
)


@dataclass(frozen=True, slots=True)
class Case:
    """A model with inputs and what it should make of them."""

    kind: str
    name: str
    model: ModelProto
    sets: Sequence[tuple[Sequence[Any], Sequence[Any]]]

    @property
    def is_core(self) -> bool:
        """Whether classifiers are made of its operators and types, and it is no training and no expanded twin."""
        if "_expanded" in self.name or "training_mode" in self.name:
            return False
        infos = (*self.model.graph.input, *self.model.graph.output)
        types = {info.type.tensor_type.elem_type for info in infos}  # 0 where it is no tensor
        return types <= _CORE_TYPES and {node.op_type for node in all_nodes(self.model.graph)} <= _CORE

    @property
    def opset(self) -> int:
        """The version of ONNX's own operators."""
        return next(
            (entry.version for entry in self.model.opset_import if entry.domain in ("", "ai.onnx")), 0
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a case, and why.

    ``right``; ``rounded``: off by at most two units in the last place of a half precision, more than rtol allows;
    ``refused``; or ``wrong``.
    """

    outcome: str
    why: str = ""


@cache
def cases() -> dict[str, Case]:
    """Return every case by ``kind/name``."""
    return {f"{case.kind}/{case.name}": case for case in [*_node_cases(), *_stored_cases()]}


def _node_cases() -> Iterator[Case]:
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = collect_testcases(None)
    for case in found:
        sets = [([_plain(x) for x in given], [_plain(x) for x in made]) for given, made in case.data_sets]
        yield Case("node", case.name, case.model, sets)


def _plain(value: object) -> object:
    """Return a tensor that is given as a message as an array."""
    return numpy_helper.to_array(value) if isinstance(value, TensorProto) else value


def _stored_cases() -> Iterator[Case]:
    for kind in KINDS[1:]:
        for path in sorted((DATA / kind).iterdir()):
            if path.suffix == ".onnx":
                yield _light_case(kind, path)
            elif (path / "model.onnx").exists():
                yield Case(kind, path.name, onnx.load(path / "model.onnx"), list(_read_sets(path)))


def _light_case(kind: str, path: Path) -> Case:
    """Return a case whose input is not stored: ONNX's own runner counts up to 1."""
    model = onnx.load(path)
    stored = {tensor.name for tensor in model.graph.initializer}
    (shape,) = (
        [dim.dim_value or 1 for dim in info.type.tensor_type.shape.dim]
        for info in model.graph.input
        if info.name not in stored
    )
    count = int(np.prod(shape))
    x = (np.arange(count).reshape(shape) / count).astype(np.float32)
    expected = _read(path.with_name(f"{path.stem}_output_0.pb").read_bytes())
    return Case(kind, path.stem, model, [([x], [expected])])


def _read_sets(folder: Path) -> Iterator[tuple[list[Any], list[Any]]]:
    for data in sorted(folder.glob("test_data_set_*")):
        yield _read_all(data, "input"), _read_all(data, "output")


def _read_all(folder: Path, role: str) -> list[Any]:
    files = sorted(folder.glob(f"{role}_*.pb"), key=lambda path: int(path.stem.rpartition("_")[2]))
    return [_read(path.read_bytes()) for path in files]


def _read(content: bytes) -> object:
    try:
        return numpy_helper.to_array(TensorProto.FromString(content))
    except Exception:  # a sequence or an optional: no tensor
        return content


def judge(case: Case) -> Verdict:
    """Return what ``to_torch`` makes of ``case``."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(case.model.SerializeToString())
        try:
            bound = to_torch(path, allow_unbound=True)
        except UnsupportedOpError as error:
            return Verdict("refused", f"{error.op}: {error.why}")
        except ConversionError as error:
            return Verdict("refused", str(error).removeprefix(f"{path}: "))
        except Exception as error:  # this is what the suite looks for
            return Verdict("wrong", f"import raised {type(error).__name__}: {error}")
    for given, expected in case.sets:
        if problem := _problem(bound, given, expected):
            return Verdict(*problem)
    return Verdict("right") if case.sets else Verdict("refused", "the case has no data")


def _problem(bound: torch.nn.Module, given: Sequence[Any], expected: Sequence[Any]) -> tuple[str, str] | None:
    try:
        inputs = [tensor_of(value) for value in given]
        with torch.no_grad():
            outputs = bound(*inputs)
    except UnsupportedOpError as error:
        return "refused", f"{error.op}: {error.why}"
    except ConversionError as error:
        return "refused", str(error)
    except Exception as error:
        return "wrong", f"running raised {type(error).__name__}: {' '.join(str(error).split())[:150]}"
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    if len(outputs) != len(expected):
        return "wrong", f"{len(outputs)} outputs, expected {len(expected)}"
    for index, (found, wanted) in enumerate(zip(outputs, expected, strict=True)):
        if problem := difference(found, wanted):
            return "rounded" if is_rounded(found, wanted) else "wrong", f"output {index}: {problem}"
    return None


def difference(found: object, wanted: object) -> str:
    """Return in what way ``found`` is not ``wanted``, empty where it is."""
    if isinstance(wanted, list) and isinstance(found, list) and len(found) == len(wanted):
        return next(filter(None, map(difference, found, wanted)), "")
    if wanted is None and found is None:
        return ""
    if not isinstance(wanted, np.ndarray | np.generic) or not isinstance(found, torch.Tensor):
        return f"is a {type(found).__name__}, expected {type(wanted).__name__}"
    wanted, values = np.asarray(wanted), array_of(found)
    if values.dtype != wanted.dtype:
        return f"dtype {values.dtype}, expected {wanted.dtype}"
    if values.shape != wanted.shape:
        return f"shape {values.shape}, expected {wanted.shape}"
    if values.dtype.kind in "biu":
        return "" if np.array_equal(values, wanted) else "values differ"
    a, b = values.astype(np.float64), wanted.astype(np.float64)
    if np.allclose(a, b, rtol=RTOL, atol=ATOL, equal_nan=True):
        return ""
    return f"values differ by up to {np.nanmax(np.abs(a - b), initial=0):.3g}"


def is_rounded(found: object, wanted: object) -> bool:
    """Return whether ``found`` is a tensor of half precision within two units in the last place of ``wanted``."""
    if not isinstance(found, torch.Tensor) or found.dtype not in (torch.float16, torch.bfloat16):
        return False
    expected = tensor_of(wanted)
    unit = torch.finfo(found.dtype).eps * expected.float().abs().log2().floor().exp2()
    return found.shape == expected.shape and bool(((found - expected).float().abs() <= 2 * unit).all())


def tensor_of(value: object) -> Any:  # noqa: ANN401 - as it comes
    """Return a numpy array as a tensor, also a bfloat16 one; a list as a list of them, and None as it is."""
    if value is None or isinstance(value, list):
        return None if value is None else [tensor_of(item) for item in value]
    value = np.asarray(value)
    if value.dtype.name == "bfloat16":
        return torch.from_numpy(value.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(np.array(value))


def array_of(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    """Return a tensor as a numpy array, also a bfloat16 one."""
    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype == torch.bfloat16:
        return (
            tensor.view(torch.int16).numpy().view(onnx.helper.tensor_dtype_to_np_dtype(TensorProto.BFLOAT16))
        )
    return tensor.numpy()
