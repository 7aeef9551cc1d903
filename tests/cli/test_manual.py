import importlib
import inspect
import re
from pathlib import Path

import pytest
import typer
from typer.main import get_command

from mothkit.inputs import presets
from mothkit_cli.exit_codes import ExitCode
from mothkit_cli.main import COMMANDS, assemble

ROOT = Path(__file__).resolve().parents[2]
MANUAL = (ROOT / "docs/manual.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", MANUAL, re.MULTILINE | re.DOTALL)
    assert found, f"docs/manual.md has no section '## {title}'"
    return found[1]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_a_section_that_names_its_options(name: str) -> None:
    module, function = COMMANDS[name].split(":")
    assert inspect.getdoc(getattr(importlib.import_module(module), function))
    told = section(f"mothkit {name}") + section("Shared options")
    command = get_command(assemble(name.split()))
    for word in name.split():
        command = command.get_command(typer.Context(command), word)
    for parameter in command.params:
        assert getattr(parameter, "help", None), f"{name}: {parameter.name} has no help text"
        for option in parameter.opts:
            assert parameter.param_type_name == "argument" or f"`{option}`" in told, f"{name}: {option}"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_readme_lists_every_command(name: str) -> None:
    assert f"](docs/manual.md#mothkit-{name.replace(' ', '-')})" in (ROOT / "README.md").read_text(
        encoding="utf-8"
    )


@pytest.mark.parametrize("name", presets())
def test_every_preset_is_defined_in_the_documents(name: str) -> None:
    text = (ROOT / "docs/preprocessing.md").read_text(encoding="utf-8")
    assert f"| `{name}` | {presets()[name].description} |" in text


def test_the_documents_define_no_preset_that_is_not_there() -> None:
    table = (
        (ROOT / "docs/preprocessing.md").read_text(encoding="utf-8").split("## Presets")[1].split("## ")[0]
    )
    assert set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE)) == set(presets())


@pytest.mark.parametrize("file", ["README.md", "docs/manual.md"])
def test_the_exit_codes_of_the_documents_are_the_program_s(file: str) -> None:
    table = (ROOT / file).read_text(encoding="utf-8").split("## Exit codes")[1].split("## ")[0]
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)] == list(ExitCode)


@pytest.mark.parametrize(
    "file", [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")], ids=lambda f: str(f.relative_to(ROOT))
)
def test_links_between_documents_lead_somewhere(file: Path) -> None:
    for link in re.findall(r"\]\((?!https?://)([^)#]*)", file.read_text(encoding="utf-8")):
        assert (file.parent / link).exists(), f"{file.name} links to {link}"
