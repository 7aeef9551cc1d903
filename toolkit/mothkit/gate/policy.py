"""The policy: which checks are made, and what they ask for. Read from TOML, with errors that name line and key."""

import hashlib
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from mothkit.errors import ConfigError
from mothkit.gate.lines import KeyPath, key_lines, line_of

PRESETS = ("basic", "strict")
MAX_BYTES = 64 * 2**10

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Size = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1)]
Names = Annotated[list[Name], Field(min_length=1)]
Count = Annotated[int, Field(ge=1)]


class PolicyError(ConfigError):
    """A policy cannot be read.

    Attributes:
        problems: line (0: none), key and what is wrong, in the file's order.
        lines: the same as sentences.
    """

    def __init__(self, name: str, problems: Sequence[tuple[int, str, str]]) -> None:
        self.problems = tuple(sorted(problems))
        self.lines = tuple(_sentence(name, *problem) for problem in self.problems)
        super().__init__("; ".join(self.lines))


def _sentence(name: str, line: int, key: str, told: str) -> str:
    return ": ".join(part for part in (f"{name}:{line}" if line else name, key, told) if part)


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Check(_Table):
    """What every check has: what a violation means."""

    LIMITS: ClassVar[tuple[str, ...]] = ()

    level: Literal["fail", "warn", "off"] = Field(
        default="fail", description="What a violation means; off: not checked."
    )

    @model_validator(mode="after")
    def _asks_something(self) -> "Check":
        """Refuse a check that is on and could never be violated."""
        if self.level != "off" and self.LIMITS and all(getattr(self, name) is None for name in self.LIMITS):
            raise ValueError(
                f'is on and asks for nothing; set one of {", ".join(self.LIMITS)}, or level = "off"'
            )
        return self


class FileCheck(Check):
    """That the file is a whole ONNX model, which is checked always, and what it may be."""

    external_data: bool = Field(
        default=True, description="Whether weights may lie in external files within its folder."
    )
    max_bytes: Count | None = Field(default=None, description="Of the model and its external files together.")


class OperatorsCheck(Check):
    """What the graph may be made of."""

    LIMITS = ("allow", "min_opset", "max_opset")

    allow: Names | None = Field(
        default=None, description="Operators: Conv, or domain:Operator outside ONNX's own."
    )
    min_opset: Count | None = Field(default=None, description="Lowest version of ONNX's operator set.")
    max_opset: Count | None = Field(default=None, description="Highest version of ONNX's operator set.")


class ProvenanceCheck(Check):
    """What the record beside the file says."""

    required: bool = Field(default=True, description="Whether a file without a record is an error.")
    methods: Names | None = Field(default=None, description="By which methods it may have been hardened.")
    signed: bool = Field(default=False, description="Whether a run without --pub is an error.")


class AccuracyCheck(Check):
    """Clean accuracy on the images of --data; shares, 0 to 1."""

    LIMITS = ("min", "min_lower")

    min: Share | None = Field(default=None, description="Least accuracy.")
    min_lower: Share | None = Field(default=None, description="Least lower end of its 95 % interval.")


class AccuracyDropCheck(Check):
    """Accuracy of --baseline less that of the model, on the same images; shares, 0 to 1."""

    LIMITS = ("max", "max_upper")

    required: bool = Field(default=True, description="Whether a run without --baseline is an error.")
    max: Share | None = Field(default=None, description="Most accuracy that may be lost.")
    max_upper: Share | None = Field(
        default=None, description="Most that the upper end of its 95 % interval may be."
    )


class TriggersCheck(Check):
    """What each --trigger does; shares, 0 to 1."""

    LIMITS = ("max_asr", "max_asr_upper", "max_excess_asr", "min_robust_accuracy")

    required: bool = Field(default=True, description="Whether a run without --trigger is an error.")
    max_asr: Share | None = Field(default=None, description="Most ASR.")
    max_asr_upper: Share | None = Field(
        default=None, description="Most that the upper end of its 95 % interval may be."
    )
    max_excess_asr: Share | None = Field(
        default=None, description="Most ASR less the rate of unstamped images."
    )
    min_robust_accuracy: Share | None = Field(default=None, description="Least accuracy on stamped images.")


class ParityCheck(Check):
    """Whether providers of onnxruntime give the same logits."""

    LIMITS = ("providers",)

    providers: Names | None = Field(
        default=None,
        description="onnxruntime's names. CPUExecutionProvider is compared with the torch import, others with it.",
    )


class DistanceCheck(Check):
    """Class distance: L1 of the smallest trigger found, in pixels, times channels."""

    LIMITS = ("min_mean", "min_pair", "min_universal")

    min_mean: Size | None = Field(default=None, description="Least mean over pairs of classes.")
    min_pair: Size | None = Field(default=None, description="Least distance of any pair of classes.")
    min_universal: Size | None = Field(
        default=None, description="Least size of a trigger from all classes to one."
    )
    classes: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=2)] | None = Field(
        default=None, description="The classes whose pairs are measured; all by default."
    )


