"""Both containers of ``torch.save``: a zip of a pickle and its storages, and the older stream of pickles.

A storage is a run of numbers that tensors look at. They are found here and not read: ``read`` takes one, and
``rewrite`` writes the file again with other numbers in them.
"""

import io
import mmap
import os
import shutil
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

import torch

from mothkit.errors import PickleError
from mothkit.trojai.pickles.machine import BrokenPickleError, Machine, Name

MAX_PICKLE_BYTES = 64 * 2**20  # of the pickle alone; those of the rounds take less than 1 MiB
MAX_MEMBERS = 100_000
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # how an older stream begins
_TAIL = 2**16 + 22  # a zip's end record lies within so many bytes of its end
_ALIGNMENT = 64  # bytes, at which torch places storages in a zip
_DTYPES = MappingProxyType(
    {
        "DoubleStorage": torch.float64,
        "FloatStorage": torch.float32,
        "HalfStorage": torch.float16,
        "BFloat16Storage": torch.bfloat16,
        "LongStorage": torch.int64,
        "IntStorage": torch.int32,
        "ShortStorage": torch.int16,
        "CharStorage": torch.int8,
        "ByteStorage": torch.uint8,
        "BoolStorage": torch.bool,
    }
)
STORAGES = frozenset(Name("torch", name) for name in _DTYPES)


@dataclass(frozen=True, slots=True)
class Storage:
    """A run of ``count`` numbers of one type, by its key in the file."""

    key: str
    dtype: torch.dtype
    count: int

    @property
    def bytes(self) -> int:
        """How many bytes it takes."""
        return self.count * self.dtype.itemsize


class Container(Protocol):
    """A file of ``torch.save``, its pickle read."""

    @property
    def path(self) -> Path:
        """The file."""
        ...

    @property
    def root(self) -> object:
        """What the pickle holds, as notes."""
        ...

    @property
    def wanted(self) -> frozenset[Name]:
        """Every name that the pickle asks for."""
        ...

    @property
    def kind(self) -> str:
        """``zip`` or ``legacy``."""
        ...

    def read(self, storages: Iterable[Storage]) -> Iterator[bytes]:
        """Yield the bytes of each storage; raises PickleError where the file has another number of them."""
        ...

    def rewrite(self, out: Path, replaced: Mapping[str, bytes]) -> None:
        """Write the file to ``out`` with other bytes in the storages ``replaced``; all else stays."""
        ...


def open_container(path: Path) -> Container:
    """Return the pickled file at ``path``, of either container.

    Raises:
        PickleError: it is neither, is broken, or is made to exhaust memory.
    """
    try:
        with path.open("rb") as file:
            start = file.read(2)
        return _open_zip(path) if start == b"PK" else _open_legacy(path)
    except OSError as error:
        raise PickleError(path, f"cannot be read ({error.strerror or error})") from error


@dataclass(frozen=True, slots=True)
class _Zip:
    path: Path
    root: object
    wanted: frozenset[Name]
    top: str  # the folder that holds all members
    kind: str = "zip"

    def read(self, storages: Iterable[Storage]) -> Iterator[bytes]:
        with zipfile.ZipFile(self.path) as archive:
            for storage in storages:
                try:
                    found = archive.read(self._member(storage.key))
                except (KeyError, ValueError, zipfile.BadZipFile) as error:
                    raise PickleError(
                        self.path, f"storage {storage.key!r} cannot be read ({error})"
                    ) from error
                yield _checked(self.path, storage, found)

    def rewrite(self, out: Path, replaced: Mapping[str, bytes]) -> None:
        members = {self._member(key): content for key, content in replaced.items()}
        with zipfile.ZipFile(self.path) as archive, zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as fresh:
            for info in archive.infolist():
                content = members.get(info.filename)
                copy = zipfile.ZipInfo(info.filename, info.date_time)
                used = 0 if fresh.fp is None else fresh.fp.tell()
                copy.extra = _padding(used + 30 + len(info.filename.encode()))
                fresh.writestr(copy, archive.read(info) if content is None else content)

    def _member(self, key: str) -> str:
        return f"{self.top}/data/{key}"


def _padding(start: int) -> bytes:
    """Return an extra field after which content that would begin at ``start`` is aligned, as torch does it."""
    missing = -(start + 4) % _ALIGNMENT
    return b"FB" + missing.to_bytes(2, "little") + b"Z" * missing


