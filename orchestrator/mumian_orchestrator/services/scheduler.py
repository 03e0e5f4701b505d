"""The evaluation queue: which jobs to (re)consider, and the loop that asks the engine."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import heapq
import itertools
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from mumian.api.v1.job_pb2 import Job

from mumian_orchestrator.domain.decision import Decision, PendingJob, Placement, TaskId
from mumian_orchestrator.domain.job_state import lost_tasks, tasks_to_place
from mumian_orchestrator.ports.clock import Clock
from mumian_orchestrator.ports.engine import EnginePanickedError, EngineRefusedError
from mumian_orchestrator.services.brake import Brake
from mumian_orchestrator.services.evaluation_queue import EvaluationQueue
from mumian_orchestrator.services.job_table import JobTable
from mumian_orchestrator.services.plan_applier import PlanApplier
from mumian_orchestrator.services.preemptions import Preemptions
from mumian_orchestrator.services.shares import Shares
from mumian_orchestrator.services.solver import Solver
from mumian_orchestrator.services.turns import Turns

log = logging.getLogger(__name__)

# One call of the engine; the rest waits for the next, so that no single call keeps a newcomer waiting.
EVALUATION_JOBS_MAX, EVALUATION_TASKS_MAX = 256, 512
# The same while callers wait to be let in: what comes before and after the call keeps the event loop.
_JOBS_BESIDE_CALLERS_MAX = 32
_VERIFIED_AGAIN_AFTER_S = 5
# A look costs more than a job of it: what comes in so soon after one is looked at together.
_BETWEEN_S = 0.01
# What is committed of a decision without a turn of the event loop: a job takes up to half a millisecond.
_PART_JOBS = 4
# While callers wait to be let in, they have so many times as much of the event loop as what is placed: who is
# answered can go on, and places are found as soon as they are all in.
_OTHERS_SHARE = 3
# The rank of a tenant that is alone: one that is looked at no more.
_NO_RIVAL = (False, 0)


class Scheduler:
    """Evaluations are merged: a job is in the queue once, however often it is asked for."""

    def __init__(
        self,
        table: JobTable,
        solver: Solver,
        applier: PlanApplier,
        preemptions: Preemptions,
        brake: Brake,
        shares: Shares,
        clock: Clock,
    ) -> None:
        self._brake, self._shares = brake, shares
        self._table, self._solver, self._applier, self._clock = table, solver, applier, clock
        self._preemptions = preemptions
        self._queue = EvaluationQueue()
        # When deferred jobs are to be considered again, in unix seconds.
        self._due: dict[str, int] = {}
        self._arrived = asyncio.Event()
        self._numbers = itertools.count(1)
        # Whether something else than placing is urgent.
        self.gives_way: Callable[[], bool] = lambda: False

    @property
    def queue_length(self) -> int:
        """How many jobs are to be considered."""
        return len(self._queue)

    def evaluate(self, job_id: str) -> None:
        """Consider one job soon."""
        job = self._table.get(job_id)
        if job is not None:
            self._queue.add(job_id, job.tenant_id)
            self._arrived.set()

    def evaluate_first(self, job_ids: Iterable[str]) -> None:
        """Consider these before all others: a place has just been freed for them."""
        self._queue.add_first(job_ids)
        self._arrived.set()

    def evaluate_waiting(self) -> None:
        """Consider every job that waits for a place: something has been freed or has changed."""
        for job in self._table.waiting():
            self.evaluate(job.id)

    async def run(self) -> None:
        """Evaluate what arrives, until cancelled."""
        while True:
            await self._something_to_do()
            while self._queue:
                await self._evaluate_batch()
                if len(self._queue) < EVALUATION_JOBS_MAX:
                    await asyncio.sleep(_BETWEEN_S)

    async def _something_to_do(self) -> None:
        """Wait until a job has arrived or a deferred one is due."""
        while not self._queue:
            first = min(self._due.values(), default=None)
            patience_s = None if first is None else max(0.0, first - self._clock.now().ToNanoseconds() / 1e9)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience_s):
                    await self._arrived.wait()
            self._arrived.clear()
            now_unix_s = self._clock.now().seconds
            for job_id in [job_id for job_id, due in self._due.items() if due <= now_unix_s]:
                del self._due[job_id]
                self.evaluate(job_id)

    async def _evaluate_batch(self) -> None:
        turns = self._shares.turns()
        pending: list[PendingJob] = []
        jobs_max = _JOBS_BESIDE_CALLERS_MAX if self.gives_way() else EVALUATION_JOBS_MAX
        left_tasks = EVALUATION_TASKS_MAX
        for job_id in self._in_turn(turns):
            job = self._table.get(job_id)
            if job is None or self._preemptions.is_waiting(job.id):
                continue
            if wanted := self._tasks_to_place(job):
                tasks = turns.admit(job, wanted)
                left_tasks -= len(tasks)
                if tasks:
                    pending.append(PendingJob(job.id, job.spec, tasks, job.create_time.seconds))
                elif (why := turns.held_only(job)) != list(job.explanations):
                    self._table.publish_outlooks([(job, why)])
            if len(pending) == jobs_max or left_tasks <= 0:
                break
        if not pending:
            return
        try:
            await self._decide_or_wait(pending, turns)
        except EngineRefusedError:
            # One malformed job must not keep the others waiting.
            for alone in pending:
                try:
                    await self._decide_or_wait([alone], turns)
                except EngineRefusedError:
                    log.exception("the engine refused job %s; it stays pending", alone.job_id)

    def _in_turn(self, turns: Turns) -> Iterator[str]:
        """The jobs of the queue, each tenant's in their order, the tenants by their turns."""
        while (job_id := self._queue.pop_first()) is not None:
            yield job_id
        ranks = [
            (turns.rank(tenant_id), order, tenant_id) for order, tenant_id in enumerate(self._queue.tenants())
        ]
        heapq.heapify(ranks)
        while ranks:
            _, order, tenant_id = heapq.heappop(ranks)
            yield self._queue.pop(tenant_id)
            if tenant_id in self._queue.tenants():
                rank = turns.rank(tenant_id) if ranks else _NO_RIVAL
                heapq.heappush(ranks, (rank, order, tenant_id))

    async def _decide_or_wait(self, pending: list[PendingJob], turns: Turns) -> None:
        """Decide on jobs; what cannot be verified is not committed, and its jobs are looked at again later.

        Raises:
            EngineRefusedError: one of the jobs is malformed.
        """
        try:
            await self._decide(pending, turns)
        except Exception as error:
            if isinstance(error, EngineRefusedError) and not isinstance(error, EnginePanickedError):
                raise
            self._solver.faults["verifier"] += 1
            log.exception("a decision on %d jobs could not be verified; later again", len(pending))
            for job in pending:
                self._due[job.job_id] = self._clock.now().seconds + _VERIFIED_AGAIN_AFTER_S

    def _tasks_to_place(self, job: Job) -> tuple[TaskId, ...]:
        if not self._brake.is_engaged:
            return tasks_to_place(job)
        held = lost_tasks(job)
        return tuple(task for task in tasks_to_place(job) if task not in held)

    async def _decide(self, asked: list[PendingJob], turns: Turns) -> None:
        evaluation_id = f"evaluation-{next(self._numbers)}"
        may_evict = not self._preemptions.are_ending
        now_unix_s = self._clock.now().seconds
        self._shares.shield()
        pending = self._shares.claim(asked)
        decision = await self._solver.place(evaluation_id, pending, now_unix_s, may_evict=may_evict)
        turns.explain(asked, pending, decision)
        self._remember_deferred(decision, pending)
        unpaid: set[str] = set()
        for part, of_part in _parts(decision, pending):
            begun_s = self._clock.monotonic_s()
            applied = self._applier.apply(part, of_part)
            self._solver.distrust(applied.infeasible)
            unpaid.update(applied.unpaid)
            for job_id in applied.again:
                self.evaluate(job_id)
            took_s = self._clock.monotonic_s() - begun_s
            await asyncio.sleep(_OTHERS_SHARE * took_s if self.gives_way() else 0)
        for job_id in [
            *(_passed_over(decision, pending, unpaid) if unpaid else ()),
            *self._shares.unclaimed(asked, pending, decision),
        ]:
            self.evaluate(job_id)

    def _remember_deferred(self, decision: Decision, pending: list[PendingJob]) -> None:
        for job in pending:
            self._due.pop(job.job_id, None)
        for waiting in decision.deferred:
            due = self._due.get(waiting.job_id, waiting.start_unix_s)
            self._due[waiting.job_id] = min(due, waiting.start_unix_s)


def _parts(
    decision: Decision, pending: Sequence[PendingJob]
) -> Iterator[tuple[Decision, Sequence[PendingJob]]]:
    """A decision job by job, some at a time; whole, where one job's place is another's end."""
    if decision.evictions or len(pending) <= _PART_JOBS:
        yield decision, pending
        return
    placements: defaultdict[str, list[Placement]] = defaultdict(list)
    for placement in decision.placements:
        placements[placement.job_id].append(placement)
    for start in range(0, len(pending), _PART_JOBS):
        part = pending[start : start + _PART_JOBS]
        of_part = [placement for job in part for placement in placements[job.job_id]]
        yield dataclasses.replace(decision, placements=of_part), part


def _passed_over(decision: Decision, pending: Sequence[PendingJob], unpaid: Collection[str]) -> Iterator[str]:
    """The jobs that may have what was kept for those that cannot pay for it."""
    planned = Counter(placement.job_id for placement in decision.placements)
    for asked in pending:
        if asked.job_id not in unpaid and planned[asked.job_id] < len(asked.tasks):
            yield asked.job_id
