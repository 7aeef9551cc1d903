"""Settings by name and text: ``learning_rate=0.1`` for the field of a config, ``inversion.steps=80`` for one within."""

import types
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from mothkit.errors import ConfigError

T = TypeVar("T")
_WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def known_settings(config: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield name and value of each field of the dataclass ``config``, those of dataclasses within it by their path."""
    for each in fields(config):  # type: ignore[arg-type]
        value = getattr(config, each.name)
        if is_dataclass(value):
            yield from known_settings(value, f"{prefix}{each.name}.")
        else:
            yield f"{prefix}{each.name}", value


def with_settings(config: T, given: Mapping[str, str]) -> T:
    """Return ``config`` with the fields named in ``given`` replaced, their texts read by the fields' types.

    Raises:
        ConfigError: a name is unknown, a text does not fit its field, or the values do not fit each other.
    """
    names = [name for name, _ in known_settings(config)]
    if unknown := [name for name in given if name not in names]:
        raise ConfigError(f"no setting is called {unknown[0]!r}; there are {', '.join(names)}")
    return _replaced(config, given, "")


def _replaced(config: T, given: Mapping[str, str], prefix: str) -> T:
    hints = get_type_hints(type(config))
    changes: dict[str, Any] = {}
    for each in fields(config):  # type: ignore[arg-type]
        path = f"{prefix}{each.name}"
        value = getattr(config, each.name)
        if is_dataclass(value):
            if any(name.startswith(f"{path}.") for name in given):
                changes[each.name] = _replaced(value, given, f"{path}.")
        elif path in given:
            changes[each.name] = _read(given[path], hints[each.name], path)
    return replace(config, **changes)  # type: ignore[type-var]


def _read(text: str, kind: Any, name: str) -> Any:  # noqa: ANN401 - a type, and a value of it
    """Return ``text`` as a value of the type ``kind``."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        some = next(each for each in inner if each is not type(None))
        return None if text == "none" else _read(text, some, name)
    if origin is tuple:
        return tuple(_read(part, inner[0], name) for part in text.split(",") if part)
    if origin is Literal:
        if text not in inner:
            raise ConfigError(f"{name} is {text!r}, not one of {', '.join(inner)}")
        return text
    try:
        return _WORDS[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError) as error:
        raise ConfigError(f"{name} is {text!r}, expected {_told(kind)}") from error


def _told(kind: type) -> str:
    return {bool: "true or false", int: "a whole number", float: "a number"}.get(kind, kind.__name__)
