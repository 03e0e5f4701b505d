"""This machine's clocks."""

from __future__ import annotations

import time

from google.protobuf.timestamp_pb2 import Timestamp


class SystemClock:
    """Wall clock and monotonic clock of the operating system."""

    def now(self) -> Timestamp:
        """Now, to the nanosecond."""
        seconds, nanos = divmod(time.time_ns(), 1_000_000_000)
        return Timestamp(seconds=seconds, nanos=nanos)

    def monotonic_s(self) -> float:
        """Seconds since some point in the past; never runs backwards."""
        return time.monotonic()
