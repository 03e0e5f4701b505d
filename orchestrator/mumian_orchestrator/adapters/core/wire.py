"""The services' values as messages of the border, and back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import TypeVar

from mumian.api.v1 import job_pb2
from mumian.api.v1.explanation_pb2 import Explanation
from mumian.api.v1.job_pb2 import Allocation, Job
from mumian.api.v1.planning_pb2 import SitePrice
from mumian_core import CoreError
from mumian_core.v1 import assess_pb2, engine_pb2, optimize_pb2

from mumian_orchestrator.domain.arrangement import Assessment, RunningTask, Solution
from mumian_orchestrator.domain.decision import (
    Decision,
    DeferredTask,
    Eviction,
    PendingJob,
    Placement,
    TaskId,
)
from mumian_orchestrator.domain.rollout import spec_of
from mumian_orchestrator.ports.engine import EnginePanickedError, EngineRefusedError

T = TypeVar("T")

# Priorities of the engine's own, over all that a tenant can ask for: of what takes back what its tenant is
# guaranteed, and of what nothing evicts.
_GUARANTEED, _SHIELDED = 1_000, 1_000_000


def refusals_named(call: Callable[[bytes], T], request: bytes) -> T:
    """The engine's answer.

    Raises:
        EngineRefusedError: with the engine's code and message.
    """
    try:
        return call(request)
    except CoreError as error:
        code, message = error.args
        kind = EnginePanickedError if code == "PANIC" else EngineRefusedError
        raise kind(f"{code}: {message}") from error


# What goes to the engine.


def used(job: Job, allocation: Allocation, *, is_shielded: bool = False) -> engine_pb2.UsedResources:
    """What an allocation holds; nothing evicts it if it is shielded."""
    groups = spec_of(job, allocation).task_groups
    group = next((group for group in groups if group.name == allocation.task_group), None)
    return engine_pb2.UsedResources(
        allocation_id=allocation.id,
        node_id=allocation.node_id,
        resources=allocation.resources,
        devices=allocation.devices,
        job_id=job.id,
        task_group=allocation.task_group,
        task_index=allocation.task_index,
        zone_traffic=group.zone_traffic if group else (),
        priority=_SHIELDED if is_shielded else job.spec.priority,
        gang=job.spec.kind == job_pb2.JOB_KIND_GANG,
    )


def put_pending_job(job: PendingJob, message: engine_pb2.PendingJob, *, explain: bool = True) -> None:
    """A job with exactly its pending tasks, be they none; put into the empty message, where its spec is
    copied once.
    """
    indexes: dict[str, list[int]] = defaultdict(list)
    for task in job.tasks:
        indexes[task.group].append(task.index)
    if not indexes and job.spec.task_groups:
        # No entry at all would mean all tasks.
        indexes[job.spec.task_groups[0].name] = []
    message.job_id, message.explain, message.created_unix_s = job.job_id, explain, job.created_unix_s
    message.spec.CopyFrom(job.spec)
    if job.is_guaranteed:
        message.spec.priority += _GUARANTEED
    for group, numbers in indexes.items():
        message.pending.add(task_group=group, task_indexes=numbers)


def running_task(running: RunningTask) -> optimize_pb2.RunningTask:
    """An allocation by its task."""
    return optimize_pb2.RunningTask(
        allocation_id=running.allocation_id,
        job_id=running.job_id,
        task_group=running.task.group,
        task_index=running.task.index,
    )


def plan_of(decision: Decision) -> engine_pb2.Plan:
    """The placements and evictions of a decision."""
    return engine_pb2.Plan(
        evaluation_id=decision.evaluation_id,
        base_generation=decision.generation,
        placements=[_placement_message(placement) for placement in decision.placements],
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


def _placement_message(placement: Placement) -> engine_pb2.Placement:
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


# What comes back.


def decision_of(plan: engine_pb2.Plan) -> Decision:
    """A plan with its explanations by job."""
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


def solution_of(answer: optimize_pb2.OptimizeResponse, movable: dict[tuple[str, TaskId], str]) -> Solution:
    """The optimiser's answer; `movable` has the allocation of each running task that was in play."""
    placements = [_placement(placement) for placement in answer.plan.placements]
    moved_ids = {move.allocation_id for move in answer.moves}
    by_allocation = {movable.get((p.job_id, p.task), ""): p for p in placements}
    return Solution(
        evaluation_id=answer.plan.evaluation_id,
        generation=answer.plan.base_generation,
        placements=placements,
        moved={allocation_id: p for allocation_id, p in by_allocation.items() if allocation_id in moved_ids},
        unplaced_task_count=answer.found.unplaced_task_count,
        cost_microcny=answer.found.cost_microcny_per_hour,
        objective_microcny=answer.found.objective_microcny_per_hour,
        bound_microcny=answer.bound_microcny_per_hour,
        prices=[
            SitePrice(
                site_id=price.site_id,
                resource=price.resource,
                saves_microcny_per_hour=price.microcny_per_hour,
            )
            for price in answer.prices
            if price.microcny_per_hour > 0
        ],
    )


def assessment_of(assessment: assess_pb2.Assessment) -> Assessment:
    """How one running task stands."""
    broken = assessment.broken if assessment.HasField("broken") else None
    return Assessment(is_gone=assessment.gone, cost=assessment.cost, broken=broken)


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
