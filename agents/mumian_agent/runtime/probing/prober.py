"""All targets of a site: who is probed when, so that all together stay within the budget of packets."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import random
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from mumian.api.v1.fleet_pb2 import PROBE_METHOD_GRPC, Link

from mumian_agent.domain.fields import GRPC, host_and_port
from mumian_agent.domain.rtt_window import RttWindow
from mumian_agent.runtime.probing.target import Target
from mumian_agent.runtime.probing.udp_echo import UdpAddress, UdpEcho

log = logging.getLogger(__name__)

# At the start a burst, so that a new site is not without links for the first seconds.
_BURST, _BURST_INTERVAL_S = 25, 0.01
# All that is due within it is sent at once, and all that has come back is collected: what wakes this process
# costs more than what it sends then.
_ROUND_S = 0.1
_RESOLVE_AGAIN_AFTER_S = 5.0
# The longest that it sleeps: a target may be new.
_SLEEP_MAX_S = 0.25
# A target that has fallen silent is probed by UDP this rarely, to see whether it is back; and called this
# rarely, as long as nobody answers calls either.
_KNOCK_EVERY_S = 5.0
# Pauses differ by up to so much, so that sites that start together do not probe together.
_JITTER = 0.25
# A call by HTTP/2 over TCP is one datagram for the request, one for the answer, and two that acknowledge.
_PACKETS_OF_CALL = 2

# Connects to an address; what it yields makes one round trip, and raises NoAnswerError.
Connect = Callable[[str], AbstractAsyncContextManager[Callable[[], Awaitable[None]]]]


class NoAnswerError(Exception):
    """A call to a reflector has not come back, and why."""


class Prober:
    """The reflectors that a site measures its distance to: by UDP, and where that does not come back, by
    calls to the same host and port.
    """

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
        is how targets are called; without it none is.
        """
        self._site_id, self._routes = site_id, routes
        self._bandwidth_kbps = bandwidth_kbps or {}
        self._interval_s, self._window, self._window_s = interval_ms / 1000, window, window_s
        self._packets_per_second_max, self._connect = packets_per_second_max, connect
        self._echo = UdpEcho()
        self._targets: dict[str, Target] = {}
        self._due: list[tuple[float, int, Target]] = []  # a heap of who is to be probed by UDP, and when
        self._numbers = itertools.count()
        self._packets = 0  # that one probe of each target takes
        self._rounds: asyncio.Task[None] | None = None
        self._works: dict[Target, set[asyncio.Task[None]]] = {}

    def set_targets(self, addresses: Mapping[str, str]) -> None:
        """Probe exactly these, by id, at (grpc://)host:port; what is known of those that stay is kept."""
        for target_id in list(self._targets):
            if self._targets[target_id].address != self._route(target_id, addresses.get(target_id, "")):
                self._end(target_id)
        for target_id, address in addresses.items():
            if target_id not in self._targets:
                self._begin(target_id, self._route(target_id, address))
        self._count_packets()
        if self._targets and self._rounds is None:
            self._rounds = asyncio.create_task(self._run())

    def news(self) -> list[Link]:
        """The links of which there is something new to tell, each at most once a second."""
        now_s, links = time.monotonic(), []
        for target_id, target in self._targets.items():
            if (link := target.news(now_s)) is not None:
                link.from_id, link.to_site_id = target_id, self._site_id
                link.bandwidth_kbps = self._bandwidth_kbps.get(target_id, 0)
                links.append(link)
        return links

    def tell_all(self) -> None:
        """Whoever hears the news next knows none of the links."""
        for target in self._targets.values():
            target.tell_again()

    def close(self) -> None:
        """Probe nothing any more."""
        for target_id in list(self._targets):
            self._end(target_id)
        if self._rounds is not None:
            self._rounds.cancel()
        self._echo.close()

    def _begin(self, target_id: str, address: str) -> None:
        target = Target(address, lambda: RttWindow(self._window, self._window_s))
        self._targets[target_id], self._works[target] = target, set()
        if target.is_called_only and self._connect is not None:
            self._work(target, self._call(target, address.removeprefix(GRPC)))
        elif not target.is_called_only:
            self._work(target, self._find(target))

    def _end(self, target_id: str) -> None:
        for work in self._works.pop(self._targets.pop(target_id)):
            work.cancel()

    def _route(self, target_id: str, address: str) -> str:
        return self._routes.get(target_id, address) if address else ""

    def _work(self, target: Target, work: Coroutine[Any, Any, None]) -> None:
        works = self._works[target]
        task = asyncio.create_task(work)
        works.add(task)
        task.add_done_callback(works.discard)

    async def _find(self, target: Target) -> None:
        """Look up where it is, and probe it from then on."""
        host, port = host_and_port(target.address)
        loop = asyncio.get_running_loop()
        while True:
            try:
                found = await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
                break
            except OSError as error:
                log.warning("probe target %s cannot be probed (%s); trying again", target.address, error)
                await asyncio.sleep(_RESOLVE_AGAIN_AFTER_S)
        family, _, _, _, address = found[0]
        is_new, target.udp = target.udp is None, UdpAddress(family, address)
        if is_new:
            # Not all targets of a new list at once.
            self._schedule(target, time.monotonic() + random.uniform(0, self._pause_s(is_burst=True)))

    def _schedule(self, target: Target, due_s: float) -> None:
        heapq.heappush(self._due, (due_s, next(self._numbers), target))

    async def _run(self) -> None:
        while True:
            next_s = self._round(time.monotonic())
            await asyncio.sleep(max(next_s - time.monotonic(), 0))

    def _round(self, now_s: float) -> float:
        """Collect what has come back, and send what is due; when to do it again."""
        self._count_packets()
        for target, rtt_ns in self._echo.answers():
            assert isinstance(target, Target)
            target.answered_by_udp(rtt_ns)
        shortest_s = _ROUND_S
        while self._due and self._due[0][0] <= now_s:
            due_s, _, target = heapq.heappop(self._due)
            if target not in self._works:
                continue
            is_burst = target.probes < _BURST
            shortest_s = min(shortest_s, _BURST_INTERVAL_S) if is_burst else shortest_s
            self._probe(target)
            pause_s = _KNOCK_EVERY_S if target.is_silent else self._pause_s(is_burst)
            self._schedule(target, max(due_s, now_s - _ROUND_S) + pause_s)
        next_s = self._due[0][0] if self._due else now_s + _SLEEP_MAX_S
        return now_s + min(max(next_s - now_s, shortest_s), _SLEEP_MAX_S)

    def _probe(self, target: Target) -> None:
        assert target.udp is not None
        was_silent = target.is_silent
        try:
            target.sent()
            self._echo.send(target, target.udp)
        except OSError as error:
            if target.probes == 1:
                log.warning("probe target %s cannot be probed (%s); trying again", target.address, error)
        if target.is_silent and not was_silent:
            self._fall_back(target)

    def _fall_back(self, target: Target) -> None:
        """Its name may lead elsewhere now; and what UDP does not reach may be reached by TCP."""
        self._work(target, self._find(target))
        if self._connect is not None:
            log.info("probe target %s does not answer by UDP; it is called by gRPC", target.address)
            self._work(target, self._call(target, target.address))

    async def _call(self, target: Target, address: str) -> None:
        """Make calls as long as nothing comes back by UDP. They count until this process sees the answer,
        so none is told too short.
        """
        assert self._connect is not None
        async with self._connect(address) as round_trip:
            is_connected = False
            for count in itertools.count():
                if not (target.is_called_only or target.is_silent):
                    return
                begun_ns = time.monotonic_ns()
                try:
                    await round_trip()
                    # The first one has made the connection, too.
                    if is_connected:
                        target.answered_by_call(time.monotonic_ns() - begun_ns)
                    is_connected = True
                except NoAnswerError:
                    is_connected = False
                is_hopeless = not (is_connected or target.is_called_only)
                await asyncio.sleep(_KNOCK_EVERY_S if is_hopeless else self._pause_s(count < _BURST))

    def _count_packets(self) -> None:
        called = sum(target.method == PROBE_METHOD_GRPC for target in self._targets.values())
        self._packets = len(self._targets) + (_PACKETS_OF_CALL - 1) * called

    def _pause_s(self, is_burst: bool) -> float:
        """An equal part of the budget for every target: on average all together stay within it."""
        fair_s = self._packets / self._packets_per_second_max
        mean_s = max(_BURST_INTERVAL_S if is_burst else self._interval_s, fair_s)
        return mean_s * random.uniform(1 - _JITTER, 1 + _JITTER)
