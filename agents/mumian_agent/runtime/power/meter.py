"""What a power meter is, and how one is asked that may hang."""

from __future__ import annotations

import threading
from typing import Protocol


class MeterError(Exception):
    """The meter gives no reading, and why."""


class Meter(Protocol):
    """Something that knows a power."""

    @property
    def name(self) -> str:
        """For people: `rapl`, `redfish`, ..."""
        ...

    def power_mw(self) -> int:
        """The power now, in milliwatt. May block for long. Raises MeterError."""
        ...


class AskedMeter:
    """Asks a meter on a thread, one question at a time: a driver that hangs must not hang the agent."""

    def __init__(self, meter: Meter) -> None:
        self.name = meter.name
        self._meter = meter
        self._thread: threading.Thread | None = None
        self._answer: int | MeterError = MeterError("has not been asked")

    def ask(self) -> None:
        """Begin to ask, unless the last question still waits for its answer."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._read, name=f"meter-{self.name}", daemon=True)
            self._thread.start()

    def answer(self, within_s: float) -> int:
        """The power in milliwatt.

        Raises:
            MeterError: it has none, or does not answer in time; the question then goes on waiting.
        """
        assert self._thread is not None
        self._thread.join(within_s)
        if self._thread.is_alive():
            raise MeterError("does not answer")
        self._thread = None
        if isinstance(self._answer, MeterError):
            raise self._answer
        return self._answer

    def _read(self) -> None:
        try:
            self._answer = self._meter.power_mw()
        except MeterError as error:
            self._answer = error
        except Exception as error:  # a plug-in's or a driver's: whatever it is, there is no reading
            self._answer = MeterError(f"failed: {error!r}")
