"""From a pickle's notes to a network: its layers with their settings, and where each tensor lies."""

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from torch import Tensor, nn

from mothkit.errors import PickleError
from mothkit.trojai.pickles.containers import Container, Storage
from mothkit.trojai.pickles.machine import Call, Instance, Name, names

MAX_LAYERS = 20_000
MAX_DEPTH = 64
MAX_PARTS = 1_000  # of one module, or of one attribute
MAX_ATTRIBUTES = 1_000_000  # of all modules
_PARTS = ("_parameters", "_buffers", "_modules")
_CLASSES = ("_norm_layer", "norm_layer", "act_layer")  # attributes that may hold a class
_BACKEND = "torch.nn.backends.thnn._get_thnn_function_backend"  # of torch 1.2's modules, which nothing reads
_HARMLESS = ("timm.layers.format.Format",)  # an enumeration's member


@dataclass(frozen=True, slots=True)
class TensorPlace:
    """Where a tensor lies in its storage, all in numbers of the storage's type."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Layer:
    """One module as the file has it.

    Attributes:
        path: its name within the network, as ``named_modules`` gives it.
        kind: its class.
        settings: its attributes that are plain values.
        children: the names of the modules in it, in order.
    """

    path: str
    kind: Name
    settings: Mapping[str, object]
    children: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Network:
    """All layers of a pickled module, the root first, and its tensors by their names in a state dict."""

    layers: tuple[Layer, ...]
    tensors: Mapping[str, TensorPlace]


def read_network(container: Container) -> Network:
    """Return the network that a pickle holds, as data; what wraps it to run on several devices is left out.

    Raises:
        PickleError: it is no module, or carries what would change its outputs beside its weights: hooks, or
            attributes in the place of methods and layers.
    """
    return _Walk(container).network()


def read_tensors(container: Container, network: Network) -> dict[str, Tensor]:
    """Return copies of all tensors by name, on the CPU.

    Raises:
        PickleError: the file does not hold them.
    """
    storages = {place.storage.key: place.storage for place in network.tensors.values()}
    contents = zip(storages.items(), container.read(storages.values()), strict=True)
    flat = {key: _flat(content, storage.dtype) for (key, storage), content in contents}
    return {
        name: torch.as_strided(flat[place.storage.key], place.size, place.stride, place.offset).clone()
        for name, place in network.tensors.items()
    }


def is_plain(value: object) -> bool:
    """Return whether ``value`` is a number, text, a truth value or nothing."""
    return type(value) in (type(None), bool, int, float, str)


def _flat(content: bytes, dtype: torch.dtype) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=dtype) if content else torch.empty(0, dtype=dtype)


@dataclass(slots=True)
class _Walk:
    """Goes once through a module and all that is in it."""

    container: Container
    layers: list[Layer] = field(default_factory=list)
    tensors: dict[str, TensorPlace] = field(default_factory=dict)
    attributes: int = 0

    def network(self) -> Network:
        root = self.container.root
        if isinstance(root, Instance) and names(root.kind, "torch.nn.parallel.data_parallel.DataParallel"):
            root = self._part(root, "_modules", "").get("module")
        if not isinstance(root, Instance):
            raise PickleError(self.container.path, f"holds a {type(root).__name__}, not a saved module")
        self._visit(root, "", 0)
        spread = sum(math.prod(place.size) * place.storage.dtype.itemsize for place in self.tensors.values())
        if spread > self.container.path.stat().st_size:
            raise PickleError(self.container.path, "has tensors that share their numbers or repeat them")
        return Network(tuple(self.layers), MappingProxyType(self.tensors))

    def _visit(self, module: Instance, path: str, depth: int) -> None:
        if depth > MAX_DEPTH or len(self.layers) >= MAX_LAYERS:
            raise PickleError(self.container.path, f"has modules in modules without end, at '{path[:80]}'")
        if not isinstance(module.kind, Name):
            raise PickleError(self.container.path, f"'{path}' is of a class that is computed")
        settings = self._settings(module, path)
        children = self._part(module, "_modules", path)
        self.layers.append(Layer(path, module.kind, settings, tuple(children)))
        for name, value in (
            self._part(module, "_parameters", path) | self._part(module, "_buffers", path)
        ).items():
            if value is not None:
                self.tensors[_join(path, name)] = self._place(value, _join(path, name))
        for name, child in children.items():
            if isinstance(child, Instance):
                self._visit(child, _join(path, name), depth + 1)
            elif child is not None:
                raise PickleError(self.container.path, f"'{_join(path, name)}' is no module")

    def _part(self, module: Instance, key: str, path: str) -> dict[str, object]:
        part = module.state.get(key, {}) if isinstance(module.state, dict) else None
        if not isinstance(part, dict) or len(part) > MAX_PARTS or not all(map(_is_part_name, part)):
            raise PickleError(
                self.container.path, f"'{path}' ({module.kind}) has no {key} that are a module's"
            )
        return part

    def _settings(self, module: Instance, path: str) -> dict[str, object]:
        """Return the plain attributes; refuse those that would make it compute something else."""
        state = module.state if isinstance(module.state, dict) else {}
        self.attributes += len(state)
        if self.attributes > MAX_ATTRIBUTES or len(self.tensors) > MAX_LAYERS:
            raise PickleError(self.container.path, "has more attributes or tensors than any model")
        found = {}
        for name, value in state.items():
            if name in _PARTS:
                continue
            if why := _suspicion(name, value, state):
                raise PickleError(
                    self.container.path,
                    f"'{path or 'the network'}' ({module.kind}) {why}; its weights alone would be another model",
                )
            found[name] = value
        return found

    def _place(self, value: object, name: str) -> TensorPlace:
        """Return where a parameter or buffer lies, once its place is known to be within its storage."""
        if isinstance(value, Call) and str(value.function) == "torch._utils._rebuild_parameter":
            value = value.args[0] if value.args else None
        made = isinstance(value, Call) and str(value.function) == "torch._utils._rebuild_tensor_v2"
        if (
            not isinstance(value, Call)
            or not made
            or len(value.args) not in (6, 7)
            or value.state is not None
        ):
            raise PickleError(self.container.path, f"'{name}' is no plain tensor")
        storage, offset, size, stride = value.args[:4]
        numbers = (offset, *size, *stride) if isinstance(size, tuple) and isinstance(stride, tuple) else (-1,)
        if not isinstance(storage, Storage) or not all(type(n) is int and n >= 0 for n in numbers):
            raise PickleError(self.container.path, f"'{name}' is no plain tensor")
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=False))
        if len(size) != len(stride) or (0 not in size and last >= storage.count) or len(size) > 8:
            raise PickleError(self.container.path, f"'{name}' {list(size)} lies outside its storage")
        return TensorPlace(storage, offset, size, stride)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _is_part_name(name: object) -> bool:
    return isinstance(name, str) and "." not in name


def _is_tensor(value: Call) -> bool:
    """Return whether it is torch's own call that makes a tensor from a storage, with no state on top."""
    made = names(value.function, "torch._utils._rebuild_tensor_v2")
    return made and len(value.args) in (6, 7) and value.state is None


