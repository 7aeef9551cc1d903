"""An ONNX file, read and checked. The file is a stranger's until this is done."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import ModelProto, TensorProto, ValueInfoProto

from mothkit_converters.errors import ExternalDataError, InvalidModelError, NotOnnxError, TooLargeError
from mothkit_converters.tensors import all_tensors, byte_size, misfit

MAX_BYTES = 2**31 - 1  # protobuf's own bound; external files together are held to the same


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


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """An ONNX file as it was read. Nothing here may be written to.

    Attributes:
        path: Where it was read from.
        proto: The model, with external data loaded.
        content: The model file's bytes.
        external: Bytes of each external file, by location.
        digests: SHA-256 of each file, by name relative to the model's folder.
    """

    path: Path
    proto: ModelProto = field(repr=False)
    content: bytes = field(repr=False)
    external: Mapping[str, bytes] = field(repr=False)
    digests: Mapping[str, str]

    def __deepcopy__(self, memo: dict[int, Any]) -> Source:
        """Return itself: it never changes."""
        return self

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
    content = _read(path)
    stored = _parse(path, content)
    _check_text(path, stored)
    external = _read_external(path, stored)
    proto = _load(stored, external) if external else stored
    _check_tensors(path, proto)
    _check_model(path, proto)
    files = {path.name: content, **external}
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    return Source(path, proto, content, external, digests)


def _read(path: Path) -> bytes:
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
        content = path.read_bytes()
    except OSError as error:
        raise NotOnnxError(path, f"cannot be read ({error.strerror}); expected an ONNX model") from error
    if not content:
        raise NotOnnxError(path, "is empty; expected an ONNX model, so fetch or export it again")
    return content


def _parse(path: Path, content: bytes) -> ModelProto:
    hint = "expected a whole ONNX model, so fetch or export it again"
    try:
        model: ModelProto = ModelProto.FromString(content)
    except DecodeError as error:
        raise NotOnnxError(path, f"is no ONNX model, or was cut off; {hint}") from error
    if not model.ir_version or not model.HasField("graph") or not model.graph.output:
        raise NotOnnxError(path, f"holds no ONNX graph; {hint}")
    return model


def _check_text(path: Path, model: ModelProto) -> None:
    """Raise InvalidModelError where a name is no UTF-8; protobuf hands such text out as bytes."""
    graph = model.graph
    texts: list[object] = [graph.name, model.producer_name, model.producer_version]
    texts += [info.name for info in (*graph.input, *graph.output, *graph.value_info, *graph.initializer)]
    texts += [text for entry in model.metadata_props for text in (entry.key, entry.value)]
    texts += [entry.domain for entry in model.opset_import]
    for node in graph.node:
        texts += [node.name, node.op_type, node.domain, *node.input, *node.output]
        texts += [attribute.name for attribute in node.attribute]
    if broken := [text for text in texts if isinstance(text, bytes)]:
        raise InvalidModelError(path, f"holds the name {broken[0]!r}, which is no UTF-8. Export it again")


def _entries(tensor: TensorProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data}


def external_slot(tensor: TensorProto) -> tuple[str, int, int] | None:
    """Return location, offset and length in bytes of ``tensor``'s external data, None where it has none.

    Raises:
        ValueError: An entry is no number, negative, or not what shape and dtype need.
    """
    if tensor.data_location != TensorProto.EXTERNAL:
        return None
    entries, needed = _entries(tensor), byte_size(tensor)
    if needed is None:
        raise ValueError("strings cannot be external data")
    offset, length = int(entries.get("offset", 0)), int(entries.get("length", needed))
    if offset < 0 or length != needed:
        raise ValueError(f"offset {offset}, length {length}; shape {list(tensor.dims)} needs {needed} bytes")
    return entries.get("location", ""), offset, length


def external_locations(model: ModelProto) -> set[str]:
    """Return the names of the files that ``model``'s tensors point to."""
    outside = (tensor for tensor in all_tensors(model) if tensor.data_location == TensorProto.EXTERNAL)
    return {_entries(tensor).get("location", "") for tensor in outside}


def _read_external(path: Path, model: ModelProto) -> dict[str, bytes]:
    """Return the external files that ``model`` points to; every slot was checked to lie inside."""
    files: dict[str, bytes] = {}
    for tensor in all_tensors(model):
        try:
            slot = external_slot(tensor)
        except ValueError as error:
            raise ExternalDataError(path, f"external data of '{tensor.name}': {error}") from error
        if slot is None:
            continue
        location, offset, length = slot
        if location not in files:
            budget = MAX_BYTES - sum(map(len, files.values()))
            files[location] = _read_external_file(path, location, tensor.name, budget)
        if offset + length > len(files[location]):
            raise ExternalDataError(
                path,
                f"'{tensor.name}' needs bytes {offset} to {offset + length} of '{location}', which has only "
                f"{len(files[location])}; fetch that file again",
            )
    return files


def _read_external_file(path: Path, location: str, name: str, budget: int) -> bytes:
    posix, windows = PurePosixPath(location), PureWindowsPath(location)
    outside = posix.is_absolute() or windows.anchor or ".." in posix.parts or ".." in windows.parts
    folder = path.parent.resolve()
    file = folder / location
    if not location or "\0" in location or outside or not file.resolve().is_relative_to(folder):
        raise ExternalDataError(
            path, f"'{name}' points to '{location}', outside the model's folder; only files inside are read"
        )
    if not file.is_file():
        raise ExternalDataError(
            path, f"'{name}' is stored in '{location}', which is missing; put it beside the model"
        )
    if (size := file.stat().st_size) > budget:
        raise TooLargeError(
            path, f"'{location}' has {size} bytes; external data of at most {MAX_BYTES} are read"
        )
    try:
        return file.read_bytes()
    except OSError as error:
        raise ExternalDataError(path, f"'{location}' cannot be read ({error.strerror})") from error


def _load(stored: ModelProto, external: Mapping[str, bytes]) -> ModelProto:
    """Return a copy of ``stored`` with external data moved into it."""
    model = ModelProto()
    model.CopyFrom(stored)
    for tensor in all_tensors(model):
        if (slot := external_slot(tensor)) is not None:
            location, offset, length = slot
            tensor.raw_data = external[location][offset : offset + length]
            tensor.ClearField("data_location")
            tensor.ClearField("external_data")
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
    try:
        onnx.checker.check_model(_with_ranks(model))
    except (onnx.checker.ValidationError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InvalidModelError(path, f"breaks ONNX's rules: {reason}. Export it again") from error


def _with_ranks(model: ModelProto) -> ModelProto:
    """Return ``model`` as the checker wants it: it asks for a rank where onnxruntime does without."""
    unranked = [info for info in model.graph.output if not info.type.tensor_type.HasField("shape")]
    if not any(info.type.HasField("tensor_type") for info in unranked):
        return model
    ranked = ModelProto()
    ranked.CopyFrom(model)
    for info in ranked.graph.output:
        if info.type.HasField("tensor_type"):
            info.type.tensor_type.shape.SetInParent()
    return ranked
