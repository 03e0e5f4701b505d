"""The agent's stream to the coordinator: opened again whenever it breaks."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol

import grpc
from mumian.agent.v1.agent_pb2 import AgentReport, CoordinatorCommand
from mumian.agent.v1.agent_service_pb2_grpc import AgentServiceStub

from mumian_agent.adapters.grpc.channels import open_channel
from mumian_agent.adapters.grpc.refusals import reason_of, retry_after_s
from mumian_agent.agent.ports import Report
from mumian_agent.runtime.certificates import Certificates

log = logging.getLogger(__name__)

# While no coordinator leads, or the link is cut: soon enough after that is over, and not all agents at once.
_BACKOFF_FIRST_S, _BACKOFF_LAST_S = 0.2, 1.0
_CONNECTED_WITHIN_S = 2.0
_WELCOME_WITHIN_S = 10.0
_LOGS_QUEUED_MAX = 32
_OPTIONS = (
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.keepalive_time_ms", 2000),
    ("grpc.keepalive_timeout_ms", 1000),
    # While one of gRPC's own pings is out no keepalive is sent, and by default it waits a minute for it.
    ("grpc.http2.ping_timeout_ms", 3000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # Every attempt begins afresh: how long to wait between them is decided here alone.
    ("grpc.use_local_subchannel_pool", 1),
)
_FINAL_REASONS = frozenset(
    {"CLOCK_SKEW", "SITE_ID_TAKEN", "INVALID_FIELD", "PERMISSION_DENIED", "SITE_REVOKED"}
)


class RefusedForGoodError(Exception):
    """The coordinator does not take this agent, and will not when it asks again."""


class Commanded(Protocol):
    """Who the stream is for."""

    def hello(self) -> AgentReport:
        """The first report of a stream."""
        ...

    def obey(self, command: CoordinatorCommand) -> None:
        """A command has come."""
        ...

    def disconnected(self) -> None:
        """The stream has ended."""
        ...


class Outbox:
    """The reports that wait to go out: one for each slot, then the logs, of which a few may wait."""

    def __init__(self) -> None:
        self._slots: dict[object, Report] = {}
        self._logs: list[AgentReport] = []
        self._is_open = False
        self._changed = asyncio.Condition()
        self._something = asyncio.Event()

    def open(self) -> None:
        """A stream has begun."""
        self._slots.clear()
        self._logs.clear()
        self._something.clear()
        self._is_open = True

    async def close(self) -> None:
        """The stream has ended."""
        self._is_open = False
        async with self._changed:
            self._changed.notify_all()

    def put(self, slot: object, report: Report) -> None:
        """Send soon. A report that still waits in the same slot is replaced."""
        if self._is_open:
            self._slots[slot] = report
            self._something.set()

    async def put_log(self, report: AgentReport) -> bool:
        """Send in order; wait while too many wait. False when the stream has ended."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self._is_open or len(self._logs) < _LOGS_QUEUED_MAX)
            if not self._is_open:
                return False
            self._logs.append(report)
        self._something.set()
        return True

    async def next(self) -> AgentReport:
        """The next to send: logs only when nothing else waits."""
        while not self._slots and not self._logs:
            self._something.clear()
            await self._something.wait()
        if self._slots:
            waiting = self._slots.pop(next(iter(self._slots)))
            return waiting() if callable(waiting) else waiting
        report = self._logs.pop(0)
        async with self._changed:
            self._changed.notify_all()
        return report


class CoordinatorStream:
    """Keeps one stream open to one of the coordinators; when it breaks, the next one is tried."""

    def __init__(
        self, addresses: Sequence[str], agent_epoch: int, outbox: Outbox, certificates: Certificates
    ) -> None:
        self._addresses, self._agent_epoch, self._outbox = deque(addresses), agent_epoch, outbox
        self._certificates = certificates
        self._backoff_s, self._failed = _BACKOFF_FIRST_S, 0
        self._reopened = asyncio.Event()

    def reopen(self) -> None:
        """Begin a new stream: there is a fresh certificate to show."""
        self._reopened.set()

    async def run(self, commanded: Commanded) -> None:
        """Connect, for ever.

        Raises:
            RefusedForGoodError: there is no sense in trying again.
        """
        while True:
            try:
                if await self._connect_until_reopened(commanded):
                    continue
                log.warning("the coordinator at %s has ended the stream", self._address)
            except grpc.aio.AioRpcError as error:
                _raise_if_final(error)
                log.warning("no stream to the coordinator at %s: %s", self._address, error.details())
                if (soon_s := retry_after_s(error)) is not None:
                    # It leads then itself.
                    await asyncio.sleep(soon_s * random.uniform(1, 1.2))
                    continue
            except TimeoutError:
                log.warning("the coordinator at %s says nothing", self._address)
            self._addresses.rotate(-1)
            self._failed += 1
            await asyncio.sleep(self._backoff_s * random.uniform(0.5, 1))
            if self._failed % len(self._addresses) == 0:  # each has been tried: one may lead by now
                self._backoff_s = min(2 * self._backoff_s, _BACKOFF_LAST_S)

    @property
    def _address(self) -> str:
        return self._addresses[0]

    async def _connect_until_reopened(self, commanded: Commanded) -> bool:
        """One stream, to its end; True when it was to be opened anew."""
        self._reopened.clear()
        works = [asyncio.create_task(w) for w in (self._connect(commanded), self._reopened.wait())]
        connecting, reopened = works
        try:
            await asyncio.wait(works, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for work in works:
                work.cancel()
            await asyncio.wait(works)
        if not connecting.cancelled():
            connecting.result()
        return connecting.cancelled() and reopened.done()

    async def _connect(self, commanded: Commanded) -> None:
        async with open_channel(self._address, self._certificates, _OPTIONS) as channel:
            async with asyncio.timeout(_CONNECTED_WITHIN_S):
                await _settled(channel)
            call = AgentServiceStub(channel).Connect()
            self._outbox.open()
            writer = asyncio.create_task(self._write(call, commanded.hello()))
            try:
                # The stubs of grpc.aio call a stream's message Any.
                async with asyncio.timeout(_WELCOME_WITHIN_S):
                    first: Any = await call.read()
                while first is not grpc.aio.EOF:
                    commanded.obey(first)
                    self._backoff_s, self._failed = _BACKOFF_FIRST_S, 0
                    first = await call.read()
                code, details = await call.code(), await call.details()
                if code != grpc.StatusCode.OK:
                    raise grpc.aio.AioRpcError(
                        code, await call.initial_metadata(), await call.trailing_metadata(), details
                    )
            finally:
                writer.cancel()
                call.cancel()
                await self._outbox.close()
                commanded.disconnected()
                # Not `await writer`: its cancellation and ours look the same, and ours must not be lost.
                await asyncio.wait({writer})

    async def _write(self, call: Any, hello: AgentReport) -> None:
        sequence, report = 1, hello
        while True:
            report.agent_epoch, report.sequence = self._agent_epoch, sequence
            try:
                await call.write(report)
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                return  # who reads sees why
            sequence += 1
            report = await self._outbox.next()


async def _settled(channel: grpc.aio.Channel) -> None:
    """Wait until it is connected, or has failed: then a call says why."""
    state = channel.get_state(try_to_connect=True)
    while state in (grpc.ChannelConnectivity.IDLE, grpc.ChannelConnectivity.CONNECTING):
        await channel.wait_for_state_change(state)
        state = channel.get_state()


def _raise_if_final(error: grpc.aio.AioRpcError) -> None:
    reason = reason_of(error)
    if reason in _FINAL_REASONS:
        raise RefusedForGoodError(f"{reason}: {error.details()}")
