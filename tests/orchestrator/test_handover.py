"""Make before break, from the allocations alone. Needs neither etcd nor an engine."""

from __future__ import annotations

from random import Random

import pytest
from mumian.api.v1 import job_pb2
from mumian.api.v1.job_pb2 import Allocation, Job
from mumian_orchestrator.domain.handover import advance, is_movable
from mumian_orchestrator.domain.job_state import (
    derive,
    is_coming,
    is_displaced,
    is_live,
    stands,
    unplaced_tasks,
)

RUNNING, STARTING = job_pb2.ALLOCATION_STATE_RUNNING, job_pb2.ALLOCATION_STATE_STARTING
FAILED, CANCELLED, SUCCEEDED = (
    job_pb2.ALLOCATION_STATE_FAILED,
    job_pb2.ALLOCATION_STATE_CANCELLED,
    job_pb2.ALLOCATION_STATE_SUCCEEDED,
)


def service(*allocations: Allocation, **spec: object) -> Job:
    """A service of one task with these allocations of it."""
    job = Job(id="j", spec=job_pb2.JobSpec(kind=job_pb2.JOB_KIND_SERVICE, **spec))  # type: ignore[arg-type]
    job.spec.task_groups.add(name="main", count=1)
    for number, allocation in enumerate(allocations):
        allocation.id, allocation.task_group = f"j.main.0.{number}", "main"
        job.allocations.append(allocation)
    return job


def moving(old: Allocation, new: Allocation, **spec: object) -> Job:
    """A service whose second allocation is to take over from the first."""
    new.takes_over_from = "j.main.0.0"
    return service(old, new, **spec)


def test_the_old_one_is_stopped_only_when_the_new_one_runs() -> None:
    job = moving(Allocation(state=RUNNING), Allocation(state=STARTING, node_id="b/n1"))
    old, new = job.allocations
    assert advance(job, new) == []
    assert not old.stop_requested
    new.state = RUNNING
    assert advance(job, new) == [old]
    assert (old.stop_requested, old.moved, new.takes_over_from) == (True, True, "")
    assert old.state_message == "moved: j.main.0.1 on b/n1 has taken over"
    old.state = CANCELLED
    assert advance(job, old) == []
    assert derive(job)[0] == job_pb2.JOB_STATE_RUNNING


def test_a_job_runs_on_while_its_task_moves() -> None:
    job = moving(Allocation(state=RUNNING), Allocation(state=STARTING))
    assert derive(job)[0] == job_pb2.JOB_STATE_RUNNING
    assert unplaced_tasks(job) == ()


@pytest.mark.parametrize("end", [FAILED, CANCELLED])
def test_a_new_one_that_ends_before_it_runs_counts_for_nothing(
    end: job_pb2.AllocationState.ValueType,
) -> None:
    job = moving(Allocation(state=RUNNING), Allocation(state=end))
    assert advance(job, job.allocations[1]) == []
    assert derive(job) == (job_pb2.JOB_STATE_RUNNING, "")
    assert not job.allocations[0].stop_requested


def test_what_the_old_one_reports_after_it_was_taken_over_does_not_fail_the_job() -> None:
    job = moving(Allocation(state=RUNNING), Allocation(state=RUNNING))
    advance(job, job.allocations[1])
    job.allocations[0].state = FAILED
    assert derive(job)[0] == job_pb2.JOB_STATE_RUNNING


def test_a_task_that_ends_where_it_ran_needs_no_other_place() -> None:
    job = moving(Allocation(state=SUCCEEDED), Allocation(state=STARTING))
    old, new = job.allocations
    assert advance(job, old) == [new]
    assert new.stop_requested
    new.state = RUNNING  # the stop has not reached it yet
    assert advance(job, new) == []
    new.state = CANCELLED
    assert derive(job)[0] == job_pb2.JOB_STATE_SUCCEEDED


def test_a_task_that_has_to_make_room_lives_on_in_the_new_one() -> None:
    job = moving(Allocation(state=CANCELLED, evicted=True, stop_requested=True), Allocation(state=STARTING))
    old, new = job.allocations
    assert advance(job, old) == [new]
    assert (new.takes_over_from, new.stop_requested) == ("", False)
    assert unplaced_tasks(job) == ()


