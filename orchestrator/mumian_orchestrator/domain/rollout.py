"""A service on its way from one spec to the next: which of its tasks are of which, and which go next."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mumian.api.v1 import job_pb2
from mumian.api.v1.job_pb2 import Allocation, Job, JobSpec, TaskGroup

from mumian_orchestrator.domain.errors import FieldFault
from mumian_orchestrator.domain.handover import successor_of
from mumian_orchestrator.domain.job_state import SILENT_ALLOCATION_STATES, is_live, stands

WELL_FOR_MS = 5000


def version_of(allocation: Allocation) -> int:
    """The version of its job that it was made from."""
    return allocation.job_version or 1


def spec_of(job: Job, allocation: Allocation) -> JobSpec:
    """The spec that an allocation was made from."""
    rollout = job.rollout
    return rollout.spec if rollout.version and version_of(allocation) == rollout.version else job.spec


def group_of(job: Job, allocation: Allocation) -> TaskGroup:
    """The template that an allocation was made from."""
    return next(
        group for group in spec_of(job, allocation).task_groups if group.name == allocation.task_group
    )


def is_rolling(job: Job) -> bool:
    """Whether its tasks are being replaced."""
    return job.HasField("rollout") and not job.rollout.stopped


def next_version(job: Job, spec: JobSpec) -> int:
    """The version that a newer spec gets; the job's own one gets its own again, to take an update back."""
    if spec == job.spec:
        return job.version or 1
    if job.HasField("rollout") and spec == job.rollout.spec:
        return job.rollout.version
    return max([job.version or 1, job.rollout.version, *map(version_of, job.allocations)]) + 1


def update_faults(job: Job, spec: JobSpec) -> Iterator[FieldFault]:
    """Why a job cannot be updated to a normalised spec task by task."""
    if job.spec.kind != job_pb2.JOB_KIND_SERVICE:
        yield FieldFault("job", "is no service: a batch or gang job is cancelled, and submitted again")
    if spec.kind != job.spec.kind:
        yield FieldFault("kind", "differs from the job's; cancel it and submit the new one")
    if job.spec.at_most_once or spec.at_most_once:
        yield FieldFault("at_most_once", "is set: no second copy of a task may run beside the first")
    if spec.name != job.spec.name:
        yield FieldFault("name", f"({spec.name!r}) differs from the job's; write {job.spec.name}")
    if spec.project != job.spec.project:
        yield FieldFault("project", f"({spec.project!r}) differs from the job's; write {job.spec.project!r}")
    if spec.contract != job.spec.contract:
        yield FieldFault(
            "contract", f"({spec.contract!r}) differs from the job's; write {job.spec.contract!r}"
        )
    old = {group.name: group.count for group in job.spec.task_groups}
    new = {group.name: group.count for group in spec.task_groups}
    if old.keys() != new.keys():
        names = ", ".join(old)
        yield FieldFault(
            "task_groups", f"must have the job's groups: {names}; submit other groups as another job"
        )
    for number, group in enumerate(spec.task_groups):
        if old.get(group.name, group.count) != group.count:
            yield FieldFault(
                f"task_groups[{number}].count",
                f"({group.count}) differs from the job's ({old[group.name]}): an update changes how tasks "
                "run, not how many",
            )


@dataclass(frozen=True, slots=True)
class Step:
    """What is to be done now: one of these."""

    stop: str = ""  # it goes no further, and why
    is_done: bool = False
    replace: tuple[Allocation, ...] = ()  # by ones of the newer version, each by a successor
    waits: bool = False  # until its tasks have got on


def next_step(job: Job, now_ns: int) -> Step:
    """How a rollout goes on, from the allocations alone: a new leader goes on where the old one ended."""
    policy, wanted = job.rollout.spec.update, job.rollout.version
    well_for_ms = policy.well_for_ms if policy.HasField("well_for_ms") else WELL_FOR_MS
    since_ns = job.rollout.start_time.ToNanoseconds()
    under_way, old = 0, []
    for allocation in job.allocations:
        is_new = version_of(allocation) == wanted
        is_ours = is_new and allocation.create_time.ToNanoseconds() >= since_ns
        task = f"{allocation.task_group}.{allocation.task_index} on {allocation.node_id}"
        if is_ours and allocation.takes_over_from and not is_live(allocation):
            why = allocation.state_message or "it ended before it was ready"
            return Step(stop=f"the new task {task}: {why}")
        if is_ours and allocation.takes_over_from:
            under_way += 1
        elif is_ours and is_live(allocation) and stands(allocation):
            if allocation.health_fault or allocation.restart_count:
                why = allocation.health_fault or f"it had to be restarted; {allocation.state_message}"
                return Step(stop=f"the new task {task} is not well: {why.rstrip('; ')}")
            well_ns = now_ns - allocation.start_time.ToNanoseconds()
            under_way += allocation.state != job_pb2.ALLOCATION_STATE_RUNNING or well_ns < well_for_ms * 10**6
        elif not is_new and is_live(allocation) and stands(allocation) and not allocation.stop_requested:
            old.append(allocation)
    if not old and not under_way:
        return Step(is_done=True)
    free = max(policy.max_parallel, 1) - under_way
    ready = [a for a in old if successor_of(job, a) is None and a.state not in SILENT_ALLOCATION_STATES]
    return Step(replace=tuple(ready[:free])) if free > 0 and ready else Step(waits=True)
