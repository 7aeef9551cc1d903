"""Writes docs/cli.md, docs/policy.md and docs/api.md from the program itself: ``make reference``.

A test fails where they are not what this writes.
"""

import ast
import inspect
import json
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from importlib import import_module
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from typer.models import ArgumentInfo, ParameterInfo

from mothkit.gate.policy import PRESETS, Policy, preset_text
from mothkit.gate.rules import RULES
from mothkit_cli.guard import guarded
from mothkit_cli.main import COMMANDS

DOCS = Path(__file__).resolve().parent
NOTE = "<!-- Written by docs/reference.py from the program; change that, not this. -->\n"
PARTS = ("Args", "Attributes", "Returns", "Yields", "Raises")  # of a docstring
API: Mapping[str, Mapping[str, Sequence[str] | None]] = {
    # headings of docs/api.md: module and names; None for all that the module exports
    "Files in, records out": {"mothkit": None},
    "How a model is opened, and what comes back": {
        "mothkit.opening": ("Settings",),
        "mothkit.pipeline": ("Outcome",),
        "mothkit.distance": ("Distances", "Distance"),
        "mothkit.relearning": ("RelearnConfig",),
        "mothkit.poisoning.recipe": ("Recipe", "SignData", "UserData"),
        "mothkit.poisoning.attacks": ("Attack",),
        "mothkit.poisoning.training": ("FitConfig",),
    },
    "The gate": {
        "mothkit.gate.policy": ("load_policy", "read_policy", "NamedPolicy", "PolicyError"),
        "mothkit.gate.bench": ("Request",),
        "mothkit.gate.run": ("gate_file", "GateOutcome"),
        "mothkit.gate.findings": ("Finding", "Verdict"),
        "mothkit.gate.bundle": ("make_bundle",),
        "mothkit.gate.signing": ("fault_of",),
        "mothkit.gate.bom": ("to_bom",),
        "mothkit.report.html": ("to_html",),
    },
    "Progress": {"mothkit.events": ("PhaseStarted", "StepDone", "Note", "PreprocessingMeasured", "silent")},
    "Errors": {"mothkit.errors": ()},  # all of its classes, as a table
    "ONNX files as torch modules": {"mothkit_converters": None},
}
TYPES = {bool: "", int: "INTEGER", float: "NUMBER", str: "TEXT", Path: "PATH"}


def pages() -> dict[str, str]:
    """Return the generated pages by file name."""
    return {"cli.md": cli_page(), "policy.md": policy_page(), "api.md": api_page()}


def cli_page() -> str:
    """Return every command with its arguments, options and defaults."""
    commands = "\n".join("".join(_command(name)) for name in COMMANDS)
    return (
        f"# Command line\n{NOTE}\n"
        "Every command with its options, as `--help` has them. What they mean at length: [manual.md](manual.md).\n"
        f"Every command takes `-h`, `--help`; `mothkit --version` prints the version.\n\n{commands}"
    )


def _command(name: str) -> Iterator[str]:
    module, function = COMMANDS[name].split(":")
    command = guarded(getattr(import_module(module), function))
    parameters = list(inspect.signature(command).parameters.values())
    arguments = [each for each in parameters if isinstance(_info(each), ArgumentInfo)]
    options = [each for each in parameters if each not in arguments]
    usage = "".join(f"{_metavar(each)} " for each in arguments)
    yield f"## mothkit {name}\n```\nmothkit {name} {usage}[OPTIONS]\n```\n"
    yield f"{inspect.getdoc(command)}\n\nMore: [manual](manual.md#mothkit-{name.replace(' ', '-')}).\n\n"
    yield "| | | default |\n|---|---|---|\n"
    for each in (*arguments, *options):
        yield f"| {_cell(_names(each))} | {_cell(_info(each).help)} | {_cell(_default(each))} |\n"


def _info(parameter: inspect.Parameter) -> ParameterInfo:
    info = parameter.annotation.__metadata__[0]
    if not isinstance(info, ParameterInfo):
        raise TypeError(f"{parameter.name}: is no argument or option of typer's")
    return info


def _names(parameter: inspect.Parameter) -> str:
    if isinstance(_info(parameter), ArgumentInfo):
        return f"`{_metavar(parameter)}`"
    plain, info = f"--{parameter.name.replace('_', '-')}", _info(parameter)
    # in Annotated, typer keeps the first name where the default would be
    if not (names := [each for each in (info.default, *(info.param_decls or ())) if isinstance(each, str)]):
        names = [plain, f"--no-{plain[2:]}"] if _metavar(parameter) == "" else [plain]
    shown = _metavar(parameter)
    return ", ".join(f"`{name}`" for name in names) + (f" `{shown}`" if shown else "")


