"""The metaparameters of NIST's APIs: a JSON file, held to a JSON Schema that lies beside it."""

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from mothkit.errors import ConfigError

_MAX_BYTES = 1 << 20
_Values = TypeVar("_Values", bound=BaseModel)


def read_values(path: Path, schema: Path | None, kind: type[_Values]) -> _Values:
    """Return the values at ``path`` as ``kind``, held to the JSON Schema at ``schema`` first, where there is one.

    Raises:
        ConfigError: one of them cannot be read, they break the schema, or ask for what mothkit does not know.
    """
    values = read_json(path)
    if schema is not None:
        _check(values, path, schema)
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def _check(values: object, path: Path, schema: Path) -> None:
    try:
        import jsonschema
    except ImportError as error:
        raise ConfigError(
            "metaparameters are checked by jsonschema; install it with pip install 'mothkit[trojai]'"
        ) from error
    try:
        jsonschema.validate(values, read_json(schema))
    except jsonschema.SchemaError as error:
        raise ConfigError(f"{schema}: is no JSON Schema: {error.message}") from error
    except jsonschema.ValidationError as error:
        raise ConfigError(f"{path}: {error.json_path}: {error.message}") from error


def read_json(path: Path) -> Any:  # noqa: ANN401 - whatever the JSON holds
    """Return what the JSON file at ``path`` holds.

    Raises:
        ConfigError: it cannot be read, or is too large.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ConfigError(f"{path}: {path.stat().st_size} bytes are too many")
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: cannot be read as JSON: {error}") from error
