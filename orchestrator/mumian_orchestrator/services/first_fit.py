"""The placement that goes on when the solver does not: node after node takes what the verifier lets it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from mumian.api.v1 import job_pb2
from mumian.api.v1.explanation_pb2 import CostBreakdown, Explanation
from mumian.api.v1.fleet_pb2 import Node
from mumian.api.v1.job_pb2 import JobSpec, TaskGroup
from mumian.api.v1.resources_pb2 import DeviceShare

from mumian_orchestrator.domain.decision import Decision, PendingJob, Placement
from mumian_orchestrator.ports.engine import View

_WHOLE_MILLI = 1000
# It is simple, not fast: what fits none of the first so many nodes waits for the solver.
_NODES_MAX = 1000


def first_fit(view: View, nodes: Sequence[Node], evaluation_id: str, jobs: Sequence[PendingJob]) -> Decision:
    """Where the pending tasks could go, at whatever cost. Every placement has passed the verifier, which
    knows all constraints; the search knows none but which devices are free. It needs no event loop.

    Args:
        nodes: with what is promised on them.
    """
    placed: list[Placement] = []
    settled: list[PendingJob] = []
    explanations: dict[str, Sequence[Explanation]] = {}
    for job in sorted(jobs, key=lambda job: (-job.spec.priority, job.job_id)):
        found = _place(view, nodes[:_NODES_MAX], evaluation_id, job, placed, settled)
        placed += found
        settled.append(job)
        explanations[job.job_id] = list(_explained(job, found))
    return Decision(evaluation_id, 0, placed, explanations)


def _place(
    view: View,
    nodes: Sequence[Node],
    evaluation_id: str,
    job: PendingJob,
    others: Sequence[Placement],
    settled: Sequence[PendingJob],
) -> list[Placement]:
    groups = {group.name: group for group in job.spec.task_groups}
    # A gang falls as a whole, which says nothing of its tasks: they are tried one by one, and then together.
    one_by_one = dataclasses.replace(job, spec=_as_batch(job.spec))
    found: list[Placement] = []

    def verified(tried: Sequence[Placement], asked: PendingJob) -> list[Placement]:
        kept = view.verify(Decision(evaluation_id, 0, [*others, *tried], {}), [*settled, asked]).placements
        return [placement for placement in kept if placement.job_id == job.job_id]

    for node in nodes:
        taken = {placement.task for placement in found}
        left = [task for task in job.tasks if task not in taken]
        if not left:
            break
        free_milli = _free_devices(node, [*others, *found])
        tried = []
        for task in left:
            devices = _take_devices(node, free_milli, groups[task.group])
            if devices is not None:
                tried.append(
                    Placement(job.job_id, task, node.site_id, node.id, devices, CostBreakdown(), None)
                )
        if tried:
            found = verified([*found, *tried], one_by_one)
    return verified(found, job) if found else []


def _as_batch(spec: JobSpec) -> JobSpec:
    copy = JobSpec()
    copy.CopyFrom(spec)
    copy.kind = job_pb2.JOB_KIND_BATCH
    return copy


def _free_devices(node: Node, placements: Sequence[Placement]) -> list[int]:
    """What is left of each device, in thousandths."""
    free_milli = [_WHOLE_MILLI] * sum(accelerator.count for accelerator in node.accelerators)
    shares = [
        share for placement in placements if placement.node_id == node.id for share in placement.devices
    ]
    for share in [*node.devices_allocated, *shares]:
        free_milli[share.device_index] -= share.milli
    return free_milli


def _take_devices(node: Node, free_milli: list[int], group: TaskGroup) -> list[DeviceShare] | None:
    """The devices for one task, taken from what is free; None when the node has not got them."""
    request = group.resources.accelerators
    each = min(request.milli, _WHOLE_MILLI)
    count = -(-request.milli // _WHOLE_MILLI)
    first = 0
    for accelerator in node.accelerators if count else ():
        indexes = range(first, first + accelerator.count)
        first += accelerator.count
        free = [index for index in indexes if free_milli[index] >= each][:count]
        if len(free) == count and (not request.models or accelerator.model in request.models):
            for index in free:
                free_milli[index] -= each
            return [DeviceShare(device_index=index, milli=each) for index in free]
    return None if count else []


def _explained(job: PendingJob, found: Sequence[Placement]) -> Iterator[Explanation]:
    for group in job.spec.task_groups:
        wanted = sum(task.group == group.name for task in job.tasks)
        placed = sum(placement.task.group == group.name for placement in found)
        if wanted:
            yield Explanation(
                task_group=group.name,
                task_count=wanted,
                placed_task_count=placed,
                summary=f"{placed} of {wanted} placed by first fit, whatever it costs: the solver failed",
            )
