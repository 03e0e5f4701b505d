"""Make before break: a task moves by a second allocation that takes over once it runs."""

from __future__ import annotations

from mumian.api.v1 import job_pb2
from mumian.api.v1.job_pb2 import Allocation, Job

from mumian_orchestrator.domain.job_state import is_displaced, is_doomed, is_live, stands


def successor_of(job: Job, allocation: Allocation) -> Allocation | None:
    """The live allocation that is to take over from this one."""
    return next((a for a in job.allocations if a.takes_over_from == allocation.id and is_live(a)), None)


def is_movable(job: Job, allocation: Allocation) -> bool:
    """Whether a second copy of the task may start elsewhere while this one runs on.

    Only of services, and not of those that run at most once: a batch or gang task must not run twice at
    once, and would lose what it has done.
    """
    return (
        job.spec.kind == job_pb2.JOB_KIND_SERVICE
        and not job.spec.pinned
        and not job.spec.at_most_once
        and not job.HasField("rollout")
        and not is_doomed(job)
        and allocation.state == job_pb2.ALLOCATION_STATE_RUNNING
        and stands(allocation)
        and not allocation.stop_requested
        and successor_of(job, allocation) is None
    )


def advance(job: Job, changed: Allocation) -> list[Allocation]:
    """Carry a handover on after one of its two allocations has changed; the other one, if it changes too.

    Needs nothing but the allocations themselves, so that a new leader goes on where the old one ended.
    """
    if changed.takes_over_from:
        old = next((a for a in job.allocations if a.id == changed.takes_over_from), None)
        if changed.state != job_pb2.ALLOCATION_STATE_RUNNING or changed.stop_requested:
            return []
        changed.takes_over_from = ""
        if old is None or not is_live(old):
            return []
        old.moved = old.stop_requested = True
        old.state_message = f"moved: {changed.id} on {changed.node_id} has taken over"
        return [old]
    successor = None if is_live(changed) else successor_of(job, changed)
    if successor is None:
        return []
    if is_displaced(changed):
        # It had to make room before the other one ran, which is now the task's only allocation.
        successor.takes_over_from = ""
    else:
        successor.stop_requested = True
        successor.state_message = "not needed: the task has ended where it ran"
    return [successor]
