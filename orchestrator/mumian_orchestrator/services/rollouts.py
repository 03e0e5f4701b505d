"""Updates of services: the tasks of a newer spec take over from those of the older one, a few at a time."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Sequence

from mumian.api.v1 import job_event_pb2
from mumian.api.v1.job_pb2 import Allocation, Job, JobSpec, Rollout

from mumian_orchestrator.domain.decision import PendingJob
from mumian_orchestrator.domain.errors import invalid
from mumian_orchestrator.domain.job_state import TERMINAL_JOB_STATES, is_doomed, is_live, task_of
from mumian_orchestrator.domain.rollout import is_rolling, next_step, next_version, update_faults
from mumian_orchestrator.ports.clock import Clock
from mumian_orchestrator.ports.engine import EngineRefusedError
from mumian_orchestrator.services.job_table import JobTable
from mumian_orchestrator.services.plan_applier import PlanApplier
from mumian_orchestrator.services.scheduler import Scheduler
from mumian_orchestrator.services.shares import Shares
from mumian_orchestrator.services.solver import Solver

log = logging.getLogger(__name__)

_TICK_S = 0.5
# There was no room for the next task: looked at again after so long.
_ROOM_AGAIN_S = 5.0


class Rollouts:
    """All that it knows of an update is in the job and its allocations."""

    def __init__(
        self,
        table: JobTable,
        solver: Solver,
        applier: PlanApplier,
        scheduler: Scheduler,
        shares: Shares,
        clock: Clock,
    ) -> None:
        self._table, self._solver, self._applier = table, solver, applier
        self._scheduler, self._shares, self._clock = scheduler, shares, clock
        self._rolling: dict[str, float] = {}  # by job: when it is looked at next, by the monotonic clock
        self._numbers = itertools.count(1)

    def resume(self) -> None:
        """After a start: go on with what the previous leader had begun."""
        self._rolling = {job.id: 0.0 for job in self._table.jobs() if is_rolling(job)}

    def begin(self, job: Job, spec: JobSpec) -> asyncio.Future[None] | None:
        """Begin an update to a normalised spec; None: there is nothing to do.

        Raises:
            RequestRefusedError: INVALID_FIELD, it cannot be done task by task.
        """
        faults = list(update_faults(job, spec))
        if faults:
            raise invalid(faults)
        if spec == job.spec and not job.HasField("rollout"):
            return None
        if is_rolling(job) and spec == job.rollout.spec:
            return None
        rollout = Rollout(version=next_version(job, spec), spec=spec, start_time=self._clock.now())
        job.rollout.CopyFrom(rollout)
        if not any(is_live(allocation) for allocation in job.allocations):
            return self._finish(job)
        durable = self._table.commit(job, [], job_event_pb2.JOB_EVENT_KIND_UPDATE_REQUESTED)
        self._rolling[job.id] = 0.0
        return durable

    async def run(self) -> None:
        """Take the next steps, until cancelled."""
        while True:
            await asyncio.sleep(_TICK_S)
            now_s = self._clock.monotonic_s()
            for job_id in [job_id for job_id, due_s in self._rolling.items() if due_s <= now_s]:
                job = self._table.get(job_id)
                if job is None or not is_rolling(job) or is_doomed(job) or job.state in TERMINAL_JOB_STATES:
                    del self._rolling[job_id]
                    continue
                try:
                    await self._go_on(job)
                except EngineRefusedError as error:
                    self._stop(job, f"the new spec cannot be placed: {error}")

    async def _go_on(self, job: Job) -> None:
        step = next_step(job, self._clock.now().ToNanoseconds())
        if step.stop:
            self._stop(job, step.stop)
        elif step.is_done:
            self._finish(job)
        elif step.replace:
            await self._replace(job, step.replace)

    async def _replace(self, job: Job, old: Sequence[Allocation]) -> None:
        rollout = job.rollout
        leaving = {(job.id, task_of(allocation)): allocation.id for allocation in old}
        turns = self._shares.turns()
        # While a task is there twice, it counts twice.
        newer = Job(id=job.id, tenant_id=job.tenant_id, spec=rollout.spec)
        tasks = turns.admit(newer, [task_of(allocation) for allocation in old])
        self._rolling[job.id] = self._clock.monotonic_s() + _ROOM_AGAIN_S
        if not tasks:
            self._waits_for(job, "; ".join(held.held_reason for held in turns.held_only(newer)))
            return
        asked = PendingJob(job.id, rollout.spec, tasks, job.create_time.seconds)
        number, now_unix_s = next(self._numbers), self._clock.now().seconds
        version = rollout.version
        decision = await self._solver.place(f"rollout-{number}", [asked], now_unix_s, may_evict=False)
        if not is_rolling(job) or job.rollout.version != version:
            return  # another update has begun meanwhile
        if self._applier.begin_updates(decision, asked, leaving, version):
            self._waits_for(job, "")
            self._rolling[job.id] = 0.0
            return
        told = [explanation.summary for explanation in decision.explanations.get(job.id, ())]
        self._waits_for(job, f"room for a new task beside the old one: {'; '.join(told)}".rstrip(": "))

    def _waits_for(self, job: Job, what: str) -> None:
        if job.rollout.waits_for != what:
            job.rollout.waits_for = what
            self._table.commit(job, [], job_event_pb2.JOB_EVENT_KIND_UPDATE_REQUESTED, what)

    def _stop(self, job: Job, why: str) -> None:
        log.info("the update of job %s stops: %s", job.id, why)
        job.rollout.stopped, job.rollout.waits_for = why, ""
        self._table.commit(job, [], job_event_pb2.JOB_EVENT_KIND_UPDATE_STOPPED, why)

    def _finish(self, job: Job) -> asyncio.Future[None]:
        job.spec.CopyFrom(job.rollout.spec)
        job.version = job.rollout.version
        job.ClearField("rollout")
        durable = self._table.commit(job, [], job_event_pb2.JOB_EVENT_KIND_UPDATED)
        self._scheduler.evaluate(job.id)
        return durable
