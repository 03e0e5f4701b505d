"""What a job's allocations say about the job, where some of them made room for others."""

from __future__ import annotations

from mumian.api.v1 import job_pb2
from mumian.api.v1.explanation_pb2 import Explanation
from mumian.api.v1.job_pb2 import Allocation, Job, JobSpec, TaskGroup
from mumian_orchestrator.domain.decision import TaskId
from mumian_orchestrator.domain.job_state import derive, unplaced_tasks, wants_placement

RUNNING, CANCELLED, SUCCEEDED = (
    job_pb2.ALLOCATION_STATE_RUNNING,
    job_pb2.ALLOCATION_STATE_CANCELLED,
    job_pb2.ALLOCATION_STATE_SUCCEEDED,
)


def _job(
    kind: job_pb2.JobKind.ValueType, *allocations: tuple[int, job_pb2.AllocationState.ValueType, bool]
) -> Job:
    job = Job(spec=JobSpec(kind=kind, task_groups=[TaskGroup(name="main", count=2)]))
    for index, state, evicted in allocations:
        job.allocations.append(
            Allocation(
                task_group="main", task_index=index, state=state, evicted=evicted, stop_requested=evicted
            )
        )
    return job


def test_an_evicted_task_is_placed_anew_when_it_has_stopped_and_not_before() -> None:
    stopping = _job(job_pb2.JOB_KIND_BATCH, (0, RUNNING, True), (1, RUNNING, False))
    assert unplaced_tasks(stopping) == ()
    stopped = _job(job_pb2.JOB_KIND_BATCH, (0, CANCELLED, True), (1, RUNNING, False))
    assert unplaced_tasks(stopped) == (TaskId("main", 0),)
    assert wants_placement(stopped)
    assert derive(stopped) == (job_pb2.JOB_STATE_PENDING, "1 of 2 tasks without a place")
    again = _job(job_pb2.JOB_KIND_BATCH, (0, CANCELLED, True), (1, RUNNING, False), (0, RUNNING, False))
    assert unplaced_tasks(again) == ()
    assert derive(again)[0] == job_pb2.JOB_STATE_RUNNING


def test_a_task_that_ended_well_before_it_could_be_evicted_is_not_run_again() -> None:
    done = _job(job_pb2.JOB_KIND_BATCH, (0, SUCCEEDED, True), (1, SUCCEEDED, False))
    assert not wants_placement(done)
    assert derive(done)[0] == job_pb2.JOB_STATE_SUCCEEDED


def test_a_gang_waits_until_all_of_it_has_stopped() -> None:
    half = _job(job_pb2.JOB_KIND_GANG, (0, CANCELLED, True), (1, RUNNING, True))
    assert not wants_placement(half)
    assert wants_placement(_job(job_pb2.JOB_KIND_GANG, (0, CANCELLED, True), (1, CANCELLED, True)))


def test_what_a_waiting_job_waits_for_is_told() -> None:
    job = _job(job_pb2.JOB_KIND_BATCH)
    job.explanations.append(Explanation(task_count=2, deferred_task_count=1))
    assert derive(job)[1] == "1 of 2 tasks deferred to a cheaper hour, 1 of 2 tasks without a place"
    job.explanations[0].CopyFrom(Explanation(task_count=2, placed_task_count=2, evicted_allocation_count=3))
    assert derive(job)[1] == "waits for 3 allocations of lower priority to stop"
