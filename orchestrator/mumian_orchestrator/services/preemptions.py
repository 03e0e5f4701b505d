"""Work that makes room for jobs of higher priority: it is stopped first, and its place kept until then."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from mumian.api.v1 import job_event_pb2
from mumian.api.v1.job_pb2 import Allocation, Job

from mumian_orchestrator.domain.job_state import is_live
from mumian_orchestrator.ports.engine import Engine
from mumian_orchestrator.services.agent_sessions import AgentSessions
from mumian_orchestrator.services.job_table import ALLOCATIONS_PER_COMMIT, JobTable
from mumian_orchestrator.services.tasks import TaskSet

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Waiting:
    """A job that waits: what has still to end, and what is kept for it in the engine."""

    victims: set[str]
    reserved: Sequence[str]


class Preemptions:
    """Stops victims and keeps their places until all of one job's victims have ended.

    Nothing new is committed before that, so what is stored always fits its node. A reservation is only in
    the engine's memory: after a failover the job is evaluated anew, when its victims have ended. While any
    victim is still ending, no more are chosen, so nobody is evicted twice for the same job.
    """

    def __init__(self, table: JobTable, engine: Engine, sessions: AgentSessions) -> None:
        self._table, self._engine, self._sessions = table, engine, sessions
        self._waiting: dict[str, _Waiting] = {}
        # The victims that have not ended, with their sites.
        self._ending: dict[str, str] = {}
        self._background = TaskSet()

    @property
    def are_ending(self) -> bool:
        """Whether some victim has not ended."""
        return bool(self._ending)

    def is_waiting(self, job_id: str) -> bool:
        """Whether the job has a place that others have still to leave."""
        return job_id in self._waiting

    def resume(self) -> None:
        """After a start: the victims of the previous leader."""
        for _, allocation in self._table.live_allocations():
            if allocation.evicted:
                self._ending[allocation.id] = allocation.site_id

    def begin(self, job: Job, planned: Sequence[Allocation], victim_ids: Collection[str]) -> bool:
        """Keep the places of these allocations for a job, and stop what is there.

        Returns:
            Whether there is anything to wait for: a victim that still runs.
        """
        live: dict[str, list[Allocation]] = defaultdict(list)
        for victim_job_id in dict.fromkeys(victim_id.split(".")[0] for victim_id in victim_ids):
            victim_job = self._table.get(victim_job_id)
            for allocation in victim_job.allocations if victim_job else ():
                if allocation.id in victim_ids and is_live(allocation):
                    live[victim_job_id].append(allocation)
        victims = {allocation.id for allocations in live.values() for allocation in allocations}
        if not victims:
            return False
        self._engine.update(booked=[(job, allocation) for allocation in planned])
        self._waiting[job.id] = _Waiting(victims, [allocation.id for allocation in planned])
        for victim_job_id, allocations in live.items():
            victim_job = self._table.get(victim_job_id)
            if victim_job is not None:
                self._evict(victim_job, allocations, by=job)
        return True

    def ended(self, allocation_id: str) -> list[str]:
        """An allocation has ended. The jobs for which it was the last, their places free from here on."""
        self._ending.pop(allocation_id, None)
        ready = []
        for job_id, waiting in self._waiting.items():
            waiting.victims.discard(allocation_id)
            if not waiting.victims:
                ready.append(job_id)
        for job_id in ready:
            self.abandon(job_id)
        return ready

    def abandon(self, job_id: str) -> None:
        """Keep nothing for the job any more."""
        waiting = self._waiting.pop(job_id, None)
        if waiting is not None:
            self._engine.update(freed=waiting.reserved)

    def lose_sites(self, site_ids: Iterable[str]) -> list[str]:
        """Nobody knows when victims on these sites end. The jobs that are not to wait for them any longer."""
        lost_sites = set(site_ids)
        lost = {victim for victim, site_id in self._ending.items() if site_id in lost_sites}
        for victim in lost:
            del self._ending[victim]
        stuck = [job_id for job_id, waiting in self._waiting.items() if waiting.victims & lost]
        for job_id in stuck:
            self.abandon(job_id)
        return stuck

    def _evict(self, job: Job, victims: Sequence[Allocation], by: Job) -> None:
        # A tenant is not told the names of another's jobs.
        whose = f"job {by.id}" if by.tenant_id == job.tenant_id else "another tenant's job"
        why = f"its place goes to {whose} of priority {by.spec.priority}"
        for allocation in victims:
            allocation.evicted = allocation.stop_requested = True
            allocation.state_message = f"evicted: {why}"
            self._ending[allocation.id] = allocation.site_id
        log.info("%d allocations of job %s make room for job %s", len(victims), job.id, by.id)
        for start in range(0, len(victims), ALLOCATIONS_PER_COMMIT):
            part = victims[start : start + ALLOCATIONS_PER_COMMIT]
            durable = self._table.commit(job, part, job_event_pb2.JOB_EVENT_KIND_EVICTED, why)
            self._background.start(self._stop(durable, part))

    async def _stop(self, durable: asyncio.Future[None], victims: Sequence[Allocation]) -> None:
        await durable
        for allocation in victims:
            self._sessions.stop(allocation)
