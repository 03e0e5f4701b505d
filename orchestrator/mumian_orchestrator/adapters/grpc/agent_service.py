"""The agents' door: one stream a site."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator

from mumian.agent.v1.agent_pb2 import (
    AgentReport,
    CheckSiteRequest,
    CheckSiteResponse,
    CoordinatorCommand,
    ReadBundleRequest,
    ReadBundleResponse,
)
from mumian.agent.v1.agent_service_pb2_grpc import AgentServiceServicer

from mumian_orchestrator.adapters.grpc.errors import Context, stream, unary
from mumian_orchestrator.domain.errors import FieldFault, invalid
from mumian_orchestrator.domain.identity import current_caller, current_origin
from mumian_orchestrator.services.access.site_enrolment import SiteEnrolment
from mumian_orchestrator.services.agent_reports import AgentReports
from mumian_orchestrator.services.agent_sessions import AgentSessions, Session
from mumian_orchestrator.services.bundles import Bundles

log = logging.getLogger(__name__)

# More than any site runs at once; an agent this far behind is better off with a new Welcome.
_COMMANDS_QUEUED_MAX = 4096
_JOIN_PAUSE_MAX_S = 0.1


class _Outbox:
    """The commands that wait to go out on one stream."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[CoordinatorCommand | None] = asyncio.Queue(_COMMANDS_QUEUED_MAX)
        self._closed = False

    @property
    def commands_waiting(self) -> int:
        return self._queue.qsize()

    def send(self, command: CoordinatorCommand) -> None:
        if self._closed:
            return
        try:
            self._queue.put_nowait(command)
        except asyncio.QueueFull:
            self.close("the agent takes its commands too slowly")

    def close(self, reason: str) -> None:
        if not self._closed:
            log.warning("agent stream closed: %s", reason)
            self._closed = True
            while not self._queue.empty():
                self._queue.get_nowait()
            self._queue.put_nowait(None)

    async def commands(self) -> AsyncIterator[CoordinatorCommand]:
        while (command := await self._queue.get()) is not None:
            yield command


class AgentService(AgentServiceServicer):
    """`AgentService` over the sessions and the reports. An agent speaks for its certificate's site only."""

    def __init__(
        self, sessions: AgentSessions, reports: AgentReports, bundles: Bundles, sites: SiteEnrolment
    ) -> None:
        self._sessions, self._reports, self._bundles, self._sites = sessions, reports, bundles, sites
        self._joining, self._join_took_s = asyncio.Lock(), 0.0

    async def _wait_to_join(self) -> None:
        """One site after the other, with a pause as long as the last took: when a thousand come at once, half
        of the time is left to the lease, to heartbeats and to tenants.
        """
        async with self._joining:
            await asyncio.sleep(self._join_took_s)

    @unary
    async def ReadBundle(self, request: ReadBundleRequest, context: Context) -> ReadBundleResponse:
        caller = current_caller()
        site_id = None if caller.is_local else caller.site_id
        data = await self._bundles.read(request.allocation_id, request.offset_bytes, site_id)
        return ReadBundleResponse(data=data)

    @unary
    async def CheckSite(self, request: CheckSiteRequest, context: Context) -> CheckSiteResponse:
        self._sites.check_claim(current_caller(), current_origin(), request.site)
        return self._sessions.look_at(request)

    @stream
    async def Connect(
        self, request: AsyncIterator[AgentReport], context: Context
    ) -> AsyncIterator[CoordinatorCommand]:
        first = await anext(request, None)
        if first is None:
            return
        if not first.HasField("hello"):
            raise invalid([FieldFault("report", "must be hello first")])
        caller = current_caller()
        self._sites.check_claim(caller, current_origin(), first.hello.site)
        outbox = _Outbox()
        await self._wait_to_join()
        begun_s = asyncio.get_running_loop().time()
        session = await self._sessions.open(first.hello, first.agent_epoch, outbox)
        self._reports.hello(session, first.hello)
        self._join_took_s = min(asyncio.get_running_loop().time() - begun_s, _JOIN_PAUSE_MAX_S)
        reader = asyncio.create_task(self._read(session, request, outbox))
        expiry = None
        if caller.expire_unix_s is not None:
            # Its next stream comes with a fresh certificate.
            left_s = max(0.0, caller.expire_unix_s - time.time())
            expiry = asyncio.get_running_loop().call_later(
                left_s, outbox.close, "its certificate has expired"
            )
        try:
            async for command in outbox.commands():
                yield command
            # A reader that broke off has something to say.
            if reader.done():
                reader.result()
        finally:
            if expiry is not None:
                expiry.cancel()
            reader.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await reader
            self._sessions.close(session)

    async def _read(self, session: Session, reports: AsyncIterator[AgentReport], outbox: _Outbox) -> None:
        try:
            async for report in reports:
                if self._sessions.is_current(session, report):
                    self._reports.take(session, report)
        finally:
            outbox.close(f"site {session.site_id} ended it")