def _open_zip(path: Path) -> Container:
    _check_directory(path)
    try:
        with zipfile.ZipFile(path) as archive:
            top = _check_members(path, archive)
            content = archive.read(f"{top}/data.pkl")
    except (KeyError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
        raise PickleError(path, f"is a broken zip ({error})") from error
    machine = Machine(_storage_of)
    root = _run(path, machine, io.BytesIO(content))
    return _Zip(path, root, frozenset(machine.wanted), top)


def _check_directory(path: Path) -> None:
    """Refuse a zip whose list of members is larger than any of torch's, before it is read."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - _TAIL))
        tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0:
        raise PickleError(path, "is a zip without its end; it was cut")
    listed = int.from_bytes(tail[at + 12 : at + 16], "little")
    if (wide := tail.rfind(b"PK\x06\x06", 0, at)) >= 0:
        listed = int.from_bytes(tail[wide + 40 : wide + 48], "little")
    if listed > MAX_PICKLE_BYTES:
        raise PickleError(path, f"lists its members in {listed} bytes; at most {MAX_PICKLE_BYTES} are read")


def _check_members(path: Path, archive: zipfile.ZipFile) -> str:
    """Return the one folder of a zip that ``torch.save`` could have written."""
    members = archive.infolist()
    names = [info.filename for info in members]
    if len(names) > MAX_MEMBERS or len(set(names)) != len(names):
        raise PickleError(path, f"has {len(names)} members, some of one name or more than {MAX_MEMBERS}")
    if script := [name for name in names if name.endswith("/constants.pkl") or "/code/" in name]:
        raise PickleError(path, f"is TorchScript ({script[0]}), which is code; only saved modules are read")
    if packed := [i.filename for i in members if i.compress_type != zipfile.ZIP_STORED or i.flag_bits & 1]:
        raise PickleError(path, f"has packed or locked members ({packed[0]}); torch.save stores them plainly")
    if sum(info.file_size for info in members) > path.stat().st_size:
        raise PickleError(path, "has members that lie over each other: it unpacks to more than it is")
    pickles = [name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise PickleError(path, f"has {len(pickles)} data.pkl; torch.save writes one")
    if archive.getinfo(pickles[0]).file_size > MAX_PICKLE_BYTES:
        raise PickleError(path, f"has a pickle of more than {MAX_PICKLE_BYTES} bytes")
    top = pickles[0].partition("/")[0]
    order = f"{top}/byteorder"
    if order in names and (archive.getinfo(order).file_size > 16 or archive.read(order) != b"little"):
        raise PickleError(path, "was not written on a little-endian machine")
    return top


@dataclass(frozen=True, slots=True)
class _Legacy:
    path: Path
    root: object
    wanted: frozenset[Name]
    places: Mapping[str, tuple[int, int]]  # first byte and count of numbers of each storage
    kind: str = "legacy"

    def read(self, storages: Iterable[Storage]) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            for storage in storages:
                start, count = self.places[storage.key]
                file.seek(start)
                yield _checked(self.path, storage, file.read(count * storage.dtype.itemsize))

    def rewrite(self, out: Path, replaced: Mapping[str, bytes]) -> None:
        shutil.copyfile(self.path, out)
        with out.open("r+b") as file:
            for key, content in replaced.items():
                file.seek(self.places[key][0])
                file.write(content)


def _open_legacy(path: Path) -> Container:
    storages: dict[str, Storage] = {}

    def persistent(reference: object) -> object:
        if isinstance(reference, tuple) and reference[:1] == ("module",) and len(reference) == 4:
            return reference[1]  # a class, with the source text that torch 1 put beside it
        found = _storage_of(reference)
        storages[found.key] = found
        return found

    machine = Machine(persistent)
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise PickleError(path, "is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            if (_run(path, machine, view), _run(path, machine, view)) != (_MAGIC, _PROTOCOL):
                raise PickleError(path, "is no file of torch.save: it begins otherwise")
            about = _run(path, machine, view)
            if not isinstance(about, dict) or about.get("little_endian") is not True:
                raise PickleError(path, "was not written on a little-endian machine")
            root, keys = _run(path, machine, view), _run(path, machine, view)
            places = _places(path, view, keys, storages)
    return _Legacy(path, root, frozenset(machine.wanted), places)


def _places(
    path: Path, view: mmap.mmap, keys: object, storages: Mapping[str, Storage]
) -> dict[str, tuple[int, int]]:
    """Return where each storage begins, and its count: they follow each other, each after its count."""
    places: dict[str, tuple[int, int]] = {}
    if not isinstance(keys, list) or {type(key) for key in keys} - {str} or sorted(keys) != sorted(storages):
        raise PickleError(path, "its list of storages is not that of its tensors")
    position = view.tell()
    for key in keys:
        count = int.from_bytes(view[position : position + 8], "little")
        places[key] = (position + 8, count)
        position += 8 + count * storages[key].dtype.itemsize
        if position > len(view):
            raise PickleError(path, f"is cut within storage {key!r}")
    return places


def _run(path: Path, machine: Machine, stream: io.BytesIO | mmap.mmap) -> object:
    try:
        return machine.run(stream)  # type: ignore[arg-type]  # an mmap reads like a file
    except BrokenPickleError as error:
        raise PickleError(path, str(error), wanted=map(str, machine.wanted)) from error


def _storage_of(reference: object) -> Storage:
    """Return the storage that a persistent id of torch's names.

    Raises:
        BrokenPickleError: it names none.
    """
    if not isinstance(reference, tuple) or len(reference) not in (5, 6) or reference[0] != "storage":
        raise BrokenPickleError("refers to something outside that is no storage")
    _, kind, key, _, count, *view = reference
    dtype = _DTYPES.get(kind.name) if isinstance(kind, Name) and kind in STORAGES else None
    if (
        dtype is None
        or not isinstance(key, str)
        or type(count) is not int
        or count < 0
        or view not in ([], [None])
    ):
        raise BrokenPickleError("has a storage of an unknown kind")
    return Storage(key, dtype, count)


def _checked(path: Path, storage: Storage, found: bytes) -> bytes:
    if len(found) != storage.bytes:
        raise PickleError(path, f"storage {storage.key!r} has {len(found)} bytes, not {storage.bytes}")
    return found
