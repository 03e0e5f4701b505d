"""Brings what the agents report and what the tenants wish together."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence

from mumian.agent.v1.agent_pb2 import AllocationStatus
from mumian.api.v1 import job_event_pb2, job_pb2
from mumian.api.v1.job_pb2 import Allocation, Job

from mumian_orchestrator.domain.handover import advance
from mumian_orchestrator.domain.job_events import without
from mumian_orchestrator.domain.job_state import is_doomed, is_live
from mumian_orchestrator.domain.task_run import PORTS_MAX
from mumian_orchestrator.ports.engine import Engine
from mumian_orchestrator.services.agent_sessions import AgentSessions
from mumian_orchestrator.services.failpoints import Failpoint, reach
from mumian_orchestrator.services.job_table import ALLOCATIONS_PER_COMMIT, JobTable
from mumian_orchestrator.services.preemptions import Preemptions
from mumian_orchestrator.services.receipts import Receipts
from mumian_orchestrator.services.scheduler import Scheduler
from mumian_orchestrator.services.tasks import TaskSet

log = logging.getLogger(__name__)

# A report may bring another allocation of its task along.
_CHANGES_PER_COMMIT = ALLOCATIONS_PER_COMMIT // 2
MESSAGE_LENGTH_MAX = 1000  # of what an agent says of an allocation: it is stored with it


class Reconciler:
    """The only one that changes allocations after they have been committed, but for evicting them."""

    def __init__(
        self,
        table: JobTable,
        engine: Engine,
        sessions: AgentSessions,
        scheduler: Scheduler,
        preemptions: Preemptions,
        receipts: Receipts,
    ) -> None:
        self._table, self._engine, self._sessions, self._scheduler = table, engine, sessions, scheduler
        self._preemptions, self._receipts = preemptions, receipts
        self._background = TaskSet()

    def resume(self) -> None:
        """After a start: finish what the previous leader had begun to stop, and place what waits."""
        for job, _ in self._table.live_allocations():
            self._stop_doomed(job)
        self._preemptions.resume()
        self._scheduler.evaluate_waiting()

    def status(self, site_id: str, status: AllocationStatus) -> None:
        """An agent's report on one allocation. Repeated, late and foreign reports change nothing."""
        self.statuses(site_id, [status])

    def statuses(self, site_id: str, statuses: Iterable[AllocationStatus]) -> None:
        """Many reports at once; those on one job share its commits, which cost more the larger it is."""
        of_job: dict[str, list[AllocationStatus]] = defaultdict(list)
        for status in statuses:
            of_job[status.allocation_id.split(".")[0]].append(status)
        for job_id, told in of_job.items():
            reach(Failpoint.BEFORE_REPORT)
            job = self._table.get(job_id)
            allocations = {a.id: a for a in job.allocations} if job else {}
            changed: list[tuple[Allocation, AllocationStatus]] = []
            known: list[AllocationStatus] = []
            for status in told:
                allocation = allocations.get(status.allocation_id)
                if job is None or allocation is None or allocation.site_id != site_id:
                    self._sessions.disown(site_id, status)
                elif status.attempt != allocation.attempt or not is_live(allocation):
                    known.append(status)
                elif self._is_news(job, allocation, status):
                    changed.append((allocation, status))
            for start in range(0, len(changed), _CHANGES_PER_COMMIT):
                assert job is not None
                self._changed(site_id, job, changed[start : start + _CHANGES_PER_COMMIT])
            if known:
                # The site forgets what it is told to be stored; what is known here may be stored only now.
                self._background.start(self._confirm(self._table.all_durable(), site_id, known))

    def _is_news(self, job: Job, allocation: Allocation, status: AllocationStatus) -> bool:
        before = _without_meter(allocation)
        _take_over(allocation, status)
        if status.node_lost and job.spec.at_most_once:
            # Cut off from its site, the node may still run it.
            allocation.state = job_pb2.ALLOCATION_STATE_FAILED
            allocation.state_message += "; it runs at most once, so it is not started again"
        self._receipts.settle(allocation)
        if _without_meter(allocation) == before:
            self._table.publish_meter(job, allocation)
            return False
        by_its_site = status.cut_off or status.unfunded
        allocation.superseded |= by_its_site or (status.node_lost and not job.spec.at_most_once)
        return True

    def _changed(
        self, site_id: str, job: Job, changed: Sequence[tuple[Allocation, AllocationStatus]]
    ) -> None:
        """Make durable what a site has told of one job, and do what follows from it."""
        allocations = {allocation.id: allocation for allocation, _ in changed}
        handed_over = [other for allocation, _ in changed for other in advance(job, allocation)]
        why = handed_over[0].state_message if handed_over else ""
        durable = self._table.commit(
            job,
            list({**allocations, **{other.id: other for other in handed_over}}.values()),
            job_event_pb2.JOB_EVENT_KIND_REPORTED,
            why,
        )
        if to_stop := [other for other in handed_over if other.stop_requested]:
            self._background.start(self._stop(durable, to_stop))
        ended = [allocation.id for allocation in allocations.values() if not is_live(allocation)]
        if ended:
            self._engine.update(freed=ended)
            for allocation_id in ended:
                self._scheduler.evaluate_first(self._preemptions.ended(allocation_id))
            self._scheduler.evaluate_waiting()
        self._stop_doomed(job)
        self._background.start(self._confirm(durable, site_id, [status for _, status in changed]))

    def cancel(self, job: Job) -> asyncio.Future[None]:
        """Record the tenant's wish and stop what runs. Repeating it changes nothing."""
        job.cancel_requested = True
        self._preemptions.abandon(job.id)
        durable = self._table.commit(job, [], job_event_pb2.JOB_EVENT_KIND_CANCEL_REQUESTED)
        self._stop_doomed(job)
        return durable

    def _stop_doomed(self, job: Job) -> None:
        if not is_doomed(job):
            return
        to_stop = [a for a in job.allocations if is_live(a) and not a.stop_requested]
        why = "the job was cancelled" if job.cancel_requested else "one of its tasks failed"
        for start in range(0, len(to_stop), ALLOCATIONS_PER_COMMIT):
            part = to_stop[start : start + ALLOCATIONS_PER_COMMIT]
            for allocation in part:
                allocation.stop_requested = True
            durable = self._table.commit(job, part, job_event_pb2.JOB_EVENT_KIND_STOPPING, why)
            self._background.start(self._stop(durable, part))

    async def _stop(self, durable: asyncio.Future[None], allocations: Sequence[Allocation]) -> None:
        await durable
        for allocation in allocations:
            self._sessions.stop(allocation)

    async def _confirm(
        self, durable: asyncio.Future[None], site_id: str, statuses: Sequence[AllocationStatus]
    ) -> None:
        await durable
        reach(Failpoint.BEFORE_CONFIRMATION)
        for status in statuses:
            self._sessions.stored(site_id, status)


