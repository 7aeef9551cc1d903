"""What long work tells while it runs: small facts, sent to a sink that the caller gives."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class PhaseStarted:
    """A named phase begins; ``total`` steps are expected (0: unknown)."""

    name: str
    total: int = 0


@dataclass(frozen=True, slots=True)
class StepDone:
    """Step ``step`` of ``total`` of the running phase is done; ``detail`` is a few words for the eye."""

    step: int
    total: int
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Note:
    """Something the user should read: a choice that was made, a fact that matters."""

    text: str


@dataclass(frozen=True, slots=True)
class PreprocessingMeasured:
    """Candidates for the preprocessing were measured; ``record`` is ``mothkit.preprocessing.Search.to_dict``."""

    record: Mapping[str, Any]


Event = PhaseStarted | StepDone | Note | PreprocessingMeasured
EventSink = Callable[[Event], None]


def silent(_event: Event) -> None:
    """Take an event and do nothing: the sink of callers who do not listen."""
