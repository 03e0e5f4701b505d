"""The Rust engine behind the services' port."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TypeVar

from mumian.api.v1 import job_pb2
from mumian.api.v1.explanation_pb2 import Explanation
from mumian.api.v1.fleet_pb2 import Link, Node, Site
from mumian.api.v1.job_pb2 import Allocation, Job
from mumian_core import CoreError
from mumian_core import Engine as NativeEngine
from mumian_core.v1 import engine_pb2

from mumian_orchestrator.domain.decision import (
    Decision,
    DeferredTask,
    Eviction,
    PendingJob,
    Placement,
    TaskId,
)
from mumian_orchestrator.ports.engine import EngineRefusedError

T = TypeVar("T")


class CoreEngine:
    """One engine for one term; it starts empty and is told everything by `update`.

    Args:
        policy: the platform's own terms of the cost.
    """

    def __init__(self, policy: engine_pb2.Policy) -> None:
        self._native = NativeEngine()
        self._policy = policy

    def update(
        self,
        *,
        sites: Sequence[Site] = (),
        nodes: Sequence[Node] = (),
        links: Sequence[Link] = (),
        removed_node_ids: Sequence[str] = (),
        booked: Sequence[tuple[Job, Allocation]] = (),
        freed: Sequence[str] = (),
    ) -> None:
        """Change the cluster, whole or not at all.

        Raises:
            EngineRefusedError: the change speaks of sites or nodes that are not there.
        """
        delta = engine_pb2.Delta(
            base_generation=self._native.generation(),
            sites=sites,
            nodes=nodes,
            links=links,
            removed_node_ids=removed_node_ids,
            allocations=[_used(job, allocation) for job, allocation in booked],
            removed_allocation_ids=freed,
        )
        _refusals_named(self._native.apply, delta.SerializeToString())

    async def place(
        self, evaluation_id: str, jobs: Sequence[PendingJob], now_unix_s: int, *, may_evict: bool = False
    ) -> Decision:
        """Where the pending tasks would go; books nothing. Runs beside the event loop."""
        policy = engine_pb2.Policy()
        policy.CopyFrom(self._policy)
        policy.preempt = policy.preempt and may_evict
        request = engine_pb2.PlaceRequest(
            evaluation_id=evaluation_id,
            jobs=[_pending(job) for job in jobs],
            policy=policy,
            now_unix_s=now_unix_s,
        )
        snapshot = self._native.snapshot()
        answer = await asyncio.to_thread(_refusals_named, snapshot.place, request.SerializeToString())
        plan = engine_pb2.Plan.FromString(answer)
        explanations: dict[str, list[Explanation]] = defaultdict(list)
        for entry in plan.explanations:
            explanations[entry.job_id].append(entry.explanation)
        return Decision(
            evaluation_id=plan.evaluation_id,
            generation=plan.base_generation,
            placements=[_placement(placement) for placement in plan.placements],
            explanations=explanations,
            deferred=[
                DeferredTask(task.job_id, TaskId(task.task_group, task.task_index), task.start_unix_s)
                for task in plan.deferred
            ],
            evictions=[
                Eviction(e.allocation_id, e.by_job_id, TaskId(e.by_task_group, e.by_task_index))
                for e in plan.evictions
            ],
        )

    def verify(self, decision: Decision, jobs: Sequence[PendingJob]) -> Decision:
        """The placements that still hold on the newest state, with their evictions."""
        plan = engine_pb2.Plan(
            evaluation_id=decision.evaluation_id,
            base_generation=decision.generation,
            placements=[_wire(placement) for placement in decision.placements],
            evictions=[
                engine_pb2.Eviction(
                    allocation_id=e.allocation_id,
                    by_job_id=e.by_job_id,
                    by_task_group=e.by_task.group,
                    by_task_index=e.by_task.index,
                )
                for e in decision.evictions
            ],
        )
        request = engine_pb2.VerifyRequest(plan=plan, jobs=[_pending(job) for job in jobs])
        answer = _refusals_named(self._native.snapshot().verify, request.SerializeToString())
        verdicts = engine_pb2.VerifyResponse.FromString(answer).verdicts
        kept = [p for p, v in zip(decision.placements, verdicts, strict=True) if v.accepted]
        tasks = {(placement.job_id, placement.task) for placement in kept}
        evictions = [e for e in decision.evictions if (e.by_job_id, e.by_task) in tasks]
        return dataclasses.replace(decision, placements=kept, evictions=evictions)

    async def explain(self, job: PendingJob, now_unix_s: int) -> list[Explanation]:
        """Why the job's tasks would go where they would, or wait, on the state as it is now."""
        request = engine_pb2.ExplainRequest(job=_pending(job), policy=self._policy, now_unix_s=now_unix_s)
        snapshot = self._native.snapshot()
        answer = await asyncio.to_thread(_refusals_named, snapshot.explain, request.SerializeToString())
        return list(engine_pb2.ExplainResponse.FromString(answer).explanations)


def _refusals_named(call: Callable[[bytes], T], request: bytes) -> T:
    try:
        return call(request)
    except CoreError as error:
        code, message = error.args
        raise EngineRefusedError(f"{code}: {message}") from error


def _used(job: Job, allocation: Allocation) -> engine_pb2.UsedResources:
    group = next((g for g in job.spec.task_groups if g.name == allocation.task_group), None)
    return engine_pb2.UsedResources(
        allocation_id=allocation.id,
        node_id=allocation.node_id,
        resources=allocation.resources,
        devices=allocation.devices,
        job_id=job.id,
        task_group=allocation.task_group,
        task_index=allocation.task_index,
        zone_traffic=group.zone_traffic if group else (),
        priority=job.spec.priority,
        gang=job.spec.kind == job_pb2.JOB_KIND_GANG,
    )


def _pending(job: PendingJob) -> engine_pb2.PendingJob:
    indexes: dict[str, list[int]] = defaultdict(list)
    for task in job.tasks:
        indexes[task.group].append(task.index)
    pending = [
        engine_pb2.PendingTasks(task_group=group, task_indexes=numbers) for group, numbers in indexes.items()
    ]
    return engine_pb2.PendingJob(
        job_id=job.job_id, spec=job.spec, pending=pending, explain=True, created_unix_s=job.created_unix_s
    )


def _placement(placement: engine_pb2.Placement) -> Placement:
    return Placement(
        job_id=placement.job_id,
        task=TaskId(placement.task_group, placement.task_index),
        site_id=placement.site_id,
        node_id=placement.node_id,
        devices=tuple(placement.devices),
        cost=placement.cost,
        latency=placement.latency if placement.HasField("latency") else None,
    )


def _wire(placement: Placement) -> engine_pb2.Placement:
    return engine_pb2.Placement(
        job_id=placement.job_id,
        task_group=placement.task.group,
        task_index=placement.task.index,
        site_id=placement.site_id,
        node_id=placement.node_id,
        devices=placement.devices,
        cost=placement.cost,
        latency=placement.latency,
    )
