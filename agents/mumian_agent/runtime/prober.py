"""Measures round-trip times to reflectors within a budget of packets: by UDP, or by calls."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager

from google.protobuf.timestamp_pb2 import Timestamp
from mumian.api.v1.fleet_pb2 import FIGURE_SOURCE_MEASURED, Link

from mumian_agent.domain.fields import GRPC, host_and_port
from mumian_agent.domain.probe_packet import NONCE_BYTES, PACKET_BYTES, nonce_of_answer, request
from mumian_agent.domain.rtt_window import RttWindow

log = logging.getLogger(__name__)

SAMPLES_MIN = 20
# At the start a burst, so that a new site is not without links for the first seconds.
_BURST, _BURST_INTERVAL_S = 25, 0.01
_LOST_AFTER_S = 2.0
_RESOLVE_AGAIN_AFTER_S = 5.0
# Pauses differ by up to so much, so that sites that start together do not probe together.
_JITTER = 0.25
# The kernel stamps datagrams on arrival, so that it does not count how long this process was busy.
_SO_TIMESTAMPNS = 35
_TIMESPEC = struct.Struct("@qq")
# A call by HTTP/2 over TCP is one datagram for the request, one for the answer, and two that acknowledge.
_PACKETS_OF_CALL = 2

# Connects to an address; what it yields makes one round trip, and raises NoAnswerError.
Connect = Callable[[str], AbstractAsyncContextManager[Callable[[], Awaitable[None]]]]


class NoAnswerError(Exception):
    """A call to a reflector has not come back, and why."""


class _Target:
    """One reflector: the probes under way and the newest samples."""

    def __init__(self, address: str, window: RttWindow, connect: Connect | None) -> None:
        self.address, self.window = address, window
        self._connect = connect
        self.sample_time_ns = 0
        self.is_news = False
        self.task: asyncio.Task[None] | None = None
        self._sent_ns: dict[bytes, int] = {}

    async def probe(self, pause_s: Callable[[bool], float]) -> None:
        """Send probes for ever; `pause_s` tells how long to wait after one, in the first burst or later."""
        await asyncio.sleep(random.uniform(0, pause_s(True)))  # not all targets of a new list at once
        while True:
            try:
                if self._is_called:
                    await self._probe_by_calls(pause_s)
                else:
                    await self._probe_resolved(pause_s)
            except OSError as error:
                log.warning("probe target %s cannot be probed (%s); trying again", self.address, error)
                await asyncio.sleep(_RESOLVE_AGAIN_AFTER_S)

    @property
    def packets(self) -> int:
        """That this site sends for one probe."""
        return _PACKETS_OF_CALL if self._is_called else 1

    @property
    def _is_called(self) -> bool:
        return self._connect is not None and self.address.startswith(GRPC)

    async def _probe_by_calls(self, pause_s: Callable[[bool], float]) -> None:
        """Until this process sees the answer, so a round trip is never told too short."""
        assert self._connect is not None
        async with self._connect(self.address.removeprefix(GRPC)) as round_trip:
            is_connected = False
            for count in range(1 << 62):
                begun_ns = time.monotonic_ns()
                try:
                    await round_trip()
                    # The first one has made the connection, too.
                    if is_connected:
                        self._take(time.monotonic_ns() - begun_ns)
                    is_connected = True
                except NoAnswerError:
                    is_connected = False
                await asyncio.sleep(pause_s(count < _BURST))

    async def _probe_resolved(self, pause_s: Callable[[bool], float]) -> None:
        loop = asyncio.get_running_loop()
        host, port = host_and_port(self.address)
        family, kind, _, _, address = (await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM))[0]
        with socket.socket(family, kind) as connection:
            connection.setblocking(False)
            connection.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            connection.connect(address)
            loop.add_reader(connection, self._receive, connection)
            try:
                for count in range(1 << 62):
                    self._send(connection)
                    await asyncio.sleep(pause_s(count < _BURST))
            finally:
                loop.remove_reader(connection)

    def _send(self, connection: socket.socket) -> None:
        now_ns = time.monotonic_ns()
        for nonce in [n for n, sent in self._sent_ns.items() if now_ns - sent > _LOST_AFTER_S * 1e9]:
            del self._sent_ns[nonce]
        nonce = os.urandom(NONCE_BYTES)
        self._sent_ns[nonce] = time.monotonic_ns()
        try:
            connection.send(request(nonce))
        except (ConnectionRefusedError, BlockingIOError):
            del self._sent_ns[nonce]  # nobody listens there now; perhaps the next time

    def _receive(self, connection: socket.socket) -> None:
        while True:
            try:
                data, ancillary, _, _ = connection.recvmsg(
                    PACKET_BYTES + 1, socket.CMSG_SPACE(_TIMESPEC.size)
                )
            except ConnectionRefusedError:
                continue
            except BlockingIOError:
                return
            now_ns, clock_ns = time.monotonic_ns(), time.time_ns()
            sent_ns = self._sent_ns.pop(nonce_of_answer(data) or b"", None)
            if sent_ns is not None:
                waited_ns = max(0, clock_ns - _arrival_ns(ancillary, clock_ns))
                self._take(now_ns - sent_ns - waited_ns)

    def _take(self, rtt_ns: int) -> None:
        self.window.add(max(rtt_ns, 1000) // 1000)
        self.sample_time_ns, self.is_news = time.time_ns(), True


class Prober:
    """All targets of one site."""

    def __init__(
        self,
        site_id: str,
        routes: Mapping[str, str],
        interval_ms: int,
        window: int,
        bandwidth_kbps: Mapping[str, int] | None = None,
        packets_per_second_max: int = 200,
        connect: Connect | None = None,
        window_s: float = 300.0,
    ) -> None:
        """`interval_ms` is between two probes of a target: longer, if all targets together would send more
        than `packets_per_second_max`. Quantiles are of the newest `window` samples of the last `window_s`.
        `bandwidth_kbps` is what is declared of links, by target; it goes with what is measured. `connect`
        is how targets are called whose address begins with grpc://.
        """
        self._site_id, self._routes = site_id, routes
        self._bandwidth_kbps = bandwidth_kbps or {}
        self._interval_s, self._window = interval_ms / 1000, window
        self._packets_per_second_max, self._connect = packets_per_second_max, connect
        self._window_s = window_s
        self._targets: dict[str, _Target] = {}
        self._packets = 0  # that one probe of each takes

    def set_targets(self, addresses: Mapping[str, str]) -> None:
        """Probe exactly these, by id, at (grpc://)host:port; what is known of those that stay is kept."""
        for target_id in list(self._targets):
            if self._targets[target_id].address != self._route(target_id, addresses.get(target_id, "")):
                self._end(target_id)
        for target_id, address in addresses.items():
            if target_id not in self._targets:
                window = RttWindow(self._window, self._window_s)
                target = _Target(self._route(target_id, address), window, self._connect)
                target.task = asyncio.create_task(target.probe(self._pause_s))
                self._targets[target_id] = target
        self._packets = sum(target.packets for target in self._targets.values())

    def news(self) -> list[Link]:
        """The links with samples that were not in the last news, once there are enough."""
        links = []
        for target_id, target in self._targets.items():
            if target.is_news and len(target.window) >= SAMPLES_MIN:
                target.is_news = False
                links.append(self._link(target_id, target))
        return links

    def close(self) -> None:
        """Probe nothing any more."""
        for target_id in list(self._targets):
            self._end(target_id)

    def _pause_s(self, is_burst: bool) -> float:
        """An equal part of the budget for every target: on average all together stay within it."""
        fair_s = self._packets / self._packets_per_second_max
        mean_s = max(_BURST_INTERVAL_S if is_burst else self._interval_s, fair_s)
        return mean_s * random.uniform(1 - _JITTER, 1 + _JITTER)

    def _route(self, target_id: str, address: str) -> str:
        return self._routes.get(target_id, address) if address else ""

    def _end(self, target_id: str) -> None:
        task = self._targets.pop(target_id).task
        if task is not None:
            task.cancel()

    def _link(self, target_id: str, target: _Target) -> Link:
        sample_time = Timestamp()
        sample_time.FromNanoseconds(target.sample_time_ns)
        rtt_p50_us, rtt_p99_us = target.window.quantiles_us(500, 990)
        return Link(
            from_id=target_id,
            to_site_id=self._site_id,
            rtt_p50_us=rtt_p50_us,
            rtt_p99_us=rtt_p99_us,
            source=FIGURE_SOURCE_MEASURED,
            sample_count=len(target.window),
            sample_time=sample_time,
            bandwidth_kbps=self._bandwidth_kbps.get(target_id, 0),
        )


def _arrival_ns(ancillary: list[tuple[int, int, bytes]], default_ns: int) -> int:
    """The kernel's stamp, by the wall clock: only ever compared with the same clock an instant later."""
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS and len(data) >= _TIMESPEC.size:
            seconds, nanoseconds = _TIMESPEC.unpack_from(data)
            return int(seconds * 1_000_000_000 + nanoseconds)
    return default_ns
