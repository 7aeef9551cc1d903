import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mothkit.records import write_text
from mothkit_cli.output import new_table, plain, show

RECORD = json.dumps({"a": 1})


@given(st.text())
def test_plain_text_is_one_line_of_printable_characters(text: str) -> None:
    assert plain(text).isprintable()
    assert plain(plain(text)) == plain(text)


def test_tables_go_to_stdout_unless_the_record_does(capsys: pytest.CaptureFixture[str]) -> None:
    show("a table", record=RECORD, json_to=None)
    assert capsys.readouterr() == ("a table\n", "")
    show("a table", record=RECORD, json_to="-")
    assert capsys.readouterr() == (RECORD + "\n", "a table\n")


def test_the_record_is_written_beside_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show("a table", record=RECORD, json_to=str(tmp_path / "record.json"))
    assert (tmp_path / "record.json").read_text() == RECORD
    assert capsys.readouterr().out == "a table\n"


def test_no_table_is_squeezed_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    table = new_table("name", "size", numbers=("size",))
    table.add_row("n" * 300, "1")
    show(table, record=RECORD, json_to=None)
    assert capsys.readouterr().out.splitlines()[1] == "n" * 300 + "     1"


def test_a_file_is_replaced_whole_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    write_text(tmp_path / "record.json", "old")
    write_text(tmp_path / "record.json", "new")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("record.json", "new")]


def test_a_failed_write_keeps_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "record.json").write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "record.json", "half\udc80")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("record.json", "old")]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    write_text(tmp_path / "link", "text")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "text"