def test_a_task_whose_old_site_is_lost_waits_for_the_one_that_is_coming() -> None:
    job = moving(Allocation(state=job_pb2.ALLOCATION_STATE_LOST), Allocation(state=STARTING))
    job.spec.on_disconnect.replace = True
    old, new = job.allocations
    assert unplaced_tasks(job) == (), "a third allocation would be one too many"
    new.state = RUNNING
    assert advance(job, new) == [old]
    assert old.stop_requested
    job = moving(Allocation(state=job_pb2.ALLOCATION_STATE_LOST), Allocation(state=FAILED))
    job.spec.on_disconnect.replace = True
    assert len(unplaced_tasks(job)) == 1


def test_a_new_one_that_is_evicted_later_leaves_its_task_without_a_place() -> None:
    job = moving(Allocation(state=RUNNING), Allocation(state=RUNNING))
    old, new = job.allocations
    advance(job, new)
    old.state, new.state, new.evicted = CANCELLED, CANCELLED, True
    assert [task.index for task in unplaced_tasks(job)] == [0]


@pytest.mark.parametrize(
    ("job", "movable"),
    [
        (service(Allocation(state=RUNNING)), True),
        (service(Allocation(state=STARTING)), False),
        (service(Allocation(state=RUNNING), pinned=True), False),
        (service(Allocation(state=RUNNING, stop_requested=True)), False),
        (moving(Allocation(state=RUNNING), Allocation(state=STARTING)), False),
        (moving(Allocation(state=RUNNING), Allocation(state=FAILED)), True),
    ],
)
def test_what_runs_by_itself_may_move(job: Job, movable: bool) -> None:
    assert is_movable(job, job.allocations[0]) == movable


@pytest.mark.parametrize("kind", [job_pb2.JOB_KIND_BATCH, job_pb2.JOB_KIND_GANG])
def test_work_that_must_not_run_twice_does_not_move(kind: job_pb2.JobKind.ValueType) -> None:
    job = service(Allocation(state=RUNNING))
    job.spec.kind = kind
    assert not is_movable(job, job.allocations[0])


def test_whatever_comes_in_whatever_order_the_task_stands_once_and_somewhere() -> None:
    """Reports, evictions and stops at random."""
    for seed in range(2000):
        _a_move_goes_as_it_may(Random(seed))


def _a_move_goes_as_it_may(random: Random) -> None:
    job = moving(Allocation(state=RUNNING), Allocation(state=job_pb2.ALLOCATION_STATE_PENDING))
    old, new = job.allocations
    for _ in range(12):
        allocation = random.choice([old, new])
        match random.randrange(5):
            case 0 if is_live(allocation) and not allocation.stop_requested:  # another job needs its place
                allocation.evicted = allocation.stop_requested = True
            case 1 if allocation is new and new.takes_over_from and not new.stop_requested:  # too slow
                new.stop_requested = True
            case 2 if is_live(allocation) and allocation.stop_requested:
                allocation.state = CANCELLED
            case 3 if allocation.state in (job_pb2.ALLOCATION_STATE_PENDING, STARTING):
                allocation.state = random.choice([STARTING, RUNNING, FAILED])
                allocation.start_time.seconds = int(allocation.state == RUNNING)
            case _:
                continue
        advance(job, allocation)
        standing = [a for a in job.allocations if stands(a) and not is_displaced(a)]
        assert len(standing) <= 1
        assert len(unplaced_tasks(job)) + len(standing) + any(map(is_coming, job.allocations)) >= 1
        assert not (unplaced_tasks(job) and standing), "it would be placed twice"
        if old.stop_requested and not old.evicted:
            assert old.moved
            assert new.start_time.seconds, "what runs is stopped only when the other one has come to run"
        failed = derive(job)[0] == job_pb2.JOB_STATE_FAILED
        assert not failed or (new.state == FAILED and not new.takes_over_from)