def _suspicion(name: object, value: object, state: Mapping[str, object]) -> str | None:
    """Return why an attribute would let a module compute something else than its weights say, if it does."""
    if not isinstance(name, str) or name.startswith("__"):
        return f"has an attribute {str(name)[:40]!r}"
    if name.endswith(("_hooks", "_hook", "_hooks_with_kwargs", "_hooks_always_called")):
        return f"carries {name}" if value else None
    if callable(getattr(nn.Module, name, None)):
        return f"replaces its method {name}"
    if any(isinstance(part := state.get(key), dict) and name in part for key in _PARTS):
        return f"hides its part {name} behind an attribute"
    known = isinstance(value, Name) and name in _CLASSES
    known |= isinstance(value, Call) and names(value.function, _BACKEND, *_HARMLESS)
    leaves = list(itertools.islice(_leaves(value), MAX_PARTS))
    if not known and (len(leaves) == MAX_PARTS or not all(map(is_plain, leaves))):
        return f"has an attribute {name} that is no plain value"
    return None


def _leaves(value: object, depth: int = 0) -> Iterator[object]:
    """Yield what lists, tuples, sets and mappings hold, one or two levels deep."""
    if depth < 2 and isinstance(value, list | tuple | set):
        for item in value:
            yield from _leaves(item, depth + 1)
    elif depth < 2 and isinstance(value, dict):
        for item in value.values():
            yield from _leaves(item, depth + 1)
    else:
        yield value
