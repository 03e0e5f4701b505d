"""Moves that are under way: a second allocation of a task that is to take over once it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from mumian.api.v1 import job_event_pb2
from mumian.api.v1.job_pb2 import Allocation, Job

from mumian_orchestrator.domain.job_state import is_live
from mumian_orchestrator.domain.rollout import group_of
from mumian_orchestrator.ports.clock import Clock
from mumian_orchestrator.services.agent_sessions import AgentSessions
from mumian_orchestrator.services.job_table import JobTable
from mumian_orchestrator.services.tasks import TaskSet

# A new allocation that does not run by then, beside the grace that its health check gives it, is given up;
# the old one goes on as if nothing had been.
TAKES_OVER_WITHIN_S = 120


def takes_over_within_s(job: Job, allocation: Allocation) -> int:
    """How long a new allocation may take until it runs."""
    return TAKES_OVER_WITHIN_S + group_of(job, allocation).health_check.grace_ms // 1000


class Handovers:
    """Watches the moves of all jobs. All that it knows is in the allocations."""

    def __init__(self, table: JobTable, sessions: AgentSessions, clock: Clock) -> None:
        self._table, self._sessions, self._clock = table, sessions, clock
        self._background = TaskSet()

    async def settled(self, successor_ids: Collection[str]) -> None:
        """Wait until each has taken over and its predecessor has ended, or it has given up."""
        for job_id in {successor_id.split(".")[0] for successor_id in successor_ids}:
            changed = self._table.watch(job_id)
            try:
                while self._under_way(job_id, successor_ids):
                    await changed.wait()
                    changed.clear()
            finally:
                self._table.unwatch(job_id, changed)

    def give_up_overdue(self) -> None:
        """Stop the new allocations that have not come to run in time."""
        now_s = self._clock.now().seconds
        for job, allocation in list(self._table.live_allocations()):
            if not allocation.takes_over_from or allocation.stop_requested:
                continue
            within_s = takes_over_within_s(job, allocation)
            if allocation.create_time.seconds < now_s - within_s:
                allocation.stop_requested = True
                told = f": {allocation.state_message}" if allocation.state_message else ""
                allocation.state_message = f"given up: it did not run within {within_s} s{told}"
                why, kind = allocation.state_message, job_event_pb2.JOB_EVENT_KIND_STOPPING
                self._background.start(
                    self._stop(self._table.commit(job, [allocation], kind, why), allocation)
                )

    def _under_way(self, job_id: str, successor_ids: Collection[str]) -> bool:
        job = self._table.get(job_id)
        live = [a for a in job.allocations if is_live(a)] if job else []
        return any(a.moved or (a.takes_over_from and a.id in successor_ids) for a in live)

    async def _stop(self, durable: asyncio.Future[None], allocation: Allocation) -> None:
        await durable
        self._sessions.stop(allocation)
