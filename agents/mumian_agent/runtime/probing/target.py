"""One reflector: how it is probed, and what has been measured."""

from __future__ import annotations

import time
from collections.abc import Callable

from google.protobuf.timestamp_pb2 import Timestamp
from mumian.api.v1.fleet_pb2 import (
    FIGURE_SOURCE_MEASURED,
    PROBE_METHOD_GRPC,
    PROBE_METHOD_UDP,
    Link,
    ProbeMethod,
)

from mumian_agent.domain.fields import GRPC
from mumian_agent.domain.rtt_window import RttWindow
from mumian_agent.runtime.probing.udp_echo import UdpAddress

SAMPLES_MIN = 20
# Probes by UDP in a row without an answer, after which the target is called by gRPC.
UNANSWERED_MAX = 40
# So many samples make a link steady; a younger one is told with each look at it.
_SAMPLES_YOUNG = 64
# What is told of a steady link at once; what differs by less waits.
_CHANGE_PERMILLE, _CHANGE_US = 20, 50
_TELL_AGAIN_AFTER_S, _LOOK_AGAIN_AFTER_S = 10.0, 1.0


class Target:
    """The samples, all of them by one method: a call takes longer than a datagram does."""

    def __init__(self, address: str, new_window: Callable[[], RttWindow]) -> None:
        """`address` is host:port for UDP, or grpc://host:port."""
        self.address, self._new_window = address, new_window
        self.is_called_only = address.startswith(GRPC)
        self.method = PROBE_METHOD_GRPC if self.is_called_only else PROBE_METHOD_UDP
        self.udp: UdpAddress | None = None  # once it is known
        self.probes = 0
        self._unanswered = 0
        self._window, self._sample_time_ns = new_window(), 0
        self._is_news = False
        self._told: tuple[int, int] | None = None
        self._told_s = self._looked_s = -_TELL_AGAIN_AFTER_S

    @property
    def is_silent(self) -> bool:
        """UDP does not come back: it is called, and only now and then a datagram sent."""
        return self._unanswered >= UNANSWERED_MAX

    def sent(self) -> None:
        """A probe by UDP is under way."""
        self.probes += 1
        self._unanswered += 1

    def answered_by_udp(self, rtt_ns: int) -> None:
        """A datagram has come back."""
        self._unanswered = 0
        self._take(rtt_ns, PROBE_METHOD_UDP)

    def answered_by_call(self, rtt_ns: int) -> None:
        """A call has come back; it counts where no datagram does."""
        if self.is_called_only or self.is_silent:
            self._take(rtt_ns, PROBE_METHOD_GRPC)

    def tell_again(self) -> None:
        """Nobody knows what has been told."""
        self._told, self._is_news = None, self._told is not None or self._is_news

    def _take(self, rtt_ns: int, method: ProbeMethod.ValueType) -> None:
        if method != self.method:
            self.method, self._window, self._told = method, self._new_window(), None
        self._window.add(max(rtt_ns, 1000) // 1000)
        self._sample_time_ns, self._is_news = time.time_ns(), True

    def news(self, now_s: float) -> Link | None:
        """The link, if there is something new to tell of it; without its ends."""
        if not self._is_news or now_s - self._looked_s < _LOOK_AGAIN_AFTER_S:
            return None
        count = len(self._window)
        if count < SAMPLES_MIN:
            return None
        self._looked_s, self._is_news = now_s, False
        rtt_p50_us, rtt_p99_us = self._window.quantiles_us(500, 990)
        is_due = count < _SAMPLES_YOUNG or now_s - self._told_s >= _TELL_AGAIN_AFTER_S
        if self._told is not None and not is_due and not _differ(self._told, (rtt_p50_us, rtt_p99_us)):
            return None
        self._told, self._told_s = (rtt_p50_us, rtt_p99_us), now_s
        sample_time = Timestamp()
        sample_time.FromNanoseconds(self._sample_time_ns)
        return Link(
            rtt_p50_us=rtt_p50_us,
            rtt_p99_us=rtt_p99_us,
            source=FIGURE_SOURCE_MEASURED,
            probe_method=self.method,
            sample_count=count,
            sample_time=sample_time,
        )


def _differ(told: tuple[int, int], now: tuple[int, int]) -> bool:
    return any(
        abs(new - old) >= max(_CHANGE_US, old * _CHANGE_PERMILLE // 1000)
        for old, new in zip(told, now, strict=True)
    )