class AnomalyCheck(Check):
    """How far the smallest trigger from all classes to one lies below those to the others."""

    LIMITS = ("max_index", "min_share")

    max_index: Size | None = Field(default=None, description="Most deviations (MAD) below the median.")
    min_share: Share | None = Field(
        default=None, description="Least size of the smallest, as a share of the median."
    )


class Inversion(_Table):
    """How triggers are searched for, in the checks distance and anomaly."""

    steps: Count = Field(default=200, description="Passes over a trigger's images.")
    images: Count = Field(default=100, description="Images of a trigger, at most.")


class Limits(_Table):
    """What a run may cost."""

    seconds: Seconds | None = Field(
        default=None, description="Time after which the run stops; what is not checked by then is an error."
    )


class Policy(_Table):
    """A policy of mothkit gate. A check whose table is missing is off."""

    version: Literal[1] = Field(description="Of this format.")
    preset: Literal["basic", "strict"] | None = Field(
        default=None, description="A policy that this one changes."
    )
    file: FileCheck | None = None
    operators: OperatorsCheck | None = None
    provenance: ProvenanceCheck | None = None
    accuracy: AccuracyCheck | None = None
    accuracy_drop: AccuracyDropCheck | None = None
    triggers: TriggersCheck | None = None
    parity: ParityCheck | None = None
    distance: DistanceCheck | None = None
    anomaly: AnomalyCheck | None = None
    inversion: Inversion = Inversion()
    budget: Limits = Limits()

    def checks(self) -> dict[str, Check]:
        """Return the checks that are on, by the names of their tables, in the order in which they are made."""
        tables = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: t for name, t in tables.items() if isinstance(t, Check) and t.level != "off"}


@dataclass(frozen=True, slots=True)
class NamedPolicy:
    """A policy with where it came from.

    Attributes:
        name: of the file, or the preset.
        sha256: of its text.
    """

    policy: Policy
    name: str
    sha256: str


def preset_text(name: str) -> str:
    """Return the TOML of the preset ``name``, one of ``PRESETS``."""
    return (files("mothkit.gate") / "presets" / f"{name}.toml").read_text(encoding="utf-8")


def load_policy(where: str | Path) -> NamedPolicy:
    """Return the policy in the file ``where``, or the preset of that name.

    Raises:
        PolicyError: it cannot be read, or is no policy; each problem names its line and key.
    """
    if str(where) in PRESETS:
        return read_policy(preset_text(str(where)), str(where))
    path = Path(where)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise PolicyError(str(path), [(1, "", f"has more than {MAX_BYTES} bytes; expected a policy")])
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise PolicyError(str(path), [(0, "", f"cannot be read ({error.strerror})")]) from error
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise PolicyError(str(path), [(line, "", "is no UTF-8 text")]) from error
    return read_policy(text.replace("\r\n", "\n"), path.name)


def read_policy(text: str, name: str) -> NamedPolicy:
    """Return the policy in ``text``; ``name`` is what messages and records call it.

    Raises:
        PolicyError: it is none; each problem names its line and key.
    """
    try:
        values = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise PolicyError(name, [_syntax_problem(text, error)]) from error
    try:
        policy = Policy.model_validate(_over_preset(values))
    except ValidationError as error:
        lines = key_lines(text)
        raise PolicyError(name, [_problem(each, lines) for each in error.errors()]) from error
    return NamedPolicy(policy, name, hashlib.sha256(text.encode()).hexdigest())


def _over_preset(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``values`` over those of the preset that they name: tables are merged key by key."""
    if values.get("preset") not in PRESETS:
        return dict(values)
    merged: dict[str, Any] = tomllib.loads(preset_text(values["preset"]))
    del merged["version"]  # each file says its own
    for key, value in values.items():
        below = merged.get(key)
        merged[key] = below | value if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _syntax_problem(text: str, error: Exception) -> tuple[int, str, str]:
    """Return line, key and words for a text that is no TOML."""
    found = re.search(r"\(at line (\d+)", str(error))
    lines = text.rstrip("\n").split("\n")
    line = int(found[1]) if found else len(lines)
    before = lines[min(line, len(lines)) - 1].split("#")[0]
    key = before.split("=")[0].strip().strip("[]").strip()
    return line, key, f"is no TOML: {error}"


def _problem(error: ErrorDetails, lines: Mapping[KeyPath, int]) -> tuple[int, str, str]:
    path: KeyPath = error["loc"]
    words = {
        "extra_forbidden": f"is not known; known here: {', '.join(_known(path[:-1]))}",
        "missing": "is missing",
    }
    told = words.get(error["type"], error["msg"].removeprefix("Value error, "))
    if error["type"] not in ("missing", "extra_forbidden", "value_error"):
        told += f"; found {error['input']!r}"
    return line_of(path, lines), ".".join(map(str, path)), told


def _known(path: KeyPath) -> Iterable[str]:
    """Return the keys of the table at ``path``: the file itself, or one of its tables."""
    if not path:
        return Policy.model_fields
    annotation = Policy.model_fields[str(path[0])].annotation
    tables = [each for each in (annotation, *get_args(annotation)) if isinstance(each, type)]
    return next(each.model_fields for each in tables if issubclass(each, BaseModel))
