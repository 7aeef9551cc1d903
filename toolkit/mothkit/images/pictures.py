"""Picture files in class folders, on disk or in a zip: found and measured at once, decoded when read."""

import io
import os
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from PIL import Image, ImageFile, UnidentifiedImageError

from mothkit.errors import ImageError
from mothkit.images.sources import LazySource, Limits, Pixels, Resize, Shape, Size, convert

SUFFIXES = (".png", ".jpg", ".jpeg", ".ppm", ".pgm", ".bmp")
_COMPANIONS = (".csv", ".db", ".html", ".ini", ".json", ".md", ".txt", ".xml", ".yaml", ".yml")
_FORMATS = ("PNG", "JPEG", "PPM", "BMP")
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")


class PictureFiles(Protocol):
    """Files by number, wherever they lie."""

    def name(self, index: int) -> str:
        """Return what a message calls the file."""
        ...

    def open(self, index: int) -> IO[bytes]:
        """Return the file, open for reading and seekable; raises OSError or ValueError."""
        ...


@dataclass(frozen=True, slots=True)
class FolderFiles:
    """Files below a folder."""

    root: Path
    names: tuple[str, ...]

    def name(self, index: int) -> str:
        """Return the file's path."""
        return str(self.root / self.names[index])

    def open(self, index: int) -> IO[bytes]:
        """Return the open file."""
        return (self.root / self.names[index]).open("rb")


@dataclass(frozen=True, slots=True)
class ZipFiles:
    """Members of a zip; each is read into memory, up to ``max_bytes``."""

    archive: zipfile.ZipFile
    members: tuple[zipfile.ZipInfo, ...]
    origin: str
    max_bytes: int

    def name(self, index: int) -> str:
        """Return archive and member."""
        return f"{self.origin}: {self.members[index].filename}"

    def open(self, index: int) -> IO[bytes]:
        """Return the member's bytes; zipfile holds it to its declared size, which is checked first."""
        member = self.members[index]
        if member.file_size > self.max_bytes:
            raise ValueError(f"unpacks to {member.file_size} bytes, more than the limit of {self.max_bytes}")
        return io.BytesIO(self.archive.read(member))


@dataclass(frozen=True, slots=True)
class Pictures:
    """Picture files and the class folder of each.

    Attributes:
        files: the N files.
        folders: the class folder of each file, [N].
    """

    files: PictureFiles
    folders: tuple[str, ...]


def find_in_folder(root: Path, limits: Limits) -> Pictures:
    """Return the pictures of a folder of class folders.

    Raises:
        ImageError: too many files, no class folders, an empty one, or other content.
        OSError: it cannot be listed.
    """
    classes = _by_class(_bounded(_walk(root), str(root), limits), str(root))
    names = tuple(f"{folder}/{name}" for folder, names in classes.items() for name in names)
    return Pictures(FolderFiles(root, names), _repeat(classes))


def find_in_zip(path: Path, inside: str | None, limits: Limits) -> Pictures:
    """Return the pictures of a zip of class folders, also below one leading folder.

    Args:
        path: the archive.
        inside: the folder in it that holds the class folders; None for the top.
        limits: bounds of entries and images.

    Raises:
        ImageError: it is no sound zip, is encrypted, has no such folder, or as ``find_in_folder``.
    """
    origin = f"{path}:{inside}" if inside else str(path)
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError) as error:
        raise ImageError(f"{path}: is no zip that can be read: {error}") from error
    members = {info.filename.replace("\\", "/"): info for info in archive.infolist()}
    names = [name for name in _bounded(iter(members), origin, limits) if not _is_hidden(name)]
    prefix = _zip_prefix(names, inside, str(path))
    classes = _by_class((name[len(prefix) :] for name in names if name.startswith(prefix)), origin)
    chosen = tuple(members[f"{prefix}{folder}/{name}"] for folder, found in classes.items() for name in found)
    if locked := [info.filename for info in chosen if info.flag_bits & 1]:
        raise ImageError(
            f"{origin}: {len(locked)} images are encrypted, first {locked[0]}; unpack the archive first"
        )
    return Pictures(ZipFiles(archive, chosen, str(path), 4 * limits.image_pixels), _repeat(classes))


