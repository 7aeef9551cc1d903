"""A fresh ONNX file from a torch module, through torch.onnx: where there is no file to write weights back into."""

from __future__ import annotations

import copy
import logging
import re
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.checker
import onnx.version_converter
import torch
from numpy.typing import NDArray
from onnx import ModelProto, helper
from torch import Tensor, nn

from mothkit_converters.errors import ConversionError, ExportError
from mothkit_converters.importer import BoundModule
from mothkit_converters.scopes import all_graphs, all_nodes, opsets_of
from mothkit_converters.source import MAX_BYTES, STAMP_PREFIX, Source, Value
from mothkit_converters.tensors import array_of
from mothkit_converters.writer import check_file, replace_files

EXPORT_KEY = f"{STAMP_PREFIX}export"  # in the metadata of a file that is no copy of another
LOWEST_OPSET = 18  # what torch.onnx writes of its own; to older ones, onnx's version converter leads
RTOL, ATOL = 1e-3, 1e-4
_NEWEST_OPSET = 23  # that is chosen unasked
_SMALLEST_FREE = 2  # torch.export takes a size of 1 for one that is fixed
_DTYPES = {
    "float": torch.float32,
    "double": torch.float64,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
_DTYPES |= {"int64": torch.int64, "int32": torch.int32, "uint8": torch.uint8, "int8": torch.int8}
_OTHERS_WARNINGS = (
    r"# The axis name: .* will not be used",  # torch.onnx, of inputs that share their batch
    r"_check_is_size will be removed",  # torch, of its own recurrent layers
    r"The tensor attributes? .* assigned during export",  # torch, of its own recurrent layers
)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a fresh file is to be."""

    path: Path
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    batch: str | None  # the name of the first axis where it is free
    opset: int


def export(
    module: nn.Module,
    path: Path | str,
    *,
    example_inputs: Sequence[Tensor] | None = None,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    dynamic_batch: bool = True,
    opset: int | None = None,
    source: Source | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write ``module``, in eval mode, as a new ONNX file, checked in onnxruntime against the module itself.

    The graph is another than that of a file which the module came from; names of inputs, outputs and weights are
    kept, and weights are not merged. The metadata says that the file is a fresh export.

    Args:
        module: Any module of tensors that torch.export takes, on any device; also what ``to_torch`` returned.
        path: Where to write. A file that stands there is replaced, at the very end.
        example_inputs: What ``module`` is called with. Unless given, random numbers of the shapes that
            ``source`` declares.
        input_names: Names of the inputs; those of ``source`` unless given, else ``input_0`` and so on.
        output_names: Names of the outputs; those of a module from a file unless given, else ``output_0`` and so on.
        dynamic_batch: Whether the first axis of the inputs is to be of any size. It then is checked at two.
        opset: What the file imports; that of ``source`` unless given, and 18 where that is older or there is none.
        source: The file that the module came from, whose metadata are kept; a ``BoundModule`` knows its own.
        metadata: Entries for the file's metadata; keys begin with ``mothkit.``.

    Raises:
        ExportError: onnxscript is missing, torch or onnxruntime cannot take the module, or the file would not be
            what was asked for.
        WriteError: The place cannot be written to, or is that of ``source``.
    """
    path = Path(path)
    check_export(path)
    source = module.source if source is None and isinstance(module, BoundModule) else source
    check_file(path, source)
    network = _Positional(copy.deepcopy(module).eval().cpu().requires_grad_(requires_grad=False))
    declared = () if source is None else source.inputs
    inputs = _drawn(path, declared) if example_inputs is None else [x.detach().cpu() for x in example_inputs]
    if dynamic_batch:
        inputs = _of_size(inputs, max(_SMALLEST_FREE, len(inputs[0])))
    outputs = _run(network, inputs, path)
    known = module.output_names if isinstance(module, BoundModule) else ()
    asked = _Asked(
        path,
        _names(path, "input", len(inputs), input_names or [value.name for value in declared]),
        _names(path, "output", len(outputs), output_names or known),
        _axis(declared) if dynamic_batch else None,
        _usual_opset(source) if opset is None else opset,
    )
    model = _finished(_translated(network, inputs, asked), module, asked)
    helper.set_model_props(model, _metadata(source, metadata or {}))
    _check(model, network, inputs, asked)
    replace_files(path, {path.name: iter([model.SerializeToString()])})


def check_export(path: Path) -> None:
    """Check, before any work, that a fresh file can be made for ``path``.

    Raises:
        ExportError: onnxscript is missing.
    """
    if find_spec("onnxscript") is None:
        raise ExportError(
            path, "a fresh export needs onnxscript; install it with pip install 'mothkit[export]'"
        )


_PREFIX = "module."  # of names within what follows


class _Positional(nn.Module):
    """Calls a module on tensors in order, and returns a tuple of tensors."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return all that the module returns."""
        found = self.module(*inputs)
        if isinstance(found, Tensor):
            return (found,)
        return tuple(found.values()) if isinstance(found, Mapping) else tuple(found)


def _drawn(path: Path, declared: Sequence[Value]) -> list[Tensor]:
    """Return random inputs of the shapes that are ``declared``; an unknown first axis is of any size."""
    generator = torch.Generator().manual_seed(0)
    inputs = []
    for value in declared:
        shape = [
            _SMALLEST_FREE if i == 0 and not isinstance(d, int) else d
            for i, d in enumerate(value.shape or ())
        ]
        dtype = _DTYPES.get(value.dtype or "")
        if value.shape is None or dtype is None or not all(isinstance(dim, int) for dim in shape):
            raise ExportError(
                path, f"example_inputs are needed: '{value.name}' is {value.dtype} {value.shape}"
            )
        sizes = [dim for dim in shape if isinstance(dim, int)]
        numbers = torch.rand(sizes, generator=generator)
        inputs.append(numbers.to(dtype) if dtype.is_floating_point else (2 * numbers).to(dtype))
    if not inputs:
        raise ExportError(path, "example_inputs are needed: nothing says what the module takes")
    return inputs


def _names(path: Path, stem: str, count: int, given: Sequence[str]) -> tuple[str, ...]:
    """Return a name for each of ``count`` inputs or outputs: those ``given``, else numbered ones."""
    if not given:
        return (stem,) if count == 1 else tuple(f"{stem}_{i}" for i in range(count))
    if len(given) != count or len(set(given)) != count:
        raise ExportError(path, f"the module has {count} {stem}(s), and their names are {list(given)}")
    return tuple(given)


def _usual_opset(source: Source | None) -> int:
    own = 0 if source is None else source.opset or 0
    return min(max(own, LOWEST_OPSET), _NEWEST_OPSET)


def _axis(declared: Sequence[Value]) -> str:
    """Return the name of the first axis: the file's own where it has one."""
    shape = declared[0].shape if declared else None
    return shape[0] if shape and isinstance(shape[0], str) and shape[0].isidentifier() else "batch"


def _batched(inputs: Sequence[Tensor]) -> list[bool]:
    """Return which inputs share the first one's first axis."""
    return [x.dim() > 0 and inputs[0].dim() > 0 and len(x) == len(inputs[0]) for x in inputs]


def _of_size(inputs: Sequence[Tensor], size: int) -> list[Tensor]:
    """Return ``inputs`` with ``size`` rows, repeated or cut."""
    rows = torch.arange(size) % len(inputs[0])
    return [x[rows] if batched else x for x, batched in zip(inputs, _batched(inputs), strict=True)]


def _run(network: nn.Module, inputs: Sequence[Tensor], path: Path) -> tuple[Tensor, ...]:
    try:
        with torch.no_grad():
            found: tuple[Tensor, ...] = network(*inputs)
    except (ConversionError, RuntimeError, TypeError, ValueError, IndexError) as error:
        shapes = [list(x.shape) for x in inputs]
        why = f"the module cannot be run on inputs {shapes} ({_first_line(error)})"
        raise ExportError(path, f"{why}; give other example_inputs, or dynamic_batch=False") from error
    return found


def _translated(network: nn.Module, inputs: Sequence[Tensor], asked: _Asked) -> ModelProto:
    """Return what torch.onnx makes of ``network``, at the opset asked for or the lowest above it."""
    free = {0: torch.export.Dim.DYNAMIC}
    shapes = tuple(free if asked.batch and batched else None for batched in _batched(inputs))
    with _hushed(), torch.no_grad():
        try:
            captured = torch.export.export(network, tuple(inputs), dynamic_shapes=(shapes,), strict=False)
            program = torch.onnx.export(
                captured,
                dynamo=True,
                optimize=False,  # it would merge normalisations into the convolutions before them
                verbose=False,
                opset_version=max(asked.opset, LOWEST_OPSET),
                input_names=asked.input_names,
                output_names=asked.output_names,
            )
        except Exception as error:  # whatever torch stumbles over
            why = _first_line(_innermost(error))
            raise ExportError(asked.path, f"torch cannot export the module: {why}") from error
    assert program is not None  # noqa: S101 - it is, unless torch was asked to write a file
    return _folded(program.model, {name for name, _ in network.named_parameters()})


def _folded(model: Any, weights: Collection[str]) -> ModelProto:  # noqa: ANN401 - onnx-ir's, untyped here
    """Return ``model`` with constants folded, each weight left as it is."""
    import onnx_ir
    from onnx_ir.passes import common
    from onnxscript import optimizer

    def keeps(node: Any) -> bool | None:  # noqa: ANN401 - onnx-ir's
        return False if any(x is not None and x.name in weights for x in node.inputs) else None

    optimizer.fold_constants_ir(model, should_fold=keeps)
    for tidy in (
        common.InlinePass(),
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedFunctionsPass(),  # type: ignore[no-untyped-call]
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.CommonSubexpressionEliminationPass(),
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedOpsetsPass(),
        common.ClearMetadataAndDocStringPass(),  # it tells where on this machine torch's code lies
    ):
        tidy(model)
    proto: ModelProto = onnx_ir.to_proto(model)
    return proto


@contextmanager
def _hushed() -> Iterator[None]:
    """Keep torch from printing a failing graph: what failed is raised."""
    log = logging.getLogger("torch.export._trace")
    was, log.disabled = log.disabled, True
    try:
        with redirect_stderr(StringIO()), redirect_stdout(StringIO()), warnings.catch_warnings():
            for message in _OTHERS_WARNINGS:
                warnings.filterwarnings("ignore", message)
            yield
    finally:
        log.disabled = was


def _finished(model: ModelProto, module: nn.Module, asked: _Asked) -> ModelProto:
    """Return ``model`` at the opset asked for, with the names that it is to have."""
    if (found := opsets_of(model).get("", 0)) != asked.opset:
        model = _at_opset(model, found, asked)
    _name_weights(model, module)
    _drop_zero_biases(model)
    if asked.batch:
        _name_axis(model, asked)
    return model


def _metadata(source: Source | None, given: Mapping[str, str]) -> dict[str, str]:
    """Return what the file says of itself: what ``source`` says, without what we may have said there."""
    kept = {} if source is None else source.metadata
    others = {key: value for key, value in kept.items() if not key.startswith(STAMP_PREFIX)}
    return others | dict(given) | {EXPORT_KEY: "torch"}


def _at_opset(model: ModelProto, found: int, asked: _Asked) -> ModelProto:
    try:
        moved = onnx.version_converter.convert_version(model, asked.opset)
    except (RuntimeError, ValueError, onnx.checker.ValidationError) as error:
        why = f"opset {asked.opset} cannot be had ({_first_line(error)})"
        raise ExportError(asked.path, f"{why}; ask for {found} or newer") from error
    if opsets_of(moved).get("", 0) != asked.opset:
        raise ExportError(asked.path, f"opset {asked.opset} cannot be had; ask for {found} or newer")
    return moved


def _name_weights(model: ModelProto, module: nn.Module) -> None:
    """Call each weight as the module does, or as the file that the module came from."""
    ties = module.ties.values() if isinstance(module, BoundModule) else ()
    initializers = {tie.torch_name: tie.initializer for tie in ties}
    graph = model.graph
    taken = {name for node in all_nodes(graph) for name in node.output}
    taken |= {info.name for info in graph.input} | {tensor.name for tensor in graph.initializer}
    renamed = {}
    for tensor in graph.initializer:
        own = tensor.name.removeprefix(_PREFIX)
        name = initializers.get(own, own)
        if name not in taken:
            renamed[tensor.name] = tensor.name = name
            taken.add(name)
    for node in all_nodes(graph):
        node.input[:] = [renamed.get(name, name) for name in node.input]


def _drop_zero_biases(model: ModelProto) -> None:
    """Take off the zeros that torch.onnx gives a convolution without bias: they would be trained as weights."""
    made = {tensor.name: tensor for tensor in model.graph.initializer if tensor.name.startswith("val_")}
    for node in all_nodes(model.graph):
        last = made.get(node.input[-1]) if node.op_type == "Conv" and len(node.input) == 3 else None
        if last is not None and not array_of(last).any():
            node.input.pop()
    read = {name for node in all_nodes(model.graph) for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in read or tensor.name not in made]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


def _name_axis(model: ModelProto, asked: _Asked) -> None:
    """Give the first axis its name, where the inputs have it and wherever it goes."""
    symbols = set()
    for info in model.graph.input:
        dims = info.type.tensor_type.shape.dim
        if dims and dims[0].dim_param:
            symbols.add(dims[0].dim_param)
    first = model.graph.input[0].type.tensor_type.shape.dim
    if not first or not first[0].dim_param:
        raise ExportError(asked.path, "the module fixes its batch size; pass dynamic_batch=False")
    pattern = re.compile(rf"\b({'|'.join(map(re.escape, symbols))})\b")
    for graph in all_graphs(model.graph):
        for info in (*graph.input, *graph.output, *graph.value_info):
            for dim in info.type.tensor_type.shape.dim:
                if dim.dim_param:
                    dim.dim_param = pattern.sub(str(asked.batch), dim.dim_param)


def _check(model: ModelProto, network: nn.Module, inputs: Sequence[Tensor], asked: _Asked) -> None:
    """Raise ExportError unless onnxruntime takes ``model`` and it gives what ``network`` does."""
    if model.ByteSize() > MAX_BYTES:
        raise ExportError(
            asked.path, f"the graph takes {model.ByteSize()} bytes; at most {MAX_BYTES} are written"
        )
    try:
        onnx.checker.check_model(model)
        run = _session(model)
    except Exception as error:  # onnxruntime's errors share no base class
        raise ExportError(asked.path, f"the new graph is refused: {_first_line(error)}") from error
    for size in (1, len(inputs[0]) + 1) if asked.batch else (None,):
        given = inputs if size is None else _of_size(inputs, size)
        expected = [y.numpy() for y in _run(network, given, asked.path)]
        try:
            found = run(dict(zip(asked.input_names, (x.numpy() for x in given), strict=True)))
        except Exception as error:
            raise ExportError(asked.path, f"the new graph fails: {_first_line(error)}") from error
        _compare(found, expected, asked)


def _session(model: ModelProto) -> Callable[[Mapping[str, NDArray[Any]]], list[NDArray[Any]]]:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4  # fatal errors only: the others are raised
    options.intra_op_num_threads = torch.get_num_threads()
    providers = ["CPUExecutionProvider"]
    session = ort.InferenceSession(model.SerializeToString(), options, providers=providers)
    return lambda given: session.run(None, given)


def _compare(found: Sequence[NDArray[Any]], expected: Sequence[NDArray[Any]], asked: _Asked) -> None:
    for name, ours, theirs in zip(asked.output_names, found, expected, strict=True):
        if (ours.shape, ours.dtype) != (theirs.shape, theirs.dtype):
            what = f"{ours.dtype} {list(ours.shape)}, expected {theirs.dtype} {list(theirs.shape)}"
            raise ExportError(asked.path, f"the new graph's '{name}' is {what}")
        if not np.allclose(ours, theirs, rtol=RTOL, atol=ATOL, equal_nan=True):
            off = float(np.abs(ours.astype(np.float64) - theirs).max())
            raise ExportError(
                asked.path, f"the new graph's '{name}' differs from the module's by up to {off:.3g}"
            )


def _innermost(error: BaseException) -> BaseException:
    """Return what was raised first: what torch wraps says more than its wrapping."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
