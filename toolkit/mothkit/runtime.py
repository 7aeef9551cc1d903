"""onnxruntime sessions: the device that was asked for or an error, batches of bounded size."""

import copy
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import Tensor

from mothkit.classifier import as_logits, check_scores
from mothkit.errors import DeviceError, ModelError
from mothkit.inputs import InputSpec
from mothkit_converters import Source, SourceError, expose, inputs_of

_BATCH = 256
_EXTERNAL_FOLDER = "session.model_external_initializers_file_folder_path"
_QUIET = 4  # fatal errors only: the others are raised
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_OF_GPU = re.compile("CUDA|Tensorrt|NvTensorRt", re.IGNORECASE)
_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}


def repeatable() -> AbstractContextManager[None]:
    """Keep cuDNN, within this context, to kernels that give the same result each time; the CPU's do anyway."""
    context: AbstractContextManager[None] = torch.backends.cudnn.flags(
        enabled=torch.backends.cudnn.enabled, benchmark=False, deterministic=True
    )
    return context


def pick_device(text: str) -> torch.device:
    """Return the device that ``auto``, ``cpu``, ``cuda`` or ``cuda:N`` means here.

    Raises:
        DeviceError: it is none of these, or CUDA was asked for and torch sees no such GPU.
    """
    if text == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    if text == "cpu":
        return torch.device("cpu")
    match = re.fullmatch(r"cuda(?::(\d+))?", text)
    if match is None:
        raise DeviceError(f"device is {text!r}, none of auto, cpu, cuda, cuda:N")
    index, count = int(match[1] or 0), torch.cuda.device_count()  # torch.device would wrap a large index
    if index >= count:
        raise DeviceError(
            f"--device {text}: torch sees {count} CUDA devices; use --device cpu, or see mothkit doctor"
        )
    return torch.device("cuda", index)


class Session:
    """One ONNX graph in onnxruntime, from pixels to the values asked for.

    Args:
        provider: onnxruntime's name of what runs it; None takes that of the device.

    Attributes:
        providers: what onnxruntime really runs on, first choice first.
    """

    def __init__(
        self,
        source: Source,
        spec: InputSpec,
        outputs: Sequence[str],
        device: torch.device,
        *,
        provider: str | None = None,
    ) -> None:
        self._source, self._spec, self._outputs = source, spec, list(outputs)
        self._session = _open(source, self._outputs, device, provider or _PROVIDERS[device.type])
        self.providers: tuple[str, ...] = tuple(self._session.get_providers())
        node, *self._unread = _image_first(source, self._session.get_inputs(), outputs)
        self._input, self._batch = node.name, node.shape[0] if isinstance(node.shape[0], int) else None
        if node.type not in _TYPES:
            raise ModelError(
                f"{source.path}: the input {node.name!r} is a {node.type}; expected a float tensor"
            )
        self._dtype = _TYPES[node.type]

    def reading(self, spec: InputSpec) -> "Session":
        """Return this session, not opened again, with pixels that become the input as ``spec`` says."""
        other = copy.copy(self)
        vars(other)["_spec"] = spec
        return other

    def values(self, x: Tensor) -> list[NDArray[np.generic]]:
        """Return the values asked for, for pixels ``x`` [N, C, H, W], 0..1, in one run where the graph allows.

        Raises:
            ModelError: onnxruntime fails.
        """
        fed = self._spec.to_model(x.float().cpu()).numpy().astype(self._dtype)
        size = self._batch or len(fed)
        parts = [self._run(fed[first : first + size]) for first in range(0, len(fed), size)]
        return [np.concatenate(column) for column in zip(*parts, strict=True)] if len(parts) > 1 else parts[0]

    def logits(self, x: Tensor, batch: int = _BATCH) -> Tensor:
        """Return the first value as logits, float32 [N, classes], computed ``batch`` images at a time.

        Raises:
            ModelError: onnxruntime fails, or the value is no row of finite scores for each image.
        """
        rows = []
        for first in range(0, len(x), batch):
            part = x[first : first + batch]
            value = self.values(part)[0]
            check_scores(value.shape, len(part), f"{self._source.path}: the value {self._outputs[0]!r}")
            rows.append(as_logits(torch.from_numpy(np.asarray(value, dtype=np.float32))))
        logits = torch.cat(rows)
        if not bool(logits.isfinite().all()):
            bad = int((~logits.isfinite()).any(1).sum())
            raise ModelError(
                f"{self._source.path}: {bad} of {len(logits)} images give scores that are NaN or infinite; "
                "check --preprocess, or the file is damaged"
            )
        return logits

    def _run(self, fed: NDArray[np.generic]) -> list[NDArray[np.generic]]:
        count, size = len(fed), self._batch or len(fed)
        if count < size:  # the file fixes its batch: fill up with copies, then drop them
            fed = np.concatenate([fed, np.repeat(fed[-1:], size - count, axis=0)])
        try:
            unread = {node.name: _zeros(node, len(fed)) for node in self._unread}
            values = self._session.run(self._outputs, {self._input: fed, **unread})
        except Exception as error:  # onnxruntime's errors share no base class
            raise ModelError(f"{self._source.path}: onnxruntime fails: {_first_line(error)}") from error
        return [value[:count] if count < size and np.ndim(value) else value for value in values]


