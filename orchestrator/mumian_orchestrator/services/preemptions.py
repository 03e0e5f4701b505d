"""Work that makes room for jobs of higher priority: it is stopped first, and its place kept until then."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from mumian.api.v1 import job_event_pb2
from mumian.api.v1.job_pb2 import Allocation, Job
from mumian.storage.v1.reservation_pb2 import Reservation

from mumian_orchestrator.domain.job_state import is_live, wants_placement
from mumian_orchestrator.ports.engine import Engine
from mumian_orchestrator.ports.store import Write
from mumian_orchestrator.services.agent_sessions import AgentSessions
from mumian_orchestrator.services.commit_log import CommitLog
from mumian_orchestrator.services.job_table import ALLOCATIONS_PER_COMMIT, JobTable
from mumian_orchestrator.services.tasks import TaskSet

log = logging.getLogger(__name__)

_RESERVATIONS = "reservations/"


@dataclass(slots=True)
class _Waiting:
    """A job that waits: what has still to end, and what is kept for it in the engine."""

    victims: set[str]
    reserved: Sequence[str]


class Preemptions:
    """Stops victims and keeps their places until all of one job's victims have ended.

    No new allocation is committed before that, so what is stored always fits its node. The reservation is
    stored before the victims are stopped, so the next leader keeps the places too. While any victim is
    still ending, no more are chosen, so nobody is evicted twice for the same job.
    """

    def __init__(
        self, table: JobTable, engine: Engine, sessions: AgentSessions, commit_log: CommitLog
    ) -> None:
        self._table, self._engine, self._sessions = table, engine, sessions
        self._log = commit_log
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

    def load(self, stored: Mapping[str, bytes]) -> list[tuple[Job, Allocation]]:
        """Take the stored reservations. What they keep is to be booked in the engine with what runs."""
        kept = []
        for key, value in stored.items():
            if not key.startswith(_RESERVATIONS):
                continue
            reservation = Reservation.FromString(value)
            job = self._table.get(reservation.job_id)
            victims = self._live_victims(reservation.victim_ids)
            # The old leader may have ended before all victims were told: then the job is evaluated anew.
            all_told = all(victim.evicted for victim in victims)
            if job is None or not wants_placement(job) or not victims or not all_told:
                self._log.append([Write(key, None)])
                continue
            victim_ids = {victim.id for victim in victims}
            self._waiting[job.id] = _Waiting(victim_ids, [a.id for a in reservation.allocations])
            kept += [(job, allocation) for allocation in reservation.allocations]
        return kept

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
        victims = self._live_victims(victim_ids)
        if not victims:
            return False
        self._engine.update(booked=[(job, allocation) for allocation in planned])
        told = [allocation.id for allocation in victims]
        self._waiting[job.id] = _Waiting(set(told), [allocation.id for allocation in planned])
        reservation = Reservation(job_id=job.id, allocations=planned, victim_ids=told)
        self._log.append([Write(_RESERVATIONS + job.id, reservation.SerializeToString())])
        by_job: dict[str, list[Allocation]] = defaultdict(list)
        for allocation in victims:
            by_job[allocation.job_id].append(allocation)
        for victim_job_id, allocations in by_job.items():
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
            self._log.append([Write(_RESERVATIONS + job_id, None)])

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

    def _live_victims(self, victim_ids: Collection[str]) -> list[Allocation]:
        jobs = map(self._table.get, dict.fromkeys(victim_id.split(".")[0] for victim_id in victim_ids))
        return [a for job in jobs if job for a in job.allocations if a.id in victim_ids and is_live(a)]

    def _evict(self, job: Job, victims: Sequence[Allocation], by: Job) -> None:
        # A tenant is not told the names of another's jobs.
        whose = f"job {by.id}" if by.tenant_id == job.tenant_id else "another tenant's job"
        why = f"its place goes to {whose} of priority {by.spec.priority}"
        if by.spec.priority <= job.spec.priority:
            why = f"its place was borrowed, and goes to {whose}, to which it is guaranteed"
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
