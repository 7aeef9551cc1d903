"""The options that say how a model and its images are opened: declared once, added to each command."""

import dataclasses
import functools
import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_type_hints

from mothkit_cli import options

if TYPE_CHECKING:
    from mothkit.opening import Settings
    from mothkit_cli.guard import Command


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What ``mothkit.opening.Settings`` takes, as the command line says it."""

    per_class: options.PerClass = None
    resize: options.Resize = None
    preprocess: options.Preprocess = None
    layout: options.Layout = None
    channels: options.Channels = None
    output: options.Output = None
    device: options.Device = "auto"
    labels: options.Labels = None
    seed: options.Seed = 0

    def settings(self) -> "Settings":
        """Return the toolkit's settings."""
        from mothkit.opening import Settings

        return Settings(**self.values())

    def values(self) -> "Values":
        """Return the settings as keyword arguments."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}  # type: ignore[return-value]


if TYPE_CHECKING:
    from typing import TypedDict

    class Values(TypedDict):
        """Keyword arguments of ``Settings``."""

        per_class: int | None
        resize: Literal["stretch", "fit-crop", "crop"] | None
        preprocess: str | None
        layout: Literal["nchw", "nhwc"] | None
        channels: Literal["rgb", "bgr", "gray"] | None
        output: str | None
        device: str
        labels: Path | None
        seed: int


def with_opening(command: "Command") -> "Command":
    """Return ``command`` with the fields of ``Opening`` as options in place of its parameter ``opening``."""
    hints = get_type_hints(Opening, include_extras=True)
    fields = dataclasses.fields(Opening)

    @functools.wraps(command)
    def run(**values: object) -> None:
        chosen = {field.name: values.pop(field.name) for field in fields}
        command(**values, opening=Opening(**chosen))  # type: ignore[arg-type]

    added = [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name]
        )
        for field in fields
    ]
    signature = inspect.signature(command, eval_str=False)
    kept = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in signature.parameters.values()
        if parameter.name != "opening"
    ]
    run.__signature__ = signature.replace(parameters=[*kept, *added])  # type: ignore[attr-defined]
    return run
