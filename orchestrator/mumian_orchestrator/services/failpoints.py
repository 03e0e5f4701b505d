"""Places at which the fault suite lets a coordinator die, as by kill -9. Without MUMIAN_FAILPOINTS they do
nothing.

MUMIAN_FAILPOINTS names a file. Whoever writes a place's name into it has the first coordinator that comes by
there die; that one takes the file away, so that its successor lives.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

_FILE = os.environ.get("MUMIAN_FAILPOINTS")


class Failpoint(StrEnum):
    """Each is between two steps that only together keep a promise."""

    BEFORE_COMMIT = "before-commit"  # memory has the change, the store has not
    BEFORE_ACKNOWLEDGEMENT = "before-acknowledgement"  # the store has it, nobody was told
    BEFORE_DISPATCH = "before-dispatch"  # an allocation is stored, its agent was not told
    BEFORE_REPORT = "before-report"  # the agent was told, and what it answers is lost
    BEFORE_CONFIRMATION = "before-confirmation"  # its answer is stored, and it does not know


Listener = Callable[[Failpoint], None]


def reach(failpoint: Failpoint) -> None:
    """Die here, if that is asked for."""
    if _listener is not None:
        _listener(failpoint)


def listen(listener: Listener | None) -> None:
    """Tell a simulation of every place that is reached, instead of dying there."""
    global _listener
    _listener = listener


def _die_if_asked(failpoint: Failpoint) -> None:
    assert _FILE is not None
    try:
        if Path(_FILE).read_text() != failpoint:
            return
        Path(_FILE).unlink()
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


_listener: Listener | None = None if _FILE is None else _die_if_asked
