"""The same pickled file with other weights in it: its pickle, its classes and its layout stay as they are.

So the file loads wherever the original does, in the torchvision of its time as well as in today's.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from mothkit.errors import OutputError, PickleError
from mothkit.trojai.pickles.containers import open_container
from mothkit.trojai.pickles.tree import read_network


def write_weights(path: Path, out: Path, weights: Mapping[str, Tensor]) -> None:
    """Write ``path`` to ``out`` with the values of ``weights``.

    Args:
        path: a pickled module that ``load_module`` takes.
        out: another file, replaced if it is there.
        weights: new values by their names in the module's state dict; those not named stay as they are. They
            are rounded to the type that the file keeps them in.

    Raises:
        PickleError: ``path`` cannot be read, or has no such weights.
        OutputError: ``out`` cannot be written.
    """
    container = open_container(path)
    network = read_network(container)
    _check(path, weights, {name: place.size for name, place in network.tensors.items()})
    places = {name: network.tensors[name] for name in weights}
    storages = {place.storage.key: place.storage for place in places.values()}
    contents = zip(storages, container.read(storages.values()), strict=True)
    buffers = {key: bytearray(content) for key, content in contents}
    for name, place in places.items():
        if buffers[place.storage.key]:
            flat = torch.frombuffer(buffers[place.storage.key], dtype=place.storage.dtype)
            torch.as_strided(flat, place.size, place.stride, place.offset).copy_(weights[name].detach())
    try:
        container.rewrite(out, {key: bytes(content) for key, content in buffers.items()})
    except OSError as error:
        raise OutputError(f"{out}: cannot be written ({error.strerror or error})") from error


def _check(path: Path, weights: Mapping[str, Tensor], sizes: Mapping[str, tuple[int, ...]]) -> None:
    for name, value in weights.items():
        if sizes.get(name) != tuple(value.shape):
            has = "no such tensor" if name not in sizes else list(sizes[name])
            raise PickleError(path, f"'{name}' is to become {list(value.shape)}, but the file has {has}")
