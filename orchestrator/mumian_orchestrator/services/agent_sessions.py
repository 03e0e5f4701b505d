"""The connected agents: who speaks for a site, what it is told, and the logs it reads out."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Iterable

from google.protobuf.timestamp_pb2 import Timestamp
from mumian.agent.v1.agent_pb2 import (
    AgentReport,
    AllocationStatus,
    AllocationStatusStored,
    CheckSiteRequest,
    CheckSiteResponse,
    CoordinatorCommand,
    ExtendFunding,
    Heartbeat,
    HeartbeatSeen,
    Hello,
    LogChunk,
    ProbeTarget,
    ProbeTargets,
    ReadLogs,
    ReadOutput,
    RunAllocation,
    StopAllocation,
    StopReadingLogs,
    Welcome,
)
from mumian.api.v1 import error_pb2
from mumian.api.v1.job_pb2 import Allocation, Job

from mumian_orchestrator.domain.errors import FieldFault, RequestRefusedError, invalid
from mumian_orchestrator.domain.job_state import TERMINAL_ALLOCATION_STATES
from mumian_orchestrator.domain.names import is_name
from mumian_orchestrator.domain.rollout import group_of
from mumian_orchestrator.ports.agent_link import AgentLink
from mumian_orchestrator.ports.clock import Clock
from mumian_orchestrator.services.fleet import Fleet
from mumian_orchestrator.services.job_table import JobTable
from mumian_orchestrator.services.secrets import Secrets

log = logging.getLogger(__name__)

# Leases and measurements are compared across clocks; beyond this the comparison means nothing.
CLOCK_SKEW_MAX_S = 60
# An agent that is cut off ends what has a stop_after no earlier than it must.
HEARTBEAT_SEEN_EVERY_S = 2.0
_LOG_CHUNKS_QUEUED_MAX = 1024
_OUTPUT_WITHIN_S = 10.0
_OVERRUN = "they came faster than they were read; read the last part with tail_bytes"


class Session:
    """One agent's stream, from its hello to its end."""

    def __init__(self, site_id: str, agent_epoch: int, link: AgentLink) -> None:
        self.site_id, self.agent_epoch, self.link = site_id, agent_epoch, link
        # The newest sequence taken, by what the report is about: a late report is old news only there.
        self.newest: dict[object, int] = {}
        # Until it is welcomed, what is to be sent waits: the welcome comes first.
        self.held: list[CoordinatorCommand] | None = []
        self.heartbeat_seen_s = 0.0
        self.heard = asyncio.Event()
        self.clock_ahead_s = 0.0  # of this coordinator's


