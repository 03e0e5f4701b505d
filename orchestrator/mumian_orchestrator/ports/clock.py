"""The coordinator's clock, so that a simulation can have its own."""

from __future__ import annotations

from typing import Protocol

from google.protobuf.timestamp_pb2 import Timestamp


class Clock(Protocol):
    """Time by this machine."""

    def now(self) -> Timestamp:
        """Wall-clock time, for people and for comparing with agents' clocks."""

    def monotonic_s(self) -> float:
        """Seconds that never run backwards, for measuring spans."""