def picture_source(
    files: PictureFiles, sizes: Sequence[Size], shape: Shape, limits: Limits, *, resize: Resize = "stretch"
) -> LazySource:
    """Return a source that decodes files of the measured ``sizes`` when they are read, into ``shape``.

    A file that is broken, has transparent pixels or was replaced meanwhile raises ImageError when it is read.
    """

    def decode(index: int) -> Pixels:
        with _opened(files, index, limits) as picture:
            if (picture.height, picture.width) != sizes[index]:
                raise ImageError(f"image is now {picture.height}x{picture.width}; it changed while in use")
            return convert(_opaque(picture), shape, resize)

    return LazySource(decode, len(sizes), shape, cache_bytes=limits.cache_bytes)


def measure(files: PictureFiles, count: int, limits: Limits) -> list[Size]:
    """Return the (height, width) of every file, read from its header.

    Raises:
        ImageError: a file is no picture of a known kind, or is larger than the limit.
    """
    sizes = []
    for index in range(count):
        with _opened(files, index, limits) as picture:
            sizes.append((picture.height, picture.width))
    return sizes


@contextmanager
def _opened(files: PictureFiles, index: int, limits: Limits) -> Iterator[Image.Image]:
    """Open a picture; all that goes wrong with it, also in the body, becomes an ImageError with its name."""
    try:
        with files.open(index) as stream, Image.open(stream, formats=_FORMATS) as picture:
            _check_header(picture, limits)
            yield picture
    except ImageError as error:
        raise ImageError(f"{files.name(index)}: {error}") from error
    except UnidentifiedImageError as error:
        raise ImageError(
            f"{files.name(index)}: broken image: no {', '.join(_FORMATS)}; mend or remove it"
        ) from error
    except Exception as error:  # Pillow's decoders raise nearly anything on a broken file
        why = str(error) or type(error).__name__
        raise ImageError(f"{files.name(index)}: broken image: {why}; mend or remove it") from error


def _check_header(picture: Image.Image, limits: Limits) -> None:
    """Refuse what cannot become 8-bit grey or RGB without a loss, before a pixel is decoded."""
    if picture.width * picture.height > limits.image_pixels:
        raise ImageError(
            f"image is {picture.height}x{picture.width}, more than the limit of {limits.image_pixels} pixels"
        )
    if picture.mode not in _MODES or _is_deep(picture):
        raise ImageError(
            f"image is {picture.mode}{' of 16 bits' if _is_deep(picture) else ''}; "
            f"save it as RGB or grey of 8 bits a channel"
        )


def _is_deep(picture: Image.Image) -> bool:
    """Tell whether Pillow would cut more than 8 bits a channel down to 8 without saying so."""
    if not isinstance(picture, ImageFile.ImageFile) or picture.format not in ("PNG", "PPM"):
        return False
    args = [tile.args for tile in picture.tile]  # the raw mode, such as RGB;16B, or with PPM's largest value
    return any("16" in arg if isinstance(arg, str) else arg and arg[-1] > 255 for arg in args)


def _opaque(picture: Image.Image) -> Image.Image:
    """Return the picture without its alpha channel, which must not hide anything."""
    if "transparency" in picture.info:
        picture = picture.convert("RGBA")
    if picture.mode in ("LA", "PA", "RGBA"):
        lowest, _ = picture.getchannel("A").getextrema()
        if not isinstance(lowest, int) or lowest < 255:
            raise ImageError("image has transparent pixels; flatten it onto a background first")
    return picture.convert("L" if picture.mode in ("1", "L", "LA") else "RGB")


