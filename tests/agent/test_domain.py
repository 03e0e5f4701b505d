"""Quantiles and restarts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mumian.agent.v1.agent_pb2 import RunAllocation
from mumian.api.v1 import job_pb2
from mumian.api.v1.job_pb2 import TaskGroup
from mumian_agent.domain.allocation import RestartPolicy
from mumian_agent.domain.rtt_window import RttWindow


@given(st.lists(st.integers(0, 10**7), min_size=1, max_size=300), st.integers(1, 1000))
def test_a_quantile_is_the_smallest_sample_that_enough_do_not_exceed(
    samples_us: list[int], permille: int
) -> None:
    window = RttWindow(len(samples_us))
    for sample_us in samples_us:
        window.add(sample_us)
    [found_us] = window.quantiles_us(permille)

    def not_above(limit_us: int) -> int:
        return sum(sample_us <= limit_us for sample_us in samples_us) * 1000

    assert not_above(found_us) >= permille * len(samples_us)
    smaller = [sample_us for sample_us in samples_us if sample_us < found_us]
    assert not smaller or not_above(max(smaller)) < permille * len(samples_us)


def test_a_full_window_forgets_its_oldest_sample() -> None:
    window = RttWindow(2)
    for sample_us in (900, 1, 2):
        window.add(sample_us)
    assert (len(window), window.quantiles_us(500, 1000)) == (2, [1, 2])


def test_a_sample_that_is_too_old_counts_no_more() -> None:
    now_s = [0.0]
    window = RttWindow(100, max_age_s=300, clock=lambda: now_s[0])
    window.add(900)
    now_s[0] = 200.0
    window.add(100)
    assert (len(window), window.quantiles_us(1000)) == (2, [900])
    now_s[0] = 301.0
    assert (len(window), window.quantiles_us(1000)) == (1, [100])
    now_s[0] = 501.0
    assert len(window) == 0


def test_an_empty_window_has_no_quantile() -> None:
    with pytest.raises(ValueError, match="no samples"):
        RttWindow(2).quantiles_us(500)


def test_the_delays_double_up_to_ten_seconds_and_end_with_the_restarts() -> None:
    policy = RestartPolicy(max_restarts=9, is_service=False)
    delays_s = [policy.next_delay_s(up_s=0) for _ in range(10)]
    assert delays_s == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0, None]
    assert policy.restart_count == 9


def test_the_delays_are_the_jobs_own_where_it_says_so() -> None:
    run = RunAllocation(
        task_group=TaskGroup(max_restarts=2000, restart_delay_ms=500, restart_delay_max_ms=1500)
    )
    policy = RestartPolicy.of(run)
    assert [policy.next_delay_s(up_s=0) for _ in range(4)] == [0.5, 1.0, 1.5, 1.5]
    assert {policy.next_delay_s(up_s=0) for _ in range(1900)} == {1.5}
    alone = RestartPolicy.of(RunAllocation(task_group=TaskGroup(max_restarts=2, restart_delay_ms=20_000)))
    assert [alone.next_delay_s(up_s=0) for _ in range(2)] == [20.0, 20.0]


def test_a_service_that_was_up_for_a_minute_begins_to_count_anew() -> None:
    policy = RestartPolicy(max_restarts=1, is_service=True)
    assert [policy.next_delay_s(up_s) for up_s in (0, 61, 61, 0)] == [0.1, 0.1, 0.1, None]
    assert policy.restart_count == 3


def test_a_batch_task_that_was_up_for_a_minute_goes_on_counting() -> None:
    policy = RestartPolicy(max_restarts=1, is_service=False)
    assert [policy.next_delay_s(up_s=61) for _ in range(2)] == [0.1, None]


@pytest.mark.parametrize(
    ("kind", "restarts"),
    [(job_pb2.JOB_KIND_BATCH, 0), (job_pb2.JOB_KIND_GANG, 0), (job_pb2.JOB_KIND_SERVICE, 10)],
)
def test_the_default_of_restarts_is_the_kinds(kind: job_pb2.JobKind.ValueType, restarts: int) -> None:
    assert RestartPolicy.of(RunAllocation(kind=kind)).max_restarts == restarts
    explicit = RunAllocation(kind=kind, task_group=job_pb2.TaskGroup(max_restarts=0))
    assert RestartPolicy.of(explicit).max_restarts == 0


def test_only_a_service_is_restarted_after_success() -> None:
    assert RestartPolicy(1, is_service=True).wants_restart(0)
    assert not RestartPolicy(1, is_service=False).wants_restart(0)
