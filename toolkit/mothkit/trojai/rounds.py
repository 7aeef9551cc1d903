"""The image-classification rounds: what their models are given, and how a round is told from its files."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from mothkit.errors import ConfigError
from mothkit.inputs import InputSpec, presets

_CROP = 7 / 8  # of the images' side: 224 of 256 pixels


@dataclass(frozen=True, slots=True)
class Round:
    """What one round's models are given.

    Attributes:
        name: ``round0`` to ``round4``, ``round11`` or ``mitigation2024``.
        preset: the name of the documented preprocessing.
        channels: the order of their colours.
        crops: whether they see the middle of their images only.
    """

    name: str
    preset: str
    channels: str
    crops: bool

    @property
    def spec(self) -> InputSpec:
        """How pixels become the input."""
        return InputSpec.from_dict(
            presets()[self.preset].to_dict() | {"layout": "nchw", "channels": self.channels}
        )

    def input_side(self, image_side: int) -> int:
        """Return the side of what a model is given, in pixels, of images of this side."""
        return round(image_side * _CROP) if self.crops else image_side


ROUNDS: Mapping[str, Round] = MappingProxyType(
    {
        each.name: each
        for each in (
            Round("round0", "minmax", "bgr", crops=False),
            Round("round1", "minmax", "bgr", crops=False),
            Round("round2", "minmax", "rgb", crops=True),
            Round("round3", "minmax", "rgb", crops=True),
            Round("round4", "unit", "rgb", crops=True),
            Round("round11", "unit", "rgb", crops=False),
            Round("mitigation2024", "unit", "rgb", crops=False),
        )
    }
)
_MITIGATION = {
    "mitigate-example-data",
    "test-example-data",
    "new-clean-example-data",
    "new-poisoned-example-data",
}


def round_named(name: str) -> Round:
    """Return the round of this name.

    Raises:
        ConfigError: there is none.
    """
    if name not in ROUNDS:
        raise ConfigError(f"no round is called {name!r}; there are {', '.join(ROUNDS)}")
    return ROUNDS[name]


def recognise(entries: Collection[str], config: Mapping[str, Any], row: Mapping[str, Any]) -> Round | None:
    """Return the round that a model's files are of, or None where they could be several rounds'.

    Args:
        entries: what its folder holds, by name.
        config: its config.json, keys in lower case; empty if there is none.
        row: its line of METADATA.csv; empty if there is none.
    """
    if _MITIGATION & set(entries):
        return ROUNDS["mitigation2024"]
    name = _by_config(config) if config else _by_row(row)
    if name is None and not config and not row:
        name = _by_folders(entries)
    return None if name is None else ROUNDS[name]


def _by_config(config: Mapping[str, Any]) -> str | None:
    if str(config.get("model_architecture")).startswith("classification:"):
        return "round11"
    if "triggers" in config or "trigger_organization" in config:
        return "round4"
    if "poisoned" in config:
        return "round3" if "adversarial_training_method" in config else "round2"
    return None


def _by_row(row: Mapping[str, Any]) -> str | None:
    if str(row.get("model_architecture")).startswith("classification:"):
        return "round11"
    if any(key.startswith("triggers_0_") for key in row):
        return "round4"
    if "poisoned" in row and "trigger_target_class" in row:
        return "round3" if "adversarial_training_method" in row else "round2"
    return "round0" if "ground_truth" in row and "trigger_size" in row else None


def _by_folders(entries: Collection[str]) -> str | None:
    """Return the round whose folders alone say it; those of rounds 2 to 4 do not."""
    if "clean-example-data" in entries:
        return "round11"
    only = {entry for entry in entries if entry.endswith(("data", "foregrounds"))}
    return "round1" if only == {"example_data"} and "config.json" not in entries else None
