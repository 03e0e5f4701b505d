"""How the platform is, as its leader sees it: the store, the lease, the agents, the queues."""

from __future__ import annotations

from collections.abc import Iterator

from mumian.api.v1.ops_service_pb2 import DiagnoseResponse, Finding
from mumian.findings import fail, ok, warn

from mumian_orchestrator.domain.job_state import wants_placement
from mumian_orchestrator.ports.clock import Clock
from mumian_orchestrator.ports.store import TermStore
from mumian_orchestrator.ports.store_health import StoreHealth
from mumian_orchestrator.services.agent_sessions import AgentSessions
from mumian_orchestrator.services.commit_log import CommitLog
from mumian_orchestrator.services.diagnosis.store_servers import clock_finding, store_findings
from mumian_orchestrator.services.disconnections import Disconnections
from mumian_orchestrator.services.fleet import Fleet
from mumian_orchestrator.services.job_table import JobTable
from mumian_orchestrator.services.scheduler import EVALUATION_JOBS_MAX, Scheduler

_COMMIT_WARN_S, _COMMIT_FAIL_S = 1.0, 5.0
_EVALUATIONS_WARN = 10 * EVALUATION_JOBS_MAX
_COMMANDS_WARN = 100


class Diagnosis:
    """Looks at everything once for each caller, and changes nothing.

    Args:
        health: None where the store has no servers of its own.
    """

    def __init__(
        self,
        term_number: int,
        lease_ttl_s: int,
        store: TermStore,
        health: StoreHealth | None,
        commit_log: CommitLog,
        table: JobTable,
        fleet: Fleet,
        sessions: AgentSessions,
        scheduler: Scheduler,
        disconnections: Disconnections,
        clock: Clock,
    ) -> None:
        self._term_number, self._lease_ttl_s = term_number, lease_ttl_s
        self._store, self._health, self._commit_log = store, health, commit_log
        self._table, self._fleet, self._sessions = table, fleet, sessions
        self._scheduler, self._disconnections, self._clock = scheduler, disconnections, clock

    async def diagnose(self) -> DiagnoseResponse:
        """All findings, and what time it is here."""
        found = await store_findings(self._health) if self._health else []
        found += [self._lease(), self._commits(), self._evaluations(), self._brake()]
        found += self._sites()
        return DiagnoseResponse(findings=found, coordinator_time=self._clock.now())

    def _lease(self) -> Finding:
        left_s = self._store.lease_left_s
        said = f"this coordinator leads, term {self._term_number}; its lease of {self._lease_ttl_s} s "
        if left_s < self._lease_ttl_s / 2:
            advice = "see above whether etcd answers; a longer lease_ttl_s bears longer breaks"
            old_s = self._lease_ttl_s - left_s
            return warn("leader.lease", f"{said}was not renewed for {old_s:.1f} s", advice)
        return ok("leader.lease", f"{said}is renewed")

    def _commits(self) -> Finding:
        waiting, oldest_s = self._commit_log.waiting, self._commit_log.oldest_wait_s
        said = f"{waiting} writes wait for the store, the oldest for {oldest_s:.1f} s"
        if self._store.is_full:
            return fail("queue.commits", f"{said}: it is full", "run `mumian-coordinator defragment`")
        if oldest_s > _COMMIT_FAIL_S:
            return fail("queue.commits", said, "start etcd, or see its log; callers get STORE_UNAVAILABLE")
        if oldest_s > _COMMIT_WARN_S:
            return warn("queue.commits", said, "etcd is slow: give it a disk of its own")
        return ok("queue.commits", said)

    def _evaluations(self) -> Finding:
        queued = self._scheduler.queue_length
        waiting = sum(1 for job in self._table.jobs() if wants_placement(job))
        said = f"{queued} jobs are to be considered; {waiting} wait for a place"
        if queued > _EVALUATIONS_WARN:
            return warn("queue.evaluations", said, "more comes than is decided; submit less at a time")
        return ok("queue.evaluations", said)

    def _brake(self) -> Finding:
        brake = self._disconnections.brake()
        if brake.engaged:
            return warn("site.brake", brake.summary, "see whether the coordinator's own network works")
        return ok("site.brake", "lost tasks are replaced as their jobs say")

    def _sites(self) -> Iterator[Finding]:
        sites = self._fleet.sites()
        connected = {session.site_id: session for session in self._sessions.all()}
        if not sites:
            advice = "`mumian-agent run --config site.yaml` connects one"
            yield warn("site.stream", "no site has ever connected", advice)
        for site in sites:
            session = connected.get(site.id)
            if session is None:
                heard = site.HasField("last_seen_time")
                last = f"; it was heard last at {site.last_seen_time.ToJsonString()}" if heard else ""
                yield warn(
                    "site.stream",
                    f"the agent of site {site.id} is not connected{last}",
                    "look at its log and start it again; its tasks go on meanwhile",
                )
                continue
            queued = session.link.commands_waiting
            said = f"the agent of site {site.id} is connected, {queued} commands wait for it"
            if queued > _COMMANDS_WARN:
                advice = "its machine or the line to it is slow; at 4096 it is cut off and has to come again"
                yield warn("site.stream", said, advice)
            else:
                yield ok("site.stream", said)
            yield clock_finding("site.clock", f"site {site.id}", session.clock_ahead_s)
