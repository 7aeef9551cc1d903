"""What the exit code says, for every command alike."""

from enum import IntEnum


class ExitCode(IntEnum):
    """Over many models: 2 beats 1 beats 3 beats 0."""

    DONE = 0
    NOT_REACHED = 1  # ran, and what was asked is not reached or violated
    COULD_NOT = 2  # usage, bad input, internal error
    NOTHING_CHECKED = 3
    INTERRUPTED = 130
