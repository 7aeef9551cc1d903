"""Pickled files that want to do harm, each made by a function that is given a folder in which to leave a mark."""

import collections
import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mothkit.trojai.architectures import build

Make = Callable[[Path], bytes]
SMALL = "squeezenet1_1"


class Asks:
    """Pickles as a call of ``function`` with ``args``."""

    def __init__(self, function: Any, *args: Any, state: Any = None) -> None:
        self.made = (function, args) if state is None else (function, args, state)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.made


def zipped(content: bytes, more: dict[str, bytes] | None = None, method: int = zipfile.ZIP_STORED) -> bytes:
    """Return a zip as torch writes it, around ``content`` as its pickle."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr("m/data.pkl", content)
        archive.writestr("m/version", b"3\n")
        for name, value in (more or {}).items():
            archive.writestr(f"m/{name}", value)
    return buffer.getvalue()


def saved(module: Any, *, legacy: bool = False) -> bytes:
    """Return what ``torch.save`` makes of ``module``."""
    buffer = io.BytesIO()
    torch.save(module, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def legacy(content: bytes) -> bytes:
    """Return an older stream around ``content`` as its pickle."""
    head = (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}})
    return b"".join(pickle.dumps(part, 2) for part in head) + content + pickle.dumps([], 2)


def mark(folder: Path) -> Path:
    """Return the file whose existence says that something was executed."""
    return folder / "executed"


def small() -> nn.Module:
    torch.manual_seed(0)
    return build(SMALL, 5)


def changed(change: Callable[[nn.Module], object]) -> Make:
    """Return a file of a small network that was changed."""

    def make(folder: Path) -> bytes:
        module = small()
        change(module)
        return saved(module)

    return make


def asking(function: Any, *args: Any, wrap: Callable[[bytes], bytes] = zipped, protocol: int = 2) -> Make:
    """Return a file that calls ``function``; the text MARK in its arguments becomes the mark's path."""

    def make(folder: Path) -> bytes:
        given = [a.replace("MARK", str(mark(folder))) if isinstance(a, str) else a for a in args]
        return wrap(pickle.dumps(Asks(function, *given), protocol))

    return make


def hooked(module: nn.Module) -> None:
    module._forward_hooks[0] = Asks(os.system, "touch executed")


