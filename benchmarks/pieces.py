"""Long studies in pieces: what is finished is a line in a file, and tables in docs/ are written from these lines."""

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from mothkit.inversion.config import InversionConfig

ROOT = Path(__file__).parent
RESULTS = ROOT / "results"
DOCUMENT = ROOT.parent / "docs" / "benchmarks.md"

Record = dict[str, Any]


class Pieces:
    """Finished pieces in a file of JSON lines, by their key; the last one of a key counts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records: dict[str, Record] = {}
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                record = json.loads(line)
                self.records[record["key"]] = record

    def get(self, key: str, make: Callable[[], Mapping[str, Any]]) -> Record:
        """Return the piece ``key``, made and kept first where it is not there."""
        if key not in self.records:
            record = {"key": key, **make()}
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
            self.records[key] = record
        return self.records[key]


def told(config: InversionConfig) -> str:
    """Return in what a config differs from the defaults: a new field leaves finished pieces as they are."""
    values = ((each, getattr(config, each.name)) for each in fields(config))
    set_here = [
        f"{each.name}={value!r}" for each, value in values if each.default is MISSING or value != each.default
    ]
    return f"{type(config).__name__}({', '.join(set_here)})"


@contextmanager
def timed() -> Iterator[dict[str, float]]:
    """Yield a dict that holds ``wall`` and ``cpu`` seconds once the block is done.

    Where other programs take turns on the same core, the CPU's seconds are the ones to compare.
    """
    seconds: dict[str, float] = {}
    wall, cpu = time.perf_counter(), time.process_time()
    yield seconds
    seconds |= {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def write_section(name: str, text: str, file: Path = DOCUMENT) -> None:
    """Put ``text`` between the marks ``<!-- name -->`` and ``<!-- /name -->`` of ``file``.

    Raises:
        SystemExit: these marks are not there.
    """
    document = file.read_text(encoding="utf-8")
    marks = f"<!-- {name} -->", f"<!-- /{name} -->"
    pattern = re.compile(re.escape(marks[0]) + ".*?" + re.escape(marks[1]), re.DOTALL)
    if not pattern.search(document):
        raise SystemExit(f"{file}: has no section {marks[0]}")
    section = f"{marks[0]}\n{text.strip()}\n{marks[1]}"
    file.write_text(pattern.sub(lambda _: section, document), encoding="utf-8")


def table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