def _metavar(parameter: inspect.Parameter) -> str:
    """Return what stands for the value; nothing for a flag."""
    if metavar := _info(parameter).metavar:
        return metavar
    kind = parameter.annotation.__origin__
    if get_origin(kind) in (Union, UnionType):
        kind = next(each for each in get_args(kind) if each is not type(None))
    if get_origin(kind) is Literal:
        return "|".join(map(str, get_args(kind)))
    if get_origin(kind) is list:
        (kind,) = get_args(kind)
    return TYPES[kind]


def _default(parameter: inspect.Parameter) -> str:
    value = parameter.default
    if value is inspect.Parameter.empty:
        return "" if isinstance(_info(parameter), ArgumentInfo) else "needed"
    return "" if value is None or isinstance(value, bool) else f"`{value}`"


def _cell(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


def policy_page() -> str:
    """Return every table and key of a policy, every rule, and the presets."""
    schema = Policy.model_json_schema()
    tables = "".join(_table(name, told, schema) for name, told in schema["properties"].items())
    rules = "".join(f"| `{rule}` | {_cell(told)} |\n" for rule, told in RULES.items())
    presets = "".join(f"\n## Preset {name}\n```toml\n{preset_text(name)}```\n" for name in PRESETS)
    return (
        f"# Policy reference\n{NOTE}\n"
        "Every key of a policy of [the gate](gate.md), in TOML. `mothkit policy schema` prints the same as JSON\n"
        "Schema, `mothkit policy check FILE` checks a file. Keys that are not here are errors.\n"
        f"{tables}\n## Rules\nWhat findings are called in every output; ids are never reused.\n\n"
        f"| rule | what it says |\n|---|---|\n{rules}{presets}"
    )


def _table(name: str, told: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """Return the section of one table, or of a key that stands above all tables."""
    reference = next((each["$ref"] for each in (told, *told.get("anyOf", ())) if "$ref" in each), None)
    if reference is None:
        return f"\n## {name}\n{told['description']} {_kind(told)}\n"
    table = schema["$defs"][reference.rsplit("/", 1)[1]]
    rows = "".join(
        f"| `{key}` | {_cell(_kind(each))} | {_cell(each['description'])} | {_value(each)} |\n"
        for key, each in table["properties"].items()
    )
    return f"\n## [{name}]\n{table['description']}\n\n| key | value | | default |\n|---|---|---|---|\n{rows}"


def _value(told: Mapping[str, Any]) -> str:
    return "" if told.get("default") is None else f"`{json.dumps(told['default'])}`"


def _kind(told: Mapping[str, Any]) -> str:
    """Return which values a key takes, in words."""
    kinds = [_one_kind(each) for each in told.get("anyOf", [told]) if each.get("type") != "null"]
    return " or ".join(kinds)


def _one_kind(told: Mapping[str, Any]) -> str:
    if "enum" in told or "const" in told:
        return ", ".join(f"`{json.dumps(value)}`" for value in told.get("enum", [told.get("const")]))
    if told["type"] == "array":
        return f"list of {_one_kind(told['items'])}"
    words = {"boolean": "true or false", "number": "number", "integer": "whole number", "string": "text"}
    bounds = {"minimum": "from {}", "exclusiveMinimum": "above {}", "maximum": "to {}"}
    found = [text.format(f"{told[key]:g}") for key, text in bounds.items() if key in told]
    return " ".join([words[told["type"]], *found])


def api_page() -> str:
    """Return the public functions and classes with their signatures and what their docstrings say."""
    parts = []
    for heading, modules in API.items():
        parts.append(f"\n## {heading}\n")
        for module, names in modules.items():
            if names == ():
                parts.append(_errors(module))
            home = import_module(module)
            parts += [
                _entry(module, getattr(home, name)) for name in (home.__all__ if names is None else names)
            ]
    return (
        f"# From Python\n{NOTE}\n"
        "The functions behind the commands, what they take and give, and the converters, as docstrings have it.\n"
        "They print nothing: progress goes to `emit`, and what goes wrong is raised. Records are plain JSON types.\n"
        f"{re.sub('(?<!`)``(?!`)', '`', ''.join(parts))}"
    )


def _errors(module: str) -> str:
    found = [each for _, each in inspect.getmembers(import_module(module), inspect.isclass)]
    rows = "".join(
        f"| `{each.__name__}` | `{each.__mro__[1].__name__}` | {_cell(_first_line(each))} |\n"
        for each in found  # by name
        if each.__module__ == module
    )
    return f"\nAll in `{module}`.\n\n| | is a | |\n|---|---|---|\n{rows}"


def _first_line(item: object) -> str:
    return (inspect.getdoc(item) or "").split("\n")[0]


def _entry(module: str, item: Callable[..., object]) -> str:
    """Return the section of one function or class."""
    text, parts = _split(inspect.getdoc(item) or "")
    shown = _fields(item) if inspect.isclass(item) else _signature(item)
    code = f"```\n{shown}\n```\n" if shown else ""
    where = f"from {module} import {item.__name__}"
    return (
        f"\n### {item.__name__}\n`{where}`\n\n{code}{text}\n{''.join(_part(*each) for each in parts.items())}"
    )


def _split(doc: str) -> tuple[str, dict[str, str]]:
    """Return a docstring's text, and the text of each of its parts by their heads."""
    pieces = re.split(rf"^({'|'.join(PARTS)}):\n", doc, flags=re.MULTILINE)
    return pieces[0].strip(), {
        head: textwrap.dedent(text) for head, text in zip(pieces[1::2], pieces[2::2], strict=True)
    }


def _part(head: str, text: str) -> str:
    """Return one part of a docstring: a list of names, or a sentence."""
    if head in ("Returns", "Yields"):
        return f"\n{head}: {' '.join(text.split())}\n"
    entries = re.split(r"^(?=\S)", text, flags=re.MULTILINE)
    rows = [entry.split(":", 1) for entry in entries if entry.strip()]
    lines = "".join(f"- `{name.strip()}`: {' '.join(told.split())}\n" for name, told in rows)
    return f"\n{'Raises:' + chr(10) + chr(10) if head == 'Raises' else ''}{lines}"


def _signature(item: Callable[..., object]) -> str:
    """Return a function's head as its source has it, a parameter a line where it is long."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(item))).body[0]
    if not isinstance(tree, ast.FunctionDef):
        raise TypeError(f"{item.__name__}: is no function")
    a = tree.args
    plain = [each for each in (*a.posonlyargs, *a.args) if each.arg not in ("self", "cls")]
    defaults: Sequence[ast.expr | None] = [*[None] * (len(plain) - len(a.defaults)), *a.defaults]
    parameters = [_parameter(each, value) for each, value in zip(plain, defaults, strict=True)]
    parameters += ["*"] if a.kwonlyargs and a.vararg is None else []
    parameters += [f"*{_parameter(a.vararg, None)}"] if a.vararg else []
    parameters += [_parameter(each, value) for each, value in zip(a.kwonlyargs, a.kw_defaults, strict=True)]
    parameters += [f"**{_parameter(a.kwarg, None)}"] if a.kwarg else []
    back = f" -> {ast.unparse(tree.returns)}" if tree.returns else ""
    one = f"{tree.name}({', '.join(parameters)}){back}"
    return one if len(one) <= 100 else f"{tree.name}(\n    " + ",\n    ".join(parameters) + f",\n){back}"


def _parameter(argument: ast.arg, default: ast.expr | None) -> str:
    kind = f": {ast.unparse(argument.annotation)}" if argument.annotation else ""
    value = "" if default is None else f" = {ast.unparse(default)}" if kind else f"={ast.unparse(default)}"
    return f"{argument.arg}{kind}{value}"


def _fields(item: type) -> str:
    """Return a data class's fields, an enumeration's values, and the head of each public method and property."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(item))).body[0]
    if not isinstance(tree, ast.ClassDef):
        raise TypeError(f"{item.__name__}: is no class")
    fields = [node for node in tree.body if isinstance(node, ast.AnnAssign)] if is_dataclass(item) else []
    rows = [ast.unparse(node) for node in fields if not ast.unparse(node.target).startswith("_")]
    if any("Enum" in ast.unparse(base) for base in tree.bases):
        rows += [ast.unparse(node) for node in tree.body if isinstance(node, ast.Assign)]
    for name, each in vars(item).items():
        made = each.__func__ if isinstance(each, classmethod | staticmethod) else each
        if name.startswith("_") or getattr(made, "__doc__", None) is None:
            continue
        if isinstance(made, property) and made.fget:
            rows.append(f"{name}{_kind_of(made.fget)}  # {_first_line(made)}")
        elif inspect.isfunction(made):
            rows.append(f"def {_signature(made)}  # {_first_line(made)}")
    return "\n".join(rows)


def _kind_of(getter: Callable[..., object]) -> str:
    tree = ast.parse(textwrap.dedent(inspect.getsource(getter))).body[0]
    return f": {ast.unparse(tree.returns)}" if isinstance(tree, ast.FunctionDef) and tree.returns else ""


if __name__ == "__main__":
    for page, text in pages().items():
        (DOCS / page).write_text(text, encoding="utf-8")
