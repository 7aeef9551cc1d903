"""An ONNX file as a torch module whose parameters are the file's weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from onnx import defs
from torch import Tensor, fx, nn

from mothkit_converters.assembly import ORIGIN, Assembly
from mothkit_converters.binding import Binding, Role
from mothkit_converters.canonical import canonicalise
from mothkit_converters.errors import (
    BatchError,
    ConversionError,
    InvalidModelError,
    RunError,
    UnboundWeightsError,
    UnsupportedOpError,
)
from mothkit_converters.halves import declared_halves
from mothkit_converters.mixing import mixes, steps
from mothkit_converters.ops import overrides
from mothkit_converters.ops.registry import schema_version
from mothkit_converters.scopes import opsets_of
from mothkit_converters.source import Source, read_source
from mothkit_converters.tensors import HALVES, weight_tensors

_FAULTS = (
    RuntimeError,
    ValueError,
    IndexError,
    KeyError,
    TypeError,
    AttributeError,
    ArithmeticError,
    AssertionError,
)
_BOUND = frozenset({Role.WEIGHT, Role.STATISTIC, Role.CONSTANT})


class BoundModule(nn.Module):
    """A graph as a torch module, each float initializer tied to one parameter or buffer.

    Attributes:
        source: The file that it came from.
        ties: What each bound initializer is tied to, by its name; also of those that are not trained.
        unbound: Weights that stay as they are, because no tie holds.
        input_names: What ``forward`` takes, in order.
        output_names: What it returns, in order.
    """

    def __init__(
        self,
        network: fx.GraphModule,
        source: Source,
        *,
        unbound: Sequence[str],
        input_names: Sequence[str],
        output_names: Sequence[str],
        halves: Mapping[str, torch.dtype],
    ) -> None:
        super().__init__()
        self.network = network
        self.source = source
        self.ties: Mapping[str, Binding] = {}
        self.unbound = tuple(unbound)
        self.input_names = tuple(input_names)
        self.output_names = tuple(output_names)
        self._half_inputs = tuple(halves.get(name) for name in self.input_names)
        self._half_outputs = tuple(halves.get(name) for name in self.output_names)
        declared = {value.name: value.shape for value in source.inputs}
        self._declared = tuple(declared.get(name) for name in self.input_names)
        self._mixes: bool | None = None  # whether another batch size mixes images; None before that was tried

    @property
    def bindings(self) -> dict[str, nn.Parameter]:
        """The parameter of each trainable weight, by its initializer's name."""
        found = {name: self.tensor(name) for name, tie in self.ties.items() if tie.trainable}
        return {name: tensor for name, tensor in found.items() if isinstance(tensor, nn.Parameter)}

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return the graph's output for its inputs, or a tuple in the graph's order.

        The network computes in float32 what the file has in half precision. Fed as the file declares it
        answers as the file declares; fed float32 in the place of halves it answers in float32.

        Raises:
            ConversionError: The number of inputs is wrong.
            BatchError: The file fixes another batch size, and images would be mixed or cannot be computed.
            RunError: An input has not the shape that the file declares, or cannot be computed.
            UnsupportedOpError: The values ask an operator for something that cannot be right.
        """
        if len(inputs) != len(self.input_names):
            raise ConversionError(
                f"{self.source.path}: called with {len(inputs)} inputs; expected {list(self.input_names)}"
            )
        widened = [
            x if half is None else x.float() for x, half in zip(inputs, self._half_inputs, strict=True)
        ]
        as_declared = all(
            half is None or x.dtype == half for x, half in zip(inputs, self._half_inputs, strict=True)
        )
        try:
            self._check_batch(widened)
            outputs: tuple[Tensor, ...] = self.network.forward(*widened)  # a call prints where it fails
        except UnsupportedOpError as error:
            raise _located(error, self.source) from error
        except (ConversionError, torch.OutOfMemoryError):
            raise
        except _FAULTS as error:
            self._explain(inputs, widened, error)
        self._check_shapes(inputs)  # at last: an operator that fails says more
        if as_declared and any(self._half_outputs):
            outputs = tuple(
                y if half is None else y.to(half) for y, half in zip(outputs, self._half_outputs, strict=True)
            )
        return outputs[0] if len(outputs) == 1 else outputs

    def _check_shapes(self, inputs: Sequence[Tensor]) -> None:
        """Raise a RunError where an input is not as large as the file says, whatever its batch size.

        What the file computes from its own sizes is computed no more, and onnxruntime would not take it either.
        """
        for x, declared in zip(inputs, self._declared, strict=True):
            if not isinstance(x, Tensor) or declared is None:
                continue
            pairs = [*zip(x.shape, declared, strict=False)][1:]
            if x.dim() != len(declared) or any(
                isinstance(n, int) and n > 0 and size != n for size, n in pairs
            ):
                raise self._run_error(inputs, "another shape is declared")

    def _check_batch(self, inputs: Sequence[Tensor]) -> None:
        """Raise a BatchError where the batch size is not the file's, and images would be mixed; ask once.

        While a compiler traces the network nothing is asked.
        """
        if torch.compiler.is_compiling():
            return
        places = [
            place for place, x in enumerate(inputs) if self._fixed_size(place) not in (None, _length(x))
        ]
        if not places:
            return
        if self._mixes is None:
            size, stepping = self._fixed_size(places[0]) or 1, steps(self.source.proto.graph)
            self._mixes = mixes(self.network, inputs, size, places, stepping=stepping)
        if self._mixes:
            raise self._batch_error(inputs)

    def _fixed_size(self, place: int) -> int | None:
        """Return the batch size that the file fixes for an input."""
        size = next(iter(self._declared[place] or ()), None)
        return size if isinstance(size, int) and size > 0 else None

    def _explain(self, inputs: Sequence[Tensor], widened: Sequence[Tensor], error: Exception) -> NoReturn:
        """Raise a BatchError in place of ``error`` where the batch size is not the one in the file, else a RunError."""
        if self._declared and self._fixed_size(0) not in (None, _length(inputs[0])):
            raise self._batch_error(inputs) from error
        reason = " ".join(str(error).split())[:200]
        where = _failing_node(self.network, widened)
        raise self._run_error(inputs, f"{where}{type(error).__name__}: {reason}") from error

    def _batch_error(self, inputs: Sequence[Tensor]) -> BatchError:
        return BatchError(
            f"{self.source.path}: called with batch size {_length(inputs[0])}, and the file fixes "
            f"{self._fixed_size(0)}. Call with that batch size, or export the model with a dynamic one"
        )

    def _run_error(self, inputs: Sequence[Tensor], reason: str) -> RunError:
        given = ", ".join(f"{x.dtype} {list(x.shape)}".removeprefix("torch.") for x in inputs)
        declared = zip(self.input_names, self._declared, strict=True)
        return RunError(
            f"{self.source.path}: cannot be computed on {given} ({reason}); expected "
            f"{', '.join(f'{name} {list(shape or ())}' for name, shape in declared)}"
        )

    def tensor(self, initializer: str) -> Tensor:
        """Return the parameter or buffer that is bound to ``initializer``."""
        owner, _, leaf = self.ties[initializer].torch_name.rpartition(".")
        found: Tensor = getattr(self.get_submodule(owner), leaf)
        return found


class _Follower(fx.Interpreter):
    """Runs a network node by node and remembers at which it is."""

    at: fx.Node | None = None

    def run_node(self, n: fx.Node) -> Any:  # noqa: ANN401 - as torch has it
        self.at = n
        return super().run_node(n)


def _failing_node(network: fx.GraphModule, inputs: Sequence[Tensor]) -> str:
    """Return where ``network`` fails on ``inputs``, empty where it does not a second time."""
    follower = _Follower(network)
    follower.extra_traceback = False  # it would print
    try:
        with torch.no_grad():
            follower.run(*inputs)
    except _FAULTS:
        found = follower.at and follower.at.meta.get(ORIGIN)
        return f"{found}: " if found else ""
    return ""


def _length(x: Tensor) -> int | None:
    """Return the first dimension of ``x``, None where it has none."""
    return x.shape[0] if isinstance(x, Tensor) and x.dim() else None  # len() would fix a free size


def to_torch(
    path_or_source: Path | str | Source,
    *,
    outputs: Sequence[str] | None = None,
    allow_unbound: bool = False,
) -> BoundModule:
    """Return the model as a torch module in eval mode, on the CPU.

    Args:
        path_or_source: An ONNX file, or one that was read.
        outputs: Names of values to return in place of the graph's outputs. Any value of the graph will
            do, and what comes after it need not be supported. Unless named, outputs of words are left out; maps
            from label to score are returned as rows of scores.
            Inputs that the values so named do not depend on are left out.
        allow_unbound: Whether weights may be left untrainable.

    Raises:
        SourceError: The file cannot be taken, is broken, or has no such values.
        UnsupportedOpError: An operator cannot be served.
        UnboundWeightsError: A weight cannot be trained and written back, and that was not allowed.
    """
    source = path_or_source if isinstance(path_or_source, Source) else read_source(path_or_source)
    names = _outputs_without_words(source) if outputs is None else list(outputs)
    stored = weight_tensors(source.proto.graph)
    with overrides():
        try:
            shadow = canonicalise(source, names, keep_inputs=outputs is None)
            assembly = Assembly(shadow.model, stored, shadow.derived)
        except UnsupportedOpError as error:
            raise _located(error, source) from error
        except (ConversionError, MemoryError):
            raise
        except Exception as error:  # of a file that passed every check and is broken all the same
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            raise InvalidModelError(source.path, f"makes no network ({reason}). Export it again") from error
    if assembly.unbound and not allow_unbound:
        raise UnboundWeightsError(source.path, assembly.unbound, assembly.integers)
    inputs = [info.name for info in shadow.model.graph.input]
    bound = BoundModule(
        assembly.network,
        source,
        unbound=assembly.unbound,
        input_names=inputs,
        output_names=names,
        halves=declared_halves(source, [*inputs, *names]),
    )
    widened = {name for name, tensor in stored.items() if tensor.data_type in HALVES}
    bound.ties = _bindings(bound, assembly, widened)
    return bound.eval()


def _outputs_without_words(source: Source) -> list[str]:
    """Return the names of the graph's outputs; of words, which torch has none of, only where there is nothing else."""
    names = [value.name for value in source.outputs]
    return [value.name for value in source.outputs if value.dtype != "string"] or names


def _located(error: UnsupportedOpError, source: Source) -> UnsupportedOpError:
    """Return ``error`` with the file, and with the version of the operator's schema there."""
    version = error.version
    for domain, opset in opsets_of(source.proto).items() if version is None else ():
        if defs.has(error.op, "" if domain == "ai.onnx" else domain):
            version = schema_version(error.op, opset, "" if domain == "ai.onnx" else domain)
    return UnsupportedOpError(error.op, error.node, error.why, path=source.path, version=version)


def _bindings(bound: BoundModule, assembly: Assembly, halves: set[str]) -> dict[str, Binding]:
    """Return the tie of each initializer that the network holds and the file can take back."""
    held = [*bound.named_parameters(), *bound.named_buffers()]
    torch_names = {id(tensor): name for name, tensor in held}
    return {
        name: Binding(
            initializer=name,
            torch_name=torch_names[id(tensor)],
            role=assembly.roles[name],
            transform="float32" if name in halves else "identity",
        )
        for name, tensor in assembly.tensors.items()
        if id(tensor) in torch_names and assembly.roles[name] in _BOUND
    }
