"""The evaluation queue: which jobs to (re)consider, and the loop that asks the engine."""

from __future__ import annotations

import asyncio
import itertools
import logging

from mumian_orchestrator.domain.decision import PendingJob
from mumian_orchestrator.domain.job_state import unplaced_tasks, wants_placement
from mumian_orchestrator.ports.engine import Engine, EngineRefusedError
from mumian_orchestrator.services.job_table import JobTable
from mumian_orchestrator.services.plan_applier import PlanApplier

log = logging.getLogger(__name__)

# One call of the engine; the rest waits for the next, so that no single call keeps a newcomer waiting.
EVALUATION_JOBS_MAX = 256


class Scheduler:
    """Evaluations are merged: a job is in the queue once, however often it is asked for."""

    def __init__(self, table: JobTable, engine: Engine, applier: PlanApplier) -> None:
        self._table, self._engine, self._applier = table, engine, applier
        self._queue: dict[str, None] = {}
        self._arrived = asyncio.Event()
        self._numbers = itertools.count(1)

    def evaluate(self, job_id: str) -> None:
        """Consider one job soon."""
        self._queue[job_id] = None
        self._arrived.set()

    def evaluate_waiting(self) -> None:
        """Consider every job that waits for a place: something has been freed or has changed."""
        for job in self._table.jobs():
            if wants_placement(job):
                self.evaluate(job.id)

    async def run(self) -> None:
        """Evaluate what arrives, until cancelled."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._queue:
                await self._evaluate_batch()

    async def _evaluate_batch(self) -> None:
        batch = list(itertools.islice(self._queue, EVALUATION_JOBS_MAX))
        for job_id in batch:
            del self._queue[job_id]
        jobs = [self._table.get(job_id) for job_id in batch]
        pending = [
            PendingJob(job.id, job.spec, unplaced_tasks(job)) for job in jobs if job and wants_placement(job)
        ]
        if not pending:
            return
        try:
            await self._decide(pending)
        except EngineRefusedError:
            # One malformed job must not keep the others waiting.
            for alone in pending:
                try:
                    await self._decide([alone])
                except EngineRefusedError:
                    log.exception("the engine refused job %s; it stays pending", alone.job_id)

    async def _decide(self, pending: list[PendingJob]) -> None:
        evaluation_id = f"evaluation-{next(self._numbers)}"
        decision = await self._engine.place(evaluation_id, pending)
        for job_id in self._applier.apply(decision, pending):
            self.evaluate(job_id)