class AgentSessions:
    """At most one session a site. Commands to a site without one are dropped: its next Welcome holds them."""

    def __init__(
        self,
        term: int,
        fleet: Fleet,
        table: JobTable,
        secrets: Secrets,
        clock: Clock,
        heartbeat_interval_ms: int,
    ) -> None:
        self._secrets = secrets
        self._term, self._fleet, self._table, self._clock = term, fleet, table, clock
        self._heartbeat_interval_ms = heartbeat_interval_ms
        self._sessions: dict[str, Session] = {}
        self._log_readers: dict[int, asyncio.Queue[LogChunk]] = {}
        self._read_ids = itertools.count(1)

    def count(self) -> int:
        """Connected agents."""
        return len(self._sessions)

    async def open(self, hello: Hello, agent_epoch: int, link: AgentLink) -> Session:
        """Let an agent speak for its site.

        Raises:
            RequestRefusedError: CLOCK_SKEW, SITE_ID_TAKEN or INVALID_FIELD; nothing has changed.
        """
        self._check(hello)
        await self._refuse_a_double(hello.site.id, agent_epoch)
        session = Session(hello.site.id, agent_epoch, link)
        self._note_clock(session, hello.agent_time)
        self._sessions[session.site_id] = session
        self._fleet.join(hello)
        log.info("site %s joined (agent epoch %d)", session.site_id, agent_epoch)
        return session

    def look_at(self, request: CheckSiteRequest) -> CheckSiteResponse:
        """Whether a site could connect now; changes nothing.

        Raises:
            RequestRefusedError: CLOCK_SKEW or INVALID_FIELD.
        """
        self._check(Hello(site=request.site, agent_time=request.agent_time))
        return CheckSiteResponse(
            coordinator_time=self._clock.now(), is_connected=request.site.id in self._sessions
        )

    def welcome(self, session: Session) -> None:
        """Tell a site what it is to run, once what it has told is taken in."""
        held, session.held = session.held, None
        self._send(session.site_id, CoordinatorCommand(welcome=self._welcome(session.site_id)))
        for command in held or ():
            session.link.send(command)
        # A site that has never heard of these has nothing to stop or to tell; a stop makes it tell.
        for allocation in self._table.unwanted_on(session.site_id):
            self.stop(allocation)
        for site_id in (session.site_id, *self._fleet.probes.probing(session.site_id)):
            self._announce_probe_targets(site_id)

    def heartbeat(self, session: Session, heartbeat: Heartbeat) -> None:
        """Tell the site, not too often, that it was heard."""
        self._note_clock(session, heartbeat.agent_time)
        now_s = self._clock.monotonic_s()
        if now_s - session.heartbeat_seen_s >= HEARTBEAT_SEEN_EVERY_S:
            session.heartbeat_seen_s = now_s
            seen = HeartbeatSeen(sent_ns=heartbeat.sent_ns)
            self._send(session.site_id, CoordinatorCommand(heartbeat_seen=seen))

    def all(self) -> Iterable[Session]:
        """Those that stand now."""
        return self._sessions.values()

    def close(self, session: Session) -> None:
        """The stream has ended; the site stays as it was until it has been silent for too long."""
        if self._sessions.get(session.site_id) is session:
            del self._sessions[session.site_id]
            log.info("site %s: stream closed", session.site_id)

    def close_all(self, reason: str) -> None:
        """The term is over: the agents go to the next leader now, not when the calls under way end."""
        for session in list(self._sessions.values()):
            session.link.close(reason)
            self.close(session)

    def close_site(self, site_id: str, reason: str) -> None:
        """End the stream of a site that may not connect any more."""
        session = self._sessions.get(site_id)
        if session is not None:
            session.link.close(reason)
            self.close(session)

    def is_current(self, session: Session, report: AgentReport) -> bool:
        """Whether a report is newer than all that its session has told of the same thing, and the session
        still stands. So reports that are repeated or change places leave what they would have left in order.
        """
        session.heard.set()
        about = _about(report)
        if (
            self._sessions.get(session.site_id) is not session
            or report.agent_epoch != session.agent_epoch
            or report.sequence <= session.newest.get(about, 0)
        ):
            return False
        session.newest[about] = report.sequence
        return True

    # Commands.

    def run(self, job: Job, allocation: Allocation) -> None:
        """Tell the site to run a committed allocation."""
        if not allocation.stop_requested:
            self._send(allocation.site_id, CoordinatorCommand(run=self._run(job, allocation)))

    def stop(self, allocation: Allocation) -> None:
        """Tell the site to stop an allocation, or never to start it."""
        stop = StopAllocation(allocation_id=allocation.id, attempt=allocation.attempt)
        self._send(allocation.site_id, CoordinatorCommand(stop=stop))

    def extend_funding(self, allocation: Allocation) -> None:
        """Tell the site that more time of an allocation is paid for; its next welcome would tell it, too."""
        extend = ExtendFunding(
            allocation_id=allocation.id,
            attempt=allocation.attempt,
            funded_ms=allocation.funding.funded_ms,
        )
        self._send(allocation.site_id, CoordinatorCommand(extend_funding=extend))

    def disown(self, site_id: str, status: AllocationStatus) -> None:
        """Tell the site that nobody knows the allocation that it reports on: stop it and forget it."""
        stop = StopAllocation(allocation_id=status.allocation_id, attempt=status.attempt)
        self._send(site_id, CoordinatorCommand(stop=stop))
        self.stored(site_id, status)

    def stored(self, site_id: str, status: AllocationStatus) -> None:
        """Tell the site that its report is durable."""
        stored = AllocationStatusStored(
            allocation_id=status.allocation_id, attempt=status.attempt, state=status.state
        )
        self._send(site_id, CoordinatorCommand(status_stored=stored))
        session = self._sessions.get(site_id)
        if session is not None and status.state in TERMINAL_ALLOCATION_STATES:
            # Whatever still comes of it is told to be old by its state.
            session.newest.pop((status.allocation_id, status.attempt), None)

    # Logs.

    async def read_logs(
        self, allocation: Allocation, follow: bool, tail_bytes: int
    ) -> AsyncIterator[LogChunk]:
        """What an allocation has written, as its site reads it out.

        Raises:
            RequestRefusedError: SITE_UNREACHABLE, ALLOCATION_NOT_FOUND.
        """
        self._refuse_if_away(allocation, "logs")
        read_id = next(self._read_ids)
        queue: asyncio.Queue[LogChunk] = asyncio.Queue(_LOG_CHUNKS_QUEUED_MAX)
        self._log_readers[read_id] = queue
        read = ReadLogs(read_id=read_id, allocation_id=allocation.id, follow=follow, tail_bytes=tail_bytes)
        self._send(allocation.site_id, CoordinatorCommand(read_logs=read))
        try:
            while True:
                chunk = await queue.get()
                if chunk.error:
                    reason = error_pb2.ERROR_REASON_ALLOCATION_NOT_FOUND
                    raise RequestRefusedError(reason, f"logs of {allocation.id}: {chunk.error}")
                if chunk.data:
                    yield chunk
                if chunk.end:
                    return
        finally:
            del self._log_readers[read_id]
            stop = StopReadingLogs(read_id=read_id)
            self._send(allocation.site_id, CoordinatorCommand(stop_reading_logs=stop))

    async def read_output(self, allocation: Allocation, offset_bytes: int) -> bytes:
        """A piece of what an allocation has left, from its site; empty: there is no more.

        Raises:
            RequestRefusedError: SITE_UNREACHABLE, OUTPUT_NOT_FOUND.
        """
        self._refuse_if_away(allocation, "outputs")
        read_id = next(self._read_ids)
        queue: asyncio.Queue[LogChunk] = asyncio.Queue(_LOG_CHUNKS_QUEUED_MAX)
        self._log_readers[read_id] = queue
        read = ReadOutput(read_id=read_id, allocation_id=allocation.id, offset_bytes=offset_bytes)
        self._send(allocation.site_id, CoordinatorCommand(read_output=read))
        try:
            async with asyncio.timeout(_OUTPUT_WITHIN_S):
                chunk = await queue.get()
        except TimeoutError:
            self._refuse_if_away(allocation, "outputs", has_answered=False)
            raise
        finally:
            del self._log_readers[read_id]
        if chunk.error:
            reason = error_pb2.ERROR_REASON_OUTPUT_NOT_FOUND
            raise RequestRefusedError(reason, f"outputs of {allocation.id}: {chunk.error}")
        return chunk.data

    def _refuse_if_away(self, allocation: Allocation, what: str, has_answered: bool = True) -> None:
        if allocation.site_id not in self._sessions or not has_answered:
            raise RequestRefusedError(
                error_pb2.ERROR_REASON_SITE_UNREACHABLE,
                f"{what} of {allocation.id} are on site {allocation.site_id}, whose agent "
                f"{'is not connected' if has_answered else 'does not answer'}; "
                "try again when `mumian sites` shows it ready",
            )

    def log_chunk(self, session: Session, chunk: LogChunk) -> None:
        """Hand a chunk to its reader; a reader that nobody drains any more is told off at the source."""
        queue = self._log_readers.get(chunk.read_id)
        if queue is None:
            stop = StopReadingLogs(read_id=chunk.read_id)
            self._send(session.site_id, CoordinatorCommand(stop_reading_logs=stop))
            return
        try:
            queue.put_nowait(chunk)
        except asyncio.QueueFull:
            # The agent's heartbeats come by the same stream, so it never waits for a slow reader.
            while not queue.empty():
                queue.get_nowait()
            queue.put_nowait(LogChunk(read_id=chunk.read_id, end=True, error=_OVERRUN))

    # Inner works.

    def _send(self, site_id: str, command: CoordinatorCommand) -> None:
        session = self._sessions.get(site_id)
        if session is not None:
            command.leader_term = self._term
            if session.held is not None:
                session.held.append(command)
            else:
                session.link.send(command)

    def _welcome(self, site_id: str) -> Welcome:
        return Welcome(
            heartbeat_interval_ms=self._heartbeat_interval_ms,
            allocations=[self._run(job, allocation) for job, allocation in self._table.wanted_on(site_id)],
        )

    def _announce_probe_targets(self, site_id: str) -> None:
        if site_id in self._sessions:
            targets = [
                ProbeTarget(id=target, address=address)
                for target, address in self._fleet.probes.targets(site_id).items()
            ]
            self._send(site_id, CoordinatorCommand(probe_targets=ProbeTargets(targets=targets)))

    def _check(self, hello: Hello) -> None:
        faults = []
        if not is_name(hello.site.id):
            faults.append(FieldFault("hello.site.id", f"({hello.site.id!r}) is no valid name"))
        if hello.site.id in self._fleet.zones:
            faults.append(FieldFault("hello.site.id", f"({hello.site.id}) is a zone's id; choose another"))
        for node in hello.nodes:
            if node.site_id != hello.site.id or not node.id.startswith(f"{hello.site.id}/"):
                faults.append(
                    FieldFault("hello.nodes.id", f"({node.id}) is not below its site {hello.site.id}")
                )
        if faults:
            raise invalid(faults)
        skew_s = self._ahead_s(hello.agent_time)
        if abs(skew_s) > CLOCK_SKEW_MAX_S:
            ahead = "ahead of" if skew_s > 0 else "behind"
            raise RequestRefusedError(
                error_pb2.ERROR_REASON_CLOCK_SKEW,
                f"the clock of site {hello.site.id} is {abs(skew_s):.0f} s {ahead} the coordinator's "
                f"(at most {CLOCK_SKEW_MAX_S} s); set it by NTP and start the agent again",
            )

    def _note_clock(self, session: Session, agent_time: Timestamp) -> None:
        """The way here counts as the agent's clock being behind."""
        session.clock_ahead_s = self._ahead_s(agent_time)

    def _ahead_s(self, agent_time: Timestamp) -> float:
        return (agent_time.ToNanoseconds() - self._clock.now().ToNanoseconds()) / 1e9

    def _run(self, job: Job, allocation: Allocation) -> RunAllocation:
        group = group_of(job, allocation)
        return RunAllocation(
            allocation=allocation,
            kind=job.spec.kind,
            task_group=group,
            job_name=job.spec.name,
            on_disconnect=job.spec.on_disconnect,
            secrets=self._secrets.opened(job.tenant_id, group),
        )

    async def _refuse_a_double(self, site_id: str, agent_epoch: int) -> None:
        """The same agent may come back before its old stream is known to be dead; another may not."""
        incumbent = self._sessions.get(site_id)
        if incumbent is None:
            return
        if agent_epoch != incumbent.agent_epoch:
            incumbent.heard.clear()
            try:
                await asyncio.wait_for(incumbent.heard.wait(), 2 * self._heartbeat_interval_ms / 1000)
            except TimeoutError:
                pass
            else:
                raise RequestRefusedError(
                    error_pb2.ERROR_REASON_SITE_ID_TAKEN,
                    f"site id {site_id} is taken: another agent (epoch {incumbent.agent_epoch}) is connected "
                    "and alive; give this site another id, or stop the other agent",
                )
        incumbent.link.close("replaced by a newer stream of the same site")
        self.close(incumbent)


def _about(report: AgentReport) -> object:
    status = report.allocation_status
    return (status.allocation_id, status.attempt) if status.allocation_id else report.WhichOneof("report")
