"""Sites that fall silent, and what becomes of their tasks: unknown, lost, and settled when they are back."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp
from mumian.agent.v1.agent_pb2 import AllocationStatus
from mumian.api.v1 import job_event_pb2, job_pb2
from mumian.api.v1.fleet_pb2 import DisconnectBrake
from mumian.api.v1.job_pb2 import Allocation, AllocationState, Job

from mumian_orchestrator.domain.disconnect import keeps_original, lost_after_s
from mumian_orchestrator.domain.handover import successor_of
from mumian_orchestrator.domain.job_state import (
    TERMINAL_ALLOCATION_STATES,
    TERMINAL_JOB_STATES,
    is_doomed,
    is_set_aside,
    stands,
    task_of,
)
from mumian_orchestrator.ports.clock import Clock
from mumian_orchestrator.ports.engine import Engine
from mumian_orchestrator.services.agent_sessions import AgentSessions
from mumian_orchestrator.services.brake import Brake
from mumian_orchestrator.services.fleet import Fleet
from mumian_orchestrator.services.job_table import ALLOCATIONS_PER_COMMIT, JobTable
from mumian_orchestrator.services.receipts import Receipts
from mumian_orchestrator.services.scheduler import Scheduler
from mumian_orchestrator.services.tasks import TaskSet

log = logging.getLogger(__name__)

UNKNOWN, LOST = job_pb2.ALLOCATION_STATE_UNKNOWN, job_pb2.ALLOCATION_STATE_LOST
# Sites that vanish together are not noticed at the same instant; the brake has to see them all first.
_SETTLE_S = 2.0
# What is not due for a reason that may go away is looked at again after so long.
_LOOK_AGAIN_S = 5.0
# So that a large site does not hold up all else.
_LOST_AT_ONCE_MAX = 500


@dataclass(frozen=True, slots=True)
class _Silence:
    """Since when nothing has been heard of a site."""

    since_s: float
    since: Timestamp


class Disconnections:
    """Follows the silent sites by the contract of each job.

    That a task is unknown is shown and not stored: it says no more than that its site is silent. That it is
    lost is stored, because another is placed in its stead.
    """

    def __init__(
        self,
        table: JobTable,
        fleet: Fleet,
        engine: Engine,
        sessions: AgentSessions,
        scheduler: Scheduler,
        brake: Brake,
        receipts: Receipts,
        clock: Clock,
    ) -> None:
        self._table, self._fleet, self._engine, self._receipts = table, fleet, engine, receipts
        self._sessions, self._scheduler, self._brake, self._clock = sessions, scheduler, brake, clock
        self._silent: dict[str, _Silence] = {}
        # What was last known of the allocations that are unknown now.
        self._before: dict[str, tuple[AllocationState.ValueType, str]] = {}
        # When an allocation may be lost, in order of time: due, tie-break, site, allocation.
        self._due: list[tuple[float, int, str, str]] = []
        self._numbers = itertools.count()
        self._background = TaskSet()
        self.lost_count = 0  # allocations that were given up in this term

    # Silence.

    def lost_contact(self, site_ids: Sequence[str]) -> None:
        """These sites have just become unreachable: what runs there is unknown."""
        self._brake.vanished(site_ids, self._fleet.reachable_count())
        for site_id in site_ids:
            silence = _Silence(*self._fleet.last_heard(site_id))
            self._silent[site_id] = silence
            of_job: dict[str, list[Allocation]] = defaultdict(list)
            for job, allocation in self._table.live_allocations(site_id):
                if allocation.state not in (UNKNOWN, LOST):
                    self._before[allocation.id] = (allocation.state, allocation.state_message)
                if allocation.state != LOST:
                    of_job[job.id].append(allocation)
            for job_id, allocations in of_job.items():
                self._mark_unknown(job_id, allocations, silence)

    def tick(self) -> None:
        """Give up what has been unknown for too long, unless the brake holds."""
        was_engaged = self._brake.is_engaged
        self._brake.tick()
        if self._brake.is_engaged:
            return
        if was_engaged:
            self._scheduler.evaluate_waiting()
        now_s = self._clock.monotonic_s()
        of_job: dict[str, list[Allocation]] = defaultdict(list)
        for _ in range(_LOST_AT_ONCE_MAX):
            if not self._due or self._due[0][0] > now_s:
                break
            _, _, site_id, allocation_id = heapq.heappop(self._due)
            live, silence = self._table.live_allocation(site_id, allocation_id), self._silent.get(site_id)
            if live is None or silence is None or live[1].state != UNKNOWN:
                continue
            job, allocation = live
            after_s = lost_after_s(job)
            if after_s is None or silence.since_s + after_s > now_s:
                self._push(site_id, allocation, now_s + _LOOK_AGAIN_S)
            else:
                of_job[job.id].append(allocation)
        for job_id, allocations in of_job.items():
            self._lose(job_id, allocations)

    def _mark_unknown(self, job_id: str, allocations: Sequence[Allocation], silence: _Silence) -> None:
        job = self._table.get(job_id)
        assert job is not None
        earliest_s = self._clock.monotonic_s() + _SETTLE_S
        for allocation in allocations:
            allocation.state = UNKNOWN
            allocation.state_message = f"site {allocation.site_id} is silent since {_clock(silence.since)}"
            due_s = silence.since_s + job.spec.on_disconnect.lost_after_s
            self._push(allocation.site_id, allocation, max(due_s, earliest_s))
        self._table.show(job, allocations)

    def _push(self, site_id: str, allocation: Allocation, due_s: float) -> None:
        heapq.heappush(self._due, (due_s, next(self._numbers), site_id, allocation.id))

    def _lose(self, job_id: str, allocations: Sequence[Allocation]) -> None:
        job = self._table.get(job_id)
        assert job is not None
        changed = list(allocations)
        for allocation in allocations:
            silence = self._silent[allocation.site_id]
            gone_s = self._clock.monotonic_s() - silence.since_s
            allocation.state = LOST
            allocation.state_message = (
                f"lost: site {allocation.site_id} has been silent for {gone_s:.0f} s, "
                f"since {_clock(silence.since)}"
            )
            self._before.pop(allocation.id, None)
            successor = successor_of(job, allocation)
            if successor is not None and job.spec.on_disconnect.replace:
                # It was to take over anyway, and is the task's only allocation from now on.
                successor.takes_over_from = ""
                changed.append(successor)
        log.warning("job %s: %d allocations are lost", job.id, len(allocations))
        self.lost_count += len(allocations)
        self._commit(job, changed, job_event_pb2.JOB_EVENT_KIND_LOST, "")
        # Nothing is placed on a silent site anyway; on its return, what runs there is booked again.
        self._engine.update(freed=[allocation.id for allocation in allocations])
        self._scheduler.evaluate(job.id)

    # Return.

    def returned(self, site_id: str, statuses: Iterable[AllocationStatus]) -> None:
        """A site says hello, and what runs there. Comes before its statuses are taken one by one."""
        self._brake.returned(site_id)
        self._silent.pop(site_id, None)
        self._restore(site_id)
        told = {(status.allocation_id, status.attempt): status for status in statuses}
        for job, allocation in self._table.live_allocations(site_id):
            status = told.get((allocation.id, allocation.attempt))
            if allocation.state == LOST:
                self._settle(job, allocation, status)
            elif status is None and job.spec.at_most_once and _was_accepted(allocation):
                self._forget(job, allocation, job_pb2.ALLOCATION_STATE_FAILED)

    def _restore(self, site_id: str) -> None:
        """What was unknown is what it was before the silence, until it is told otherwise."""
        of_job: dict[str, tuple[Job, list[Allocation]]] = {}
        for job, allocation in self._table.live_allocations(site_id):
            if allocation.state == UNKNOWN and allocation.id in self._before:
                allocation.state, allocation.state_message = self._before.pop(allocation.id)
                of_job.setdefault(job.id, (job, []))[1].append(allocation)
        for job, allocations in of_job.values():
            self._table.show(job, allocations)

    def _settle(self, job: Job, original: Allocation, status: AllocationStatus | None) -> None:
        """One of a lost allocation and its replacement goes on, and the other is stopped."""
        if status is None:
            self._forget(job, original, job_pb2.ALLOCATION_STATE_CANCELLED)
            return
        is_running = status.state not in TERMINAL_ALLOCATION_STATES
        if is_running:
            original.state = status.state
            if self._fleet.has_node(original.site_id, original.node_id):
                self._engine.update(booked=[(job, original)])
        if original.stop_requested or not stands(original):
            return  # it is to be stopped, whatever has become of it; the welcome does not list it
        other = self._other(job, original)
        if other is None:
            if is_running:
                reason = f"site {original.site_id} is back, and {_task(original)} goes on there"
                original.state_message = ""
                self._commit(job, [original], job_event_pb2.JOB_EVENT_KIND_RECONCILED, reason)
            return
        policy = job_pb2.Reconcile.Name(job.spec.on_disconnect.reconcile)
        word = policy.removeprefix("RECONCILE_").lower().replace("_", " ")
        kept, loser = (
            (original, other) if keeps_original(job.spec, original, status, other) else (other, original)
        )
        loser.superseded = loser.stop_requested = True
        loser.state_message = f"superseded: {kept.id} on {kept.site_id} goes on ({word})"
        reason = (
            f"site {original.site_id} is back: {kept.id} on {kept.site_id} goes on, "
            f"{loser.id} on {loser.site_id} is stopped ({word})"
        )
        durable = self._commit(job, [original, other], job_event_pb2.JOB_EVENT_KIND_RECONCILED, reason)
        self._background.start(self._stop(durable, loser))

    def _forget(self, job: Job, allocation: Allocation, state: AllocationState.ValueType) -> None:
        """Its site is back without it: it has surely stopped."""
        allocation.state, allocation.state_message = state, f"site {allocation.site_id} came back without it"
        allocation.superseded = state == job_pb2.ALLOCATION_STATE_CANCELLED
        self._receipts.settle(allocation)
        self._engine.update(freed=[allocation.id])
        self._commit(job, [allocation], job_event_pb2.JOB_EVENT_KIND_RECONCILED, allocation.state_message)
        self._scheduler.evaluate(job.id)

    async def _stop(self, durable: asyncio.Future[None], allocation: Allocation) -> None:
        await durable
        self._sessions.stop(allocation)

    def _other(self, job: Job, original: Allocation) -> Allocation | None:
        """The allocation that took the place of a lost one."""
        for other in job.allocations:
            same = task_of(other) == task_of(original) and other.id != original.id
            if same and not is_set_aside(job, other) and other.state != job_pb2.ALLOCATION_STATE_FAILED:
                return other
        return None

    def _commit(
        self,
        job: Job,
        allocations: Sequence[Allocation],
        kind: job_event_pb2.JobEventKind.ValueType,
        reason: str,
    ) -> asyncio.Future[None]:
        for start in range(0, len(allocations), ALLOCATIONS_PER_COMMIT):
            part = allocations[start : start + ALLOCATIONS_PER_COMMIT]
            durable = self._table.commit(job, part, kind, reason)
        return durable

    # For people.

    def brake(self) -> DisconnectBrake:
        """The brake as it is."""
        return self._brake.show()

    def release_brake(self) -> DisconnectBrake:
        """An operator wants lost tasks to be replaced whatever is silent."""
        if self._brake.is_engaged:
            self._brake.release()
            self._scheduler.evaluate_waiting()
        return self._brake.show()

    def describe(self, job: Job) -> list[str]:
        """What a job's tasks on silent sites wait for, one sentence each."""
        if job.state in TERMINAL_JOB_STATES:
            return []
        silent = [a for a in job.allocations if a.state in (UNKNOWN, LOST) and not a.superseded]
        told = [f"{_task(allocation)}: {self._prospect(job, allocation)}" for allocation in silent]
        return [*told, self._brake.show().summary] if told and self._brake.is_engaged else told

    def _prospect(self, job: Job, allocation: Allocation) -> str:
        contract, site_id = job.spec.on_disconnect, allocation.site_id
        if allocation.state == LOST:
            if not contract.replace:
                return f"lost with site {site_id}; it goes on when the site is back (replace is false)"
            if self._other(job, allocation):
                return f"lost with site {site_id}, and replaced"
            held = ", once the brake lets go" if self._brake.is_engaged else ""
            return f"lost with site {site_id}; to be placed elsewhere{held}"
        silence, after_s = self._silent.get(site_id), lost_after_s(job)
        if silence is None:
            return f"site {site_id} has not been heard yet"
        begin = f"site {site_id} is silent since {_clock(silence.since)}"
        if after_s is None:
            return (
                f"{begin}; it runs at most once and has no stop_after, so it is not replaced before its site "
                "is back"
            )
        left_s = silence.since_s + after_s - self._clock.monotonic_s()
        then = "replaced elsewhere" if contract.replace else "not replaced (replace is false)"
        if is_doomed(job):
            then = "not waited for any more"
        if left_s <= 0:
            return f"{begin}; it is due to be lost, then {then}"
        return f"{begin}; lost in {left_s:.0f} s, then {then}"


def _was_accepted(allocation: Allocation) -> bool:
    return allocation.state in (job_pb2.ALLOCATION_STATE_STARTING, job_pb2.ALLOCATION_STATE_RUNNING)


def _task(allocation: Allocation) -> str:
    return f"task {allocation.task_group}.{allocation.task_index}"


def _clock(stamp: Timestamp) -> str:
    return stamp.ToDatetime().strftime("%H:%M:%S UTC")
