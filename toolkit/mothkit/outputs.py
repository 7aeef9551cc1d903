"""Where a result goes: refused before the work if it cannot go there, staged beside its place until it is proved."""

import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mothkit.classifier import as_model_errors
from mothkit.errors import OutputError
from mothkit.records import record_path
from mothkit_converters import Source, check_place


def check_target(out: Path, source: Source, inputs: Iterable[Path]) -> None:
    """Check that ``source`` with other weights, and the files that come with it, can be written at ``out``.

    Args:
        out: the file to come; one that stands there will be replaced.
        source: the original.
        inputs: other files and folders that the run reads; missing ones are passed over.

    Raises:
        OutputError: a file that must not be replaced stands there, or the folder takes no such file.
    """
    with as_model_errors():
        check_place(out, source)
    if out.exists() and any(file.exists() and out.samefile(file) for file in inputs):
        raise OutputError(f"{out}: is read by this run and would be overwritten; name another file")
    if record_path(out).is_dir():
        raise OutputError(f"{out}: its record would go to {record_path(out)}, which is a folder")
    probe = out.with_name(f".{out.name}.checkpoint.{secrets.token_hex(8)}.tmp")  # the longest name to come
    try:
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise OutputError(
            f"{out}: cannot be written ({error.strerror}); choose another place or name"
        ) from error


def check_folder(out: Path, inputs: Iterable[Path]) -> None:
    """Check that ``out`` is a folder for results, or can become one; one that is not there is made.

    Args:
        out: the folder.
        inputs: files and folders that the run reads; missing ones are passed over.

    Raises:
        OutputError: it is a file, one of ``inputs``, or cannot be written to.
    """
    if any(each.exists() and out.exists() and out.samefile(each) for each in inputs):
        raise OutputError(f"{out}: is read by this run; name another folder for its results")
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out}: is a file; results go to a folder, so name another")
    try:
        out.mkdir(exist_ok=True)
        probe = out / f".{secrets.token_hex(8)}.tmp"
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise OutputError(f"{out}: cannot be written to ({error.strerror}); choose another folder") from error


def make_folder(out: Path, read: Iterable[Path]) -> None:
    """Make ``out`` with the folders above it, and check it as ``check_folder`` does.

    Raises:
        OutputError: it cannot be made or written to, or would be mixed with what is ``read``.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{out}: cannot be made ({error.strerror})") from error
    check_folder(out, read)


@contextmanager
def staging(out: Path) -> Iterator[Path]:
    """Yield a new folder beside ``out``, on the same disk, and delete it with all that is left in it.

    Raises:
        OutputError: it cannot be made.
    """
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise OutputError(f"{out}: the folder cannot be written to: {error.strerror or error}") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
