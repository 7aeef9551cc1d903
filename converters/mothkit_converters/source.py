"""An ONNX file, read and checked. The file is a stranger's until this is done."""

from __future__ import annotations

import hashlib
import os
import weakref
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import ModelProto, TensorProto, ValueInfoProto

from mothkit_converters.errors import InvalidModelError, NotOnnxError, SourceError, TooLargeError
from mothkit_converters.external import Slot, load_external, weight_slots
from mothkit_converters.limits import check_content, check_nodes
from mothkit_converters.scopes import all_nodes, opsets_of, put_strays_home
from mothkit_converters.tensors import all_tensors, misfit, outline

STAMP_PREFIX = "mothkit."  # keys of the metadata that are ours
MAX_BYTES = 2**31 - 1  # of a model file: protobuf's own bound
_NEWEST = {
    "": onnx.defs.onnx_opset_version(),
    "ai.onnx": onnx.defs.onnx_opset_version(),
    "ai.onnx.ml": onnx.defs.onnx_ml_opset_version(),
}


@dataclass(frozen=True, slots=True)
class Value:
    """An input or output of the graph.

    Attributes:
        name: Its name in the graph.
        dtype: ONNX's name of its element type in lower case (``float``, ``float16``, ``uint8``), or None where
            it is no tensor.
        shape: Its dimensions: a number, a symbol, or None where nothing is said; None for an unknown rank.
    """

    name: str
    dtype: str | None
    shape: tuple[int | str | None, ...] | None


class _OpenFile:
    """A file that can be read again, even after it was deleted or replaced."""

    def __init__(self, path: Path) -> None:
        self._handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        weakref.finalize(self, os.close, self._handle)

    def read(self) -> bytes:
        """Return all that it holds."""
        with open(self._handle, "rb", closefd=False) as stream:
            stream.seek(0)
            return stream.read(min(os.fstat(self._handle).st_size, MAX_BYTES))


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """An ONNX file as it was read. Nothing here may be written to.

    Attributes:
        path: Where it was read from.
        proto: The model, with external data loaded.
        external: Size in bytes of each external file, by location.
        slots: Where the weights that are external data lie, by their names.
        digests: SHA-256 of each file, by name relative to the model's folder.
    """

    path: Path
    proto: ModelProto = field(repr=False)
    external: Mapping[str, int]
    slots: Mapping[str, Slot] = field(repr=False)
    digests: Mapping[str, str]
    _file: _OpenFile = field(repr=False)

    def __deepcopy__(self, memo: dict[int, Any]) -> Source:
        """Return itself: it never changes."""
        return self

    @property
    def content(self) -> bytes:
        """The model file's bytes, read again: beside the weights in ``proto`` they would double the memory.

        Raises:
            SourceError: The file was written to since it was first read, and ``proto`` does not give the same
                bytes. That it was deleted, or another put in its place, does not matter.
        """
        content = self._file.read()
        if hashlib.sha256(content).hexdigest() != self.sha256:
            content = b"" if self.external else self.proto.SerializeToString()
            if hashlib.sha256(content).hexdigest() != self.sha256:
                raise SourceError(self.path, "was written to since it was read; put the original back")
        return content

    @property
    def sha256(self) -> str:
        """SHA-256 of the model file, in hex."""
        return self.digests[self.path.name]

    @property
    def producer(self) -> str:
        """Name and version of what wrote the file, empty where it says nothing."""
        return f"{self.proto.producer_name} {self.proto.producer_version}".strip()

    @property
    def ir_version(self) -> int:
        """Version of the file format."""
        return self.proto.ir_version

    @property
    def opsets(self) -> dict[str, int]:
        """Operator set versions by domain; ONNX's own domain is the empty string."""
        return {entry.domain: entry.version for entry in self.proto.opset_import}

    @property
    def opset(self) -> int | None:
        """Version of ONNX's own operator set, None where the file imports none."""
        return self.opsets.get("", self.opsets.get("ai.onnx"))

    @property
    def inputs(self) -> tuple[Value, ...]:
        """What a caller must give, in order: graph inputs that are no initializers."""
        stored = {tensor.name for tensor in self.proto.graph.initializer}
        return tuple(_value(info) for info in self.proto.graph.input if info.name not in stored)

    @property
    def outputs(self) -> tuple[Value, ...]:
        """What the graph returns, in order."""
        return tuple(_value(info) for info in self.proto.graph.output)

    @property
    def metadata(self) -> dict[str, str]:
        """The model's metadata entries."""
        return {entry.key: entry.value for entry in self.proto.metadata_props}

    @property
    def operators(self) -> dict[str, int]:
        """How many nodes there are of each operator, most frequent first."""
        return dict(Counter(node.op_type for node in self.proto.graph.node).most_common())


