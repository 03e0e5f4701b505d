"""A frozen view of the Rust engine's state, and what it would be after changes."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Sequence

from mumian.api.v1.explanation_pb2 import Rejection
from mumian.api.v1.fleet_pb2 import Link, Node, Site
from mumian.api.v1.job_pb2 import Allocation, Job
from mumian_core import CancelToken, Snapshot
from mumian_core.v1 import assess_pb2, engine_pb2, optimize_pb2

from mumian_orchestrator.adapters.core.wire import (
    assessment_of,
    plan_of,
    put_pending_job,
    refusals_named,
    running_task,
    solution_of,
    used,
)
from mumian_orchestrator.domain.arrangement import Assessment, Problem, RunningTask, SearchLimits, Solution
from mumian_orchestrator.domain.decision import Decision, PendingJob

# The event loop, and with it every agent's heartbeat, keeps a core of its own where there are several.
_SEARCH_THREADS = max(1, (os.cpu_count() or 1) - 1)


class CoreView:
    """`View` over a native snapshot."""

    def __init__(self, native: Snapshot, generation: int, policy: engine_pb2.Policy) -> None:
        self._native, self._generation, self._policy = native, generation, policy

    def changed(
        self,
        *,
        sites: Sequence[Site] = (),
        nodes: Sequence[Node] = (),
        links: Sequence[Link] = (),
        removed_site_ids: Sequence[str] = (),
        booked: Sequence[tuple[Job, Allocation]] = (),
        freed: Sequence[str] = (),
    ) -> CoreView:
        """The view as it would be after a change.

        Raises:
            EngineRefusedError: the change speaks of sites or nodes that are not there.
        """
        delta = engine_pb2.Delta(
            base_generation=self._generation,
            sites=sites,
            nodes=nodes,
            links=links,
            removed_site_ids=removed_site_ids,
            allocations=[used(job, allocation) for job, allocation in booked],
            removed_allocation_ids=freed,
        )
        native = refusals_named(self._native.what_if, delta.SerializeToString())
        return CoreView(native, self._generation + 1, self._policy)

    def verify(self, decision: Decision, jobs: Sequence[PendingJob]) -> Decision:
        """The placements that hold here, with their evictions."""
        request = engine_pb2.VerifyRequest(plan=plan_of(decision))
        for job in jobs:
            put_pending_job(job, request.jobs.add())
        answer = refusals_named(self._native.verify, request.SerializeToString())
        response = engine_pb2.VerifyResponse.FromString(answer)
        kept = [p for p, v in zip(decision.placements, response.verdicts, strict=True) if v.accepted]
        tasks = {(placement.job_id, placement.task) for placement in kept}
        evictions = [e for e in decision.evictions if (e.by_job_id, e.by_task) in tasks]
        return dataclasses.replace(
            decision, generation=response.generation, placements=kept, evictions=evictions
        )

    async def assess(
        self, jobs: Sequence[PendingJob], running: Sequence[RunningTask], now_unix_s: int
    ) -> list[Assessment]:
        """How each running task stands here, in their order."""
        return [
            assessment_of(a) for a in await self._assessed(jobs, running, now_unix_s, promises_only=False)
        ]

    async def rejections(
        self, jobs: Sequence[PendingJob], running: Sequence[RunningTask], now_unix_s: int
    ) -> list[Rejection | None]:
        """What would keep each running task from its place if it came anew, in their order."""
        assessed = await self._assessed(jobs, running, now_unix_s, promises_only=True)
        return [a.broken if a.HasField("broken") else None for a in assessed]

    async def _assessed(
        self,
        jobs: Sequence[PendingJob],
        running: Sequence[RunningTask],
        now_unix_s: int,
        *,
        promises_only: bool,
    ) -> Sequence[assess_pb2.Assessment]:
        request = assess_pb2.AssessRequest(
            policy=self._policy, now_unix_s=now_unix_s, promises_only=promises_only
        )
        # Filled in place: there may be very many, and each list given to a message is copied.
        for job in jobs:
            request.jobs.add(job_id=job.job_id, spec=job.spec)
        for one in running:
            group, index = one.task
            request.running.add(
                allocation_id=one.allocation_id, job_id=one.job_id, task_group=group, task_index=index
            )
        answer = await asyncio.to_thread(refusals_named, self._native.assess, request.SerializeToString())
        return assess_pb2.AssessResponse.FromString(answer).assessments

    async def optimize(
        self, evaluation_id: str, problem: Problem, limits: SearchLimits, now_unix_s: int
    ) -> Solution:
        """The best arrangement that is found in time."""
        request = optimize_pb2.OptimizeRequest(
            evaluation_id=evaluation_id,
            running=[running_task(task) for task in problem.movable],
            policy=self._policy,
            stop=optimize_pb2.Stop(
                time_limit_ms=limits.time_limit_ms,
                rounds_max=limits.rounds_max,
                threads=1 if limits.rounds_max else _SEARCH_THREADS,
            ),
            moves_max=limits.moves_max,
            now_unix_s=now_unix_s,
        )
        for job in problem.jobs:
            put_pending_job(job, request.jobs.add(), explain=False)
        cancel = CancelToken()

        def search(data: bytes) -> bytes:
            return self._native.optimize(data, cancel)

        try:
            answer = await asyncio.to_thread(refusals_named, search, request.SerializeToString())
        finally:
            cancel.cancel()
        movable = {(task.job_id, task.task): task.allocation_id for task in problem.movable}
        return solution_of(optimize_pb2.OptimizeResponse.FromString(answer), movable)
