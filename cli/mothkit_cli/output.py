"""Results go to stdout, everything else to stderr; a record file is whole or absent."""

import io
from pathlib import Path
from typing import NoReturn

from rich.console import Console, RenderableType
from rich.table import Table

WIDE = 4096  # columns where there is no terminal: nothing is squeezed into 80


class PipeConsole(Console):
    """A console that lets a closed pipe be seen: rich would exit with 1, which means something here."""

    def on_broken_pipe(self) -> NoReturn:
        """Pass the closed pipe on to the command's guard."""
        raise BrokenPipeError


stdout = PipeConsole(highlight=False, markup=False, emoji=False)
stderr = PipeConsole(stderr=True, highlight=False, markup=False, emoji=False)


def plain(text: object) -> str:
    """Return ``text`` on one line and without control characters: names in files are a stranger's."""
    line = " ".join(str(text).split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def say(line: str, console: Console = stderr) -> None:
    """Write one line to ``console``, unwrapped."""
    console.print(plain(line), soft_wrap=True)


def new_table(*columns: str, title: str | None = None, numbers: tuple[str, ...] = ()) -> Table:
    """Return an empty table; the columns in ``numbers`` are set flush right."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in numbers else "left", overflow="fold")
    return table


def show(*tables: RenderableType, record: str, json_to: str | None) -> None:
    """Show a result where ``--json`` asks for it.

    Args:
        tables: what people read, in order; to stdout, or to stderr if the record goes to stdout.
        record: the result as JSON text (see ``mothkit.records.to_json``).
        json_to: the value of ``--json``: a file, ``-`` for stdout, or None for tables only.

    Raises:
        OSError: the record's file cannot be written; what stood there before still does.
    """
    if json_to is not None and json_to != "-":
        from mothkit.records import write_text

        write_text(Path(json_to), record)
    print_tables(stderr if json_to == "-" else stdout, *tables)
    if json_to == "-":
        stdout.file.write(record if record.endswith("\n") else record + "\n")


def print_tables(console: Console, *tables: RenderableType) -> None:
    """Print ``tables``; where ``console`` is no terminal they are as wide as they need, without padding."""
    if console.is_terminal:
        console.print(*tables, sep="\n")
        return
    drawn = io.StringIO()
    wide = PipeConsole(file=drawn, width=WIDE, highlight=False, markup=False, emoji=False)
    wide.print(*tables, sep="\n")
    for line in drawn.getvalue().splitlines():
        console.file.write(line.rstrip() + "\n")