def overlapping(folder: Path) -> bytes:
    """Return a zip whose directory lists the same bytes under many names."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("m/data.pkl", pickle.dumps({}, 2))
        archive.writestr("m/data/0", bytes(1 << 20))
        first = archive.infolist()[1]
        for index in range(1, 50):
            copy = zipfile.ZipInfo(f"m/data/{index}")
            for name in ("CRC", "compress_size", "file_size", "header_offset", "create_system"):
                setattr(copy, name, getattr(first, name))
            archive.filelist.append(copy)
        archive._didModify = True
    return buffer.getvalue()


def within_itself(folder: Path) -> bytes:
    module = nn.Sequential()
    module._modules["again"] = module
    return saved(module)


def laughing(folder: Path) -> bytes:
    module = nn.Sequential()
    for _ in range(40):
        module = nn.Sequential(module, module)
    return saved(module)


def laughing_key(folder: Path) -> bytes:
    """Return a pickle with a key that takes 2**60 steps to hash."""
    return zipped(b"\x80\x02})" + 60 * b"2\x86" + b"K\x01s.")


def stretched(module: nn.Module) -> None:
    module.classifier[1].weight = nn.Parameter(torch.zeros(1).expand(1 << 20, 1 << 20, 1, 1))


def beyond(folder: Path) -> bytes:
    """Return a network whose first tensor begins behind the end of its storage."""
    content = saved(small())
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = archive.namelist()
        parts = {name: archive.read(name) for name in names}
    top = names[0].split("/")[0]
    data = parts[f"{top}/data.pkl"]
    at = data.index(b"QK\x00(") + 2  # of the first tensor: its offset, one byte
    parts[f"{top}/data.pkl"] = data[:at] + b"\xff" + data[at + 1 :]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, value in parts.items():
            archive.writestr(name, value)
    return buffer.getvalue()


def swapped(module: nn.Module) -> None:
    parts = module.features._modules
    order = list(parts)
    order[0], order[1] = order[1], order[0]
    module.features._modules = {name: parts[name] for name in order}


def scripted(folder: Path) -> bytes:
    return zipped(pickle.dumps({}, 2), {"constants.pkl": b"", "code/__torch__.py": b"def forward(): pass"})


def unfit(folder: Path) -> bytes:
    with io.BytesIO() as buffer:
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("something.txt", b"hello")
        return buffer.getvalue()


TOUCH = "__import__('pathlib').Path('MARK').touch()"
HOSTILE: dict[str, Make] = {
    "os.system": asking(os.system, "touch MARK"),
    "os.system, older stream": asking(os.system, "touch MARK", wrap=legacy),
    "os.system, protocol 0": asking(os.system, "touch MARK", protocol=0),
    "os.system, protocol 4": asking(os.system, "touch MARK", protocol=4),
    "os.system by INST": lambda folder: zipped(b"(Vtouch %b\nios\nsystem\n." % bytes(mark(folder))),
    "os.system by OBJ": lambda folder: zipped(b"(cos\nsystem\nX\x05\x00\x00\x00helloo."),
    "builtins.eval": asking(eval, TOUCH),
    "builtins.exec": asking(exec, TOUCH),
    "an import": asking(__import__, "antigravity"),
    "pickle.loads": lambda folder: zipped(
        pickle.dumps(Asks(pickle.loads, pickle.dumps(Asks(os.system, f"touch {mark(folder)}"))), 2)
    ),
    "a call of a call": lambda folder: zipped(
        pickle.dumps(Asks(eval, Asks(str, Asks(str.format, TOUCH.replace("MARK", str(mark(folder)))))), 2)
    ),
    "a chain of getattr": lambda folder: zipped(
        b"\x80\x04\x8c\x08builtins\x8c\x07getattr\x93\x8c\x02os\x8c\x0bpath.system\x93\x8c\x04join\x86R."
    ),
    "torch.load of another file": asking(torch.load, "MARK"),
    "numpy object array": lambda folder: zipped(
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R."
    ),
    "collections.defaultdict of eval": lambda folder: zipped(
        pickle.dumps(collections.defaultdict(eval, {"a": 1}), 2)
    ),
    "a hook": changed(hooked),
    "a hook with an allowed name": changed(lambda module: module._forward_hooks.update({0: nn.ReLU})),
    "BUILD on forward": changed(lambda module: module.__dict__.update(forward=Asks(os.system, "true"))),
    "BUILD on forward with an allowed name": changed(lambda module: module.__dict__.update(forward=nn.ReLU)),
    "an attribute before a layer": changed(lambda module: module.__dict__.update(classifier=3)),
    "an attribute that is a network": changed(lambda module: module.__dict__.update(other=nn.ReLU())),
    "__class__": changed(lambda module: module.__dict__.update(__class__=nn.ReLU)),
    "another stride": changed(lambda module: setattr(module.features[0], "stride", (1, 1))),
    "another epsilon": lambda folder: saved(_with_epsilon()),
    "layers in another order": changed(swapped),
    "another activation": changed(lambda module: module.features._modules.update({"1": nn.GELU()})),
    "weights that are not numbers": changed(
        lambda module: module.classifier[1].bias.data.fill_(float("nan"))
    ),
    "one number as a million million": changed(stretched),
    "a tensor beyond its storage": beyond,
    "a storage that is not there": lambda folder: _without_storage(saved(small())),
    "a network within itself": within_itself,
    "a million million modules": laughing,
    "a key that takes for ever to hash": laughing_key,
    "a memo of eight gigabytes": lambda folder: zipped(b"\x80\x02Nr\xff\xff\xff\x7f."),
    "bytes of an exabyte": lambda folder: zipped(b"\x80\x04\x8e" + (1 << 60).to_bytes(8, "little") + b"x."),
    "an extension": lambda folder: zipped(b"\x80\x02\x82\x01."),
    "an unfinished stack": lambda folder: zipped(b"\x80\x02NN."),
    "an empty stack": lambda folder: zipped(b"\x80\x02R."),
    "a storage that is code": lambda folder: zipped(b"\x80\x02cos\nsystem\nQ."),
    "TorchScript": scripted,
    "a zip bomb": lambda folder: zipped(bytes(1 << 26), method=zipfile.ZIP_DEFLATED),
    "members over each other": overlapping,
    "another zip": unfit,
    "a cut zip": lambda folder: saved(small())[:-100],
    "a cut pickle": lambda folder: zipped(pickle.dumps({"a": [1, 2, 3]}, 2)[:-4]),
    "a cut older stream": lambda folder: saved(small(), legacy=True)[:-5000],
    "an older stream of something else": lambda folder: pickle.dumps(12, 2),
    "nothing": lambda folder: b"",
    "a text": lambda folder: b"this is no model\n",
    "a checkpoint": lambda folder: saved({"weights": small().state_dict()}),
    "a network of no round": lambda folder: saved(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())),
}


def _with_epsilon() -> nn.Module:
    module = build("shufflenet_v2_x1_0", 4)
    module.conv1[1].eps = 10.0
    return module


def _without_storage(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(buffer, "w") as fewer:
        for info in archive.infolist():
            if not info.filename.endswith("/data/3"):
                fewer.writestr(info.filename, archive.read(info))
    return buffer.getvalue()