def _walk(root: Path) -> Iterator[str]:
    """Yield names below ``root``, two levels deep, as a zip lists them: those of folders end in a slash."""
    for entry in _entries(root):
        yield _listed(entry)
        if entry.is_dir() and not _is_hidden(entry.name):
            yield from (f"{entry.name}/{_listed(inner)}" for inner in _entries(entry.path))


def _entries(folder: str | Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        yield from entries


def _listed(entry: os.DirEntry[str]) -> str:
    if not entry.is_dir() and not entry.is_file() and not _is_hidden(entry.name):
        raise ImageError(f"{entry.path}: is neither a file nor a folder (a broken link?); remove it")
    return entry.name + ("/" if entry.is_dir() else "")


def _bounded(names: Iterator[str], origin: str, limits: Limits) -> Iterator[str]:
    for count, name in enumerate(names, start=1):
        if count > limits.files:
            raise ImageError(f"{origin}: more than {limits.files} files")
        yield name


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def _by_class(names: Iterable[str], origin: str) -> dict[str, list[str]]:
    """Return sorted picture names by class folder, from names relative to the folder of class folders.

    Raises:
        ImageError: no class folders, an empty one, or anything else among them.
    """
    classes: dict[str, list[str]] = {}
    for name in filter(lambda n: n and not _is_hidden(n), names):
        folder, slash, rest = name.partition("/")
        if slash:
            classes.setdefault(folder, [])
        if "/" in rest:
            raise ImageError(
                f"{origin}: class folder {folder!r} holds the folder {rest.split('/')[0]!r}; give the folder "
                f"whose folders are the classes (in a zip, as ARCHIVE.zip:FOLDER)"
            )
        if slash and not rest:
            continue
        _sort_in(classes, folder if slash else None, rest or name, origin)
    if not classes:
        raise ImageError(f"{origin}: there are no class folders, and so no labels; expected CLASS/IMAGE.png")
    if empty := sorted(folder for folder, found in classes.items() if not found):
        raise ImageError(
            f"{origin}: {len(empty)} class folders have no images, first {empty[0]!r}; fill or remove them"
        )
    return {folder: sorted(classes[folder]) for folder in sorted(classes)}


def _sort_in(classes: dict[str, list[str]], folder: str | None, name: str, origin: str) -> None:
    """Add the file ``name`` to its class, leave it if it is a companion, refuse it otherwise."""
    suffix = Path(name).suffix.lower()
    if suffix in _COMPANIONS:
        return
    where = f"{folder}/{name}" if folder else name
    if suffix not in SUFFIXES:
        raise ImageError(f"{origin}: {where} is none of {', '.join(SUFFIXES)}; convert or remove it")
    if folder is None:
        raise ImageError(
            f"{origin}: {where} lies in no class folder, and so has no label; expected CLASS/IMAGE.png"
        )
    classes[folder].append(name)


def _zip_prefix(names: Sequence[str], inside: str | None, origin: str) -> str:
    """Return the folder of class folders, ending in a slash: ``inside``, also below the one leading folder.

    Raises:
        ImageError: there is no folder ``inside``.
    """
    tops = {name.split("/")[0] for name in names if "/" in name}
    leading = f"{tops.pop()}/" if len(tops) == 1 else ""
    if inside is None:
        return leading if any(name.count("/") > 1 for name in names) else ""
    wanted = inside.strip("/") + "/"
    for prefix in (wanted, leading + wanted):
        if any(name.startswith(prefix) for name in names):
            return prefix
    folders = sorted(
        {name[len(leading) :].split("/")[0] for name in names if name.count("/") > leading.count("/")}
    )
    raise ImageError(f"{origin}: there is no folder {inside!r} in it; there are {', '.join(folders[:20])}")


def _repeat(classes: dict[str, list[str]]) -> tuple[str, ...]:
    return tuple(folder for folder, names in classes.items() for _ in names)