def _image_first(source: Source, nodes: list[ort.NodeArg], outputs: Sequence[str]) -> list[ort.NodeArg]:
    """Return a session's inputs, the one that ``outputs`` depend on before those that nothing reads."""
    read = {value.name for value in inputs_of(source, outputs)} if len(nodes) > 1 else set()
    return sorted(nodes, key=lambda node: node.name not in read)


def _zeros(node: ort.NodeArg, count: int) -> NDArray[np.generic]:
    """Return zeros for an input that nothing reads: for ``count`` images, and one where a size is free."""
    kind = node.type.removeprefix("tensor(").removesuffix(")")
    free = [count] + [1] * len(node.shape)
    shape = [dim if isinstance(dim, int) else free[i] for i, dim in enumerate(node.shape)]
    return np.zeros(shape, {"float": "float32", "double": "float64", "string": "U1"}.get(kind, kind))


def _open(
    source: Source, outputs: Sequence[str], device: torch.device, provider: str
) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = _QUIET
    options.intra_op_num_threads = torch.get_num_threads()
    model = _with_outputs(source, outputs)
    if source.external:
        options.add_session_config_entry(_EXTERNAL_FOLDER, str(source.path.parent.resolve()))
    providers = _with_fallback(provider, device)
    try:
        session = ort.InferenceSession(model, options, providers=providers, enable_fallback=0)
    except Exception as error:  # onnxruntime's errors share no base class
        raise ModelError(f"{source.path}: onnxruntime cannot load it: {_first_line(error)}") from error
    if (taken := session.get_providers()[0]) != provider:
        raise DeviceError(
            f"onnxruntime was asked for {provider} and took {taken}; for CUDA, install onnxruntime-gpu to match "
            "torch's, or use --device cpu"
        )
    return session


def _with_fallback(provider: str, device: torch.device) -> list[object]:
    """Return what onnxruntime is asked for: ``provider``, and the CPU for nodes that it cannot run.

    Raises:
        DeviceError: it is not there. One of a GPU's is asked for only where torch sees a GPU: onnxruntime lists
            them on any machine, and writes to stdout as it falls back.
    """
    there = [
        name for name in ort.get_available_providers() if not _OF_GPU.match(name) or torch.cuda.is_available()
    ]
    if provider not in there:
        raise DeviceError(f"onnxruntime has no {provider} on this machine; it has {', '.join(there)}")
    if provider == _PROVIDERS["cpu"]:
        return [provider]
    if torch.cuda.is_available():
        ort.preload_dlls()
    told = {"device_id": device.index or 0, "use_tf32": 0} if provider == _PROVIDERS["cuda"] else {}
    return [(provider, told), _PROVIDERS["cpu"]]


def _with_outputs(source: Source, outputs: Sequence[str]) -> bytes:
    """Return what a session loads: the bytes that were checked, or a copy that shows inner values too.

    External data stay in their files, beside the model's.

    Raises:
        ModelError: The file was written to since it was read.
    """
    shown = {value.name for value in source.outputs}
    hidden = [name for name in outputs if name not in shown]
    try:
        content: bytes = expose(source, hidden).SerializeToString() if hidden else source.content
    except SourceError as error:
        raise ModelError(str(error)) from error
    return content


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
