"""A job's state, derived from its allocations: nothing else decides it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from google.protobuf.timestamp_pb2 import Timestamp
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
# What is there of an allocation on a silent site.
SILENT_ALLOCATION_STATES = frozenset({job_pb2.ALLOCATION_STATE_UNKNOWN, job_pb2.ALLOCATION_STATE_LOST})


def is_live(allocation: Allocation) -> bool:
    """Whether it has not ended, as far as is known."""
    return allocation.state not in TERMINAL_ALLOCATION_STATES


def holds_room(allocation: Allocation) -> bool:
    """Whether its resources are kept for it. For what is lost they are not: nobody gets them either, as long
    as its site is silent.
    """
    return is_live(allocation) and allocation.state != job_pb2.ALLOCATION_STATE_LOST


def task_of(allocation: Allocation) -> TaskId:
    """The task that it is a placement of."""
    return TaskId(allocation.task_group, allocation.task_index)


def tasks_of(spec: JobSpec) -> Iterator[TaskId]:
    """All tasks that a normalised spec declares, in its order."""
    for group in spec.task_groups:
        for index in range(group.count):
            yield TaskId(group.name, index)


def task_count(spec: JobSpec) -> int:
    """How many tasks a normalised spec declares."""
    return sum([group.count for group in spec.task_groups])


def is_displaced(allocation: Allocation) -> bool:
    """Whether it was stopped to make room for another job, so that its task is to be placed anew."""
    return allocation.evicted and allocation.state == job_pb2.ALLOCATION_STATE_CANCELLED


def stands(allocation: Allocation) -> bool:
    """Whether it is its task's allocation: neither still to take over, nor taken over from."""
    return not (allocation.takes_over_from or allocation.moved or allocation.superseded)


def is_set_aside(job: Job, allocation: Allocation) -> bool:
    """Whether it does not hold its task: another allocation does, or is to."""
    is_lost = allocation.state == job_pb2.ALLOCATION_STATE_LOST
    gives_way = is_displaced(allocation) or (is_lost and job.spec.on_disconnect.replace)
    return gives_way or not stands(allocation)


def is_coming(allocation: Allocation) -> bool:
    """Whether it is to take over its task, and nothing is known that keeps it from that."""
    return bool(allocation.takes_over_from) and holds_room(allocation) and not allocation.stop_requested


def unplaced_tasks(job: Job) -> tuple[TaskId, ...]:
    """The tasks that have no allocation, but for those that are set aside with nothing to take over."""
    if not job.allocations:
        return tuple(tasks_of(job.spec))
    placed = {task_of(a) for a in job.allocations if not is_set_aside(job, a) or is_coming(a)}
    return tuple(task for task in tasks_of(job.spec) if task not in placed)


def lost_tasks(job: Job) -> frozenset[TaskId]:
    """The tasks that have an allocation on a site that has been silent for too long."""
    lost = (a for a in job.allocations if a.state == job_pb2.ALLOCATION_STATE_LOST and not a.superseded)
    return frozenset(task_of(allocation) for allocation in lost)


def tasks_to_place(job: Job) -> tuple[TaskId, ...]:
    """Its tasks that are still to be placed; none if it is to end."""
    if job.state in TERMINAL_JOB_STATES or job.cancel_requested:
        return ()
    if not job.allocations:
        return tuple(tasks_of(job.spec))
    if _failed(job):
        return ()
    # A gang is placed whole, so when it makes room its last task has to end first.
    is_gang = job.spec.kind == job_pb2.JOB_KIND_GANG
    if is_gang and any(allocation.evicted and is_live(allocation) for allocation in job.allocations):
        return ()
    return unplaced_tasks(job)


def wants_placement(job: Job) -> bool:
    """Whether tasks of it are still to be placed."""
    return bool(tasks_to_place(job))


def is_doomed(job: Job) -> bool:
    """Whether what still runs of it is to be stopped: it was cancelled, or one of its tasks failed."""
    return job.cancel_requested or _failed(job) is not None


def submitted(tenant_id: str, spec: JobSpec, spec_sha256: bytes, now: Timestamp) -> Job:
    """A job as it is stored first, but for its id and that of its request.

    Args:
        spec: normalised.
        spec_sha256: of the spec as it was sent.
    """
    job = Job(tenant_id=tenant_id, spec=spec, spec_sha256=spec_sha256, version=1, etag="1")
    job.create_time.CopyFrom(now)
    job.update_time.CopyFrom(now)
    job.state, job.state_message = derive(job)
    return job


def derive(job: Job) -> tuple[JobState.ValueType, str]:
    """The job's state and the sentence that goes with it."""
    if not (job.allocations or job.cancel_requested):
        total = task_count(job.spec)
        return job_pb2.JOB_STATE_PENDING, _why_it_waits(job, total, total, 0)
    failed = _failed(job)
    doomed = job.cancel_requested or failed is not None
    live = [allocation for allocation in job.allocations if _is_awaited(job, allocation, doomed)]
    if doomed and live:
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
    unplaced = unplaced_tasks(job)
    if unplaced:
        lost = len(lost_tasks(job) & set(unplaced))
        return job_pb2.JOB_STATE_PENDING, _why_it_waits(job, task_count(job.spec), len(unplaced), lost)
    if not live:
        return job_pb2.JOB_STATE_SUCCEEDED, ""
    silent = [allocation for allocation in live if allocation.state in SILENT_ALLOCATION_STATES]
    sites = ", ".join(sorted({allocation.site_id for allocation in silent}))
    state = _while_alive([a for a in live if stands(a)] or live)
    told = [f"{_count(len(silent), 'task')} on silent site {sites}"] if silent else []
    if job.HasField("shortage"):
        told.append(f"stops when the time that is paid for is over: {job.shortage.summary}")
    return state, ", ".join(told)


def _why_it_waits(job: Job, total: int, waiting: int, lost: int) -> str:
    """In words, why so many of all its tasks have no place; of them, so many are lost with a silent site."""
    deferred = displaced = 0
    for explanation in job.explanations:
        deferred += explanation.deferred_task_count
        displaced += explanation.evicted_allocation_count
    deferred = min(waiting, deferred)
    told = [f"{deferred} of {_count(total, 'task')} deferred to a cheaper hour"] if deferred else []
    if lost:
        told.append(f"{_count(lost, 'task')} lost with a silent site")
    if displaced:
        told.append(f"waits for {_count(displaced, 'allocation')} of lower priority to stop")
    elif job.HasField("shortage"):
        told.append(job.shortage.summary)
    elif waiting > deferred:
        told.append(f"{waiting - deferred} of {_count(total, 'task')} without a place")
    return ", ".join(told)


def _is_awaited(job: Job, allocation: Allocation, doomed: bool) -> bool:
    """Whether the job goes on for as long as it does. Nobody waits for what is lost, but for its replacement
    or, where the contract wants none, for its site.
    """
    if allocation.state == job_pb2.ALLOCATION_STATE_LOST:
        return not doomed and not is_set_aside(job, allocation)
    return is_live(allocation)


def _while_alive(live: Iterable[Allocation]) -> JobState.ValueType:
    states: set[AllocationState.ValueType] = {allocation.state for allocation in live}
    if states & {job_pb2.ALLOCATION_STATE_PENDING, job_pb2.ALLOCATION_STATE_STARTING}:
        return job_pb2.JOB_STATE_STARTING
    return job_pb2.JOB_STATE_RUNNING


def _failed(job: Job) -> Allocation | None:
    failed = (a for a in job.allocations if a.state == job_pb2.ALLOCATION_STATE_FAILED)
    return next((allocation for allocation in failed if stands(allocation)), None)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