def _value(info: ValueInfoProto) -> Value:
    if not info.type.HasField("tensor_type"):
        return Value(info.name, None, None)
    tensor = info.type.tensor_type
    dtype = TensorProto.DataType.Name(tensor.elem_type).lower()
    if not tensor.HasField("shape"):
        return Value(info.name, dtype, None)
    dims = tuple(
        dim.dim_value if dim.HasField("dim_value") else (dim.dim_param or None) for dim in tensor.shape.dim
    )
    return Value(info.name, dtype, dims)


def read_source(path: Path | str) -> Source:
    """Return the model in ``path``, checked.

    Args:
        path: An ONNX file; its external data, if any, lies in the same folder or below.

    Raises:
        NotOnnxError: The file is missing, a folder, empty, cut off, or no ONNX model.
        InvalidModelError: ONNX's checker refuses the model, or a tensor's data do not fit its shape.
        TooLargeError: The file, or its external data, are larger than 2 GiB.
        ExternalDataError: External data are missing, cut off, or outside the model's folder.
    """
    path = Path(path)
    file = _open(path)
    proto, sha256 = _parse_file(path, file)
    check_nodes(path, proto)
    slots = weight_slots(path, proto)
    external, digests = load_external(path, proto)
    _check_tensors(path, proto)
    _check_model(path, proto)
    return Source(path, proto, external, slots, {path.name: sha256, **digests}, file)


def _open(path: Path) -> _OpenFile:
    try:
        if not path.exists():
            raise NotOnnxError(path, "no such file; expected an ONNX model")
        if not path.is_file():
            raise NotOnnxError(path, "is not a file; expected an ONNX model, so name the .onnx file itself")
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise TooLargeError(
                path, f"{size} bytes; at most {MAX_BYTES} are read. Store its weights as external data"
            )
        return _OpenFile(path)
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> NotOnnxError:
    return NotOnnxError(path, f"cannot be read ({error.strerror}); expected an ONNX model")


def _parse_file(path: Path, file: _OpenFile) -> tuple[ModelProto, str]:
    """Return the model in ``file`` and its SHA-256; the bytes are let go."""
    try:
        content = file.read()
    except OSError as error:
        raise _unreadable(path, error) from error
    if not content:
        raise NotOnnxError(path, "is empty; expected an ONNX model, so fetch or export it again")
    check_content(path, content)
    return _parse(path, content), hashlib.sha256(content).hexdigest()


def _parse(path: Path, content: bytes) -> ModelProto:
    hint = "expected a whole ONNX model, so fetch or export it again"
    try:
        model: ModelProto = ModelProto.FromString(content)
    except DecodeError as error:
        raise NotOnnxError(path, f"is no ONNX model, or was cut off; {hint}") from error
    if not model.ir_version or not model.HasField("graph") or not model.graph.output:
        raise NotOnnxError(path, f"holds no ONNX graph; {hint}")
    return model


def _check_tensors(path: Path, model: ModelProto) -> None:
    """Raise InvalidModelError where a tensor stores another number of bytes than it should."""
    for tensor in all_tensors(model):
        try:
            problem = misfit(tensor)
        except ValueError as error:
            raise InvalidModelError(path, f"tensor '{tensor.name}': {error}") from error
        if problem:
            raise InvalidModelError(
                path,
                f"tensor '{tensor.name}' of shape {list(tensor.dims)}: {problem}. "
                "The file is damaged: fetch or export it again",
            )


def _check_model(path: Path, model: ModelProto) -> None:
    for entry in model.opset_import:  # the checker takes any number
        newest = _NEWEST.get(entry.domain)
        if newest is not None and entry.version > newest:
            raise InvalidModelError(
                path,
                f"imports opset {entry.version} of {entry.domain or 'ai.onnx'}; onnx {onnx.__version__} knows them "
                f"up to {newest}. Export it at an older one, or update onnx",
            )
    try:
        onnx.checker.check_model(_with_live_nodes(_with_ranks(outline(model, shapes=False))))
    except (onnx.checker.ValidationError, ValueError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise InvalidModelError(path, f"breaks ONNX's rules: {reason}. Export it again") from error


def _with_live_nodes(model: ModelProto) -> ModelProto:
    """Pass nodes off as their equals where the checker refuses a version as deprecated and onnxruntime runs it."""
    put_strays_home(model)
    for node in all_nodes(model.graph):
        if node.op_type == "GroupNormalization" and opsets_of(model).get(node.domain, 1) < 21:
            node.op_type = "InstanceNormalization"
            del node.attribute[:]
    return model


def _with_ranks(model: ModelProto) -> ModelProto:
    """Give outputs of unknown rank an empty shape: the checker asks for one where onnxruntime does without."""
    for info in model.graph.output:
        if info.type.HasField("tensor_type"):
            info.type.tensor_type.shape.SetInParent()
    return model
