"""A job's state, derived from its allocations: nothing else decides it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mumian.api.v1 import job_pb2
from mumian.api.v1.job_pb2 import Allocation, AllocationState, Job, JobSpec, JobState

from mumian_orchestrator.domain.decision import TaskId

TERMINAL_JOB_STATES = frozenset(
    {job_pb2.JOB_STATE_SUCCEEDED, job_pb2.JOB_STATE_FAILED, job_pb2.JOB_STATE_CANCELLED}
)
TERMINAL_ALLOCATION_STATES = frozenset(
    {
        job_pb2.ALLOCATION_STATE_SUCCEEDED,
        job_pb2.ALLOCATION_STATE_FAILED,
        job_pb2.ALLOCATION_STATE_CANCELLED,
    }
)


def is_live(allocation: Allocation) -> bool:
    """Whether it still holds its resources."""
    return allocation.state not in TERMINAL_ALLOCATION_STATES


def task_of(allocation: Allocation) -> TaskId:
    """The task that it is a placement of."""
    return TaskId(allocation.task_group, allocation.task_index)


def tasks_of(spec: JobSpec) -> Iterator[TaskId]:
    """All tasks that a normalised spec declares, in its order."""
    for group in spec.task_groups:
        for index in range(group.count):
            yield TaskId(group.name, index)


def is_displaced(allocation: Allocation) -> bool:
    """Whether it was stopped to make room for another job, so that its task is to be placed anew."""
    return allocation.evicted and allocation.state == job_pb2.ALLOCATION_STATE_CANCELLED


def stands(allocation: Allocation) -> bool:
    """Whether it is its task's allocation: neither still to take over nor taken over from."""
    return not allocation.takes_over_from and not allocation.moved


def unplaced_tasks(job: Job) -> tuple[TaskId, ...]:
    """The tasks that have no allocation, but for those that were displaced."""
    placed = {task_of(a) for a in job.allocations if stands(a) and not is_displaced(a)}
    return tuple(task for task in tasks_of(job.spec) if task not in placed)


def wants_placement(job: Job) -> bool:
    """Whether tasks of it are still to be placed."""
    if job.state in TERMINAL_JOB_STATES or job.cancel_requested or _failed(job.allocations):
        return False
    # A gang is placed whole, so when it makes room its last task has to end first.
    is_gang = job.spec.kind == job_pb2.JOB_KIND_GANG
    if is_gang and any(allocation.evicted and is_live(allocation) for allocation in job.allocations):
        return False
    return bool(unplaced_tasks(job))


def is_doomed(job: Job) -> bool:
    """Whether what still runs of it is to be stopped: it was cancelled, or one of its tasks failed."""
    return job.cancel_requested or _failed(job.allocations) is not None


def derive(job: Job) -> tuple[JobState.ValueType, str]:
    """The job's state and the sentence that goes with it."""
    failed = _failed(job.allocations)
    live = [allocation for allocation in job.allocations if is_live(allocation)]
    if is_doomed(job) and live:
        wish = "cancelled" if job.cancel_requested else "failed"
        return _while_alive(live), f"{wish}; {_count(len(live), 'task')} still to stop"
    if job.cancel_requested:
        return job_pb2.JOB_STATE_CANCELLED, ""
    if failed:
        task = f"{failed.task_group}.{failed.task_index}"
        return (
            job_pb2.JOB_STATE_FAILED,
            f"task {task} on {failed.node_id}: {failed.state_message or 'failed'}",
        )
    waiting = len(unplaced_tasks(job))
    if waiting:
        total = sum(group.count for group in job.spec.task_groups)
        deferred = min(waiting, sum(explanation.deferred_task_count for explanation in job.explanations))
        told = [f"{deferred} of {_count(total, 'task')} deferred to a cheaper hour"] if deferred else []
        displaced = sum(explanation.evicted_allocation_count for explanation in job.explanations)
        if displaced:
            told.append(f"waits for {_count(displaced, 'allocation')} of lower priority to stop")
        elif waiting > deferred:
            told.append(f"{waiting - deferred} of {_count(total, 'task')} without a place")
        return job_pb2.JOB_STATE_PENDING, ", ".join(told)
    if not live:
        return job_pb2.JOB_STATE_SUCCEEDED, ""
    return _while_alive([a for a in live if stands(a)] or live), ""


def _while_alive(live: Iterable[Allocation]) -> JobState.ValueType:
    states: set[AllocationState.ValueType] = {allocation.state for allocation in live}
    if states & {job_pb2.ALLOCATION_STATE_PENDING, job_pb2.ALLOCATION_STATE_STARTING}:
        return job_pb2.JOB_STATE_STARTING
    return job_pb2.JOB_STATE_RUNNING


def _failed(allocations: Iterable[Allocation]) -> Allocation | None:
    return next((a for a in allocations if a.state == job_pb2.ALLOCATION_STATE_FAILED and stands(a)), None)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