def _take_over(allocation: Allocation, status: AllocationStatus) -> None:
    allocation.state = status.state
    # Why another goes on in its stead tells more than that it was stopped.
    gave_way = allocation.evicted or allocation.moved or allocation.superseded
    by_its_site = status.cut_off or status.unfunded or status.node_lost
    if not gave_way or by_its_site or status.state == job_pb2.ALLOCATION_STATE_FAILED:
        allocation.state_message = status.message[:MESSAGE_LENGTH_MAX]
    allocation.restart_count = status.restart_count
    allocation.output_bytes = status.output_bytes
    allocation.it_energy_uj = max(allocation.it_energy_uj, status.it_energy_uj)
    if status.HasField("exit_code"):
        allocation.exit_code = status.exit_code
    allocation.health_fault = status.health_fault[:MESSAGE_LENGTH_MAX]
    if status.endpoints:
        del allocation.endpoints[:]
        allocation.endpoints.extend(status.endpoints[:PORTS_MAX])
    if status.HasField("start_time"):
        allocation.start_time.CopyFrom(status.start_time)
    if status.HasField("end_time"):
        allocation.end_time.CopyFrom(status.end_time)
    if status.state == job_pb2.ALLOCATION_STATE_UNSPECIFIED:
        raise ValueError(f"state (unspecified) of allocation {allocation.id} must be set by the agent")


def _without_meter(allocation: Allocation) -> Allocation:
    """What is worth an event: a meter's reading alone is not, it comes again and again."""
    return without(allocation, "it_energy_uj")
