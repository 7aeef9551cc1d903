import io

from rich.console import Console

from mothkit.events import Event, Note, PhaseStarted, StepDone
from mothkit_cli.progress import _Lines, clock, progress_sink

EVENTS: list[Event] = [
    PhaseStarted("warm-up", 3),
    *(StepDone(step, 3, f"trigger {step}") for step in (1, 2, 3)),
    Note("a choice"),
    PhaseStarted("measure"),
    StepDone(1, 0),
]


def shown(*, terminal: bool, quiet: bool = False) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, color_system=None, width=120)
    with progress_sink(quiet=quiet, console=console) as emit:
        for event in EVENTS:
            emit(event)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_without_a_terminal_phases_and_notes_are_lines() -> None:
    assert shown(terminal=False).splitlines() == ["warm-up (3 steps)", "a choice", "measure"]


def test_on_a_terminal_the_bar_is_drawn_and_phases_leave_their_time() -> None:
    text = shown(terminal=True)
    for part in ("━━", "a choice", "warm-up: 0:00", "measure: 0:00"):
        assert part in text


def test_quiet_shows_nothing() -> None:
    assert shown(terminal=False, quiet=True) == shown(terminal=True, quiet=True) == ""


def test_long_phases_write_a_line_now_and_then_with_the_time_left() -> None:
    times = iter(range(0, 1000, 4))  # each look at the clock finds 4 more seconds gone
    lines: list[str] = []
    sink = _Lines(lines.append, now=lambda: float(next(times)))
    sink.take(PhaseStarted("pairs", 10))
    for step in range(1, 7):
        sink.take(StepDone(step, 10, "3-5"))
    assert lines == ["pairs (10 steps)", "pairs 3/10, 3-5, 0:28 left", "pairs 6/10, 3-5, 0:16 left"]


def test_an_unknown_total_has_no_time_left() -> None:
    times = iter(range(0, 1000, 60))
    lines: list[str] = []
    sink = _Lines(lines.append, now=lambda: float(next(times)))
    sink.take(PhaseStarted("scan"))
    sink.take(StepDone(1, 0, "a.onnx"))
    assert lines == ["scan", "scan 1, a.onnx"]


def test_durations_read_as_a_clock() -> None:
    assert [clock(seconds) for seconds in (0, 59.6, 61, 3600)] == ["0:00", "1:00", "1:01", "1:00:00"]
