"""Reports that come late, twice and in any order leave what they leave in order; the events tell of all."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mumian.agent.v1.agent_pb2 import AgentReport
from mumian.api.v1 import job_pb2
from mumian_orchestrator.adapters.memory.key_value import MemoryCluster
from mumian_orchestrator.adapters.memory.virtual_time import run_in_virtual_time
from mumian_orchestrator.domain.errors import RequestRefusedError
from mumian_orchestrator.ports.store import SupersededError

from tests.memory.leader import leading, replayed_jobs_are_the_stored_ones
from tests.memory.site import Site, status_of
from tests.orchestrator.tenant import spec_of

STARTING, RUNNING = job_pb2.ALLOCATION_STATE_STARTING, job_pb2.ALLOCATION_STATE_RUNNING
SUCCEEDED, FAILED = job_pb2.ALLOCATION_STATE_SUCCEEDED, job_pb2.ALLOCATION_STATE_FAILED
TASKS = 2
# What one task may tell of itself, in order: it may be restarted, and it may have ended.
LIVES = [
    (STARTING, RUNNING),
    (STARTING, RUNNING, STARTING, RUNNING),
    (STARTING, RUNNING, SUCCEEDED),
    (STARTING, FAILED),
]


async def left_by(lives: Sequence[Sequence[int]], order: Sequence[int] | None) -> list[int]:
    """The states of the job and its allocations when the reports arrive in an order of their numbers, which
    may repeat some; without one, as they were sent.
    """
    cluster = MemoryCluster()
    async with leading(cluster) as services:
        site = Site(services)
        await site.connect()
        job = await services.admission.create("acme", "r", spec_of(count=TASKS))
        await asyncio.sleep(1)
        reports: list[AgentReport] = []
        for step in range(max(map(len, lives))):
            for task, life in enumerate(lives):
                if step < len(life):
                    status = status_of(f"{job.id}.main.{task}", life[step])  # type: ignore[arg-type]
                    reports.append(site.next_report(allocation_status=status))
        extra = order or ()  # before all the others, and once more behind them
        for number in [*extra, *range(len(reports)), *extra]:
            site.deliver(reports[number % len(reports)])
            await asyncio.sleep(0.01)  # in which it is stored and confirmed
        await asyncio.sleep(1)
        left = services.admission.get("acme", job.id)
    await replayed_jobs_are_the_stored_ones(cluster)
    return [left.state, *(allocation.state for allocation in left.allocations)]


@settings(max_examples=60)
@given(
    st.lists(st.sampled_from(LIVES), min_size=TASKS, max_size=TASKS),
    st.lists(st.integers(0, 7), max_size=16),
)
def test_late_and_repeated_reports_leave_what_they_leave_in_order(
    lives: list[tuple[int, ...]], order: list[int]
) -> None:
    shuffled, in_order = (run_in_virtual_time(left_by(lives, each)) for each in (order, None))
    assert shuffled == in_order


async def test_a_welcome_lists_nothing_that_is_not_stored() -> None:
    cluster = MemoryCluster()
    async with leading(cluster) as services:
        site = Site(services)
        await site.connect()
        cluster.is_full = True
        with pytest.raises(RequestRefusedError, match="the store is full"):
            await services.admission.create("acme", "r", spec_of())
        await site.connect()
        assert site.welcomed() == []
        cluster.is_full = False
        await asyncio.sleep(2)
        job = await services.admission.create("acme", "r", spec_of())
        assert site.runs() == [f"{job.id}.main.0"]
        await site.connect()
        assert site.welcomed() == [f"{job.id}.main.0"]


async def test_an_end_that_is_told_again_is_confirmed_only_once_it_is_stored() -> None:
    cluster = MemoryCluster()
    async with leading(cluster) as services:
        site = Site(services)
        await site.connect()
        job = await services.admission.create("acme", "r", spec_of())
        await asyncio.sleep(1)
        ended = status_of(f"{job.id}.main.0", SUCCEEDED)
        cluster.is_full = True
        site.report(allocation_status=ended)
        await site.connect(ended)
        await asyncio.sleep(1)
        assert not [c for c in site.commands if c.HasField("status_stored")]
        cluster.is_full = False
        await asyncio.sleep(2)
        assert len([c for c in site.commands if c.HasField("status_stored")]) == 2


async def test_who_repeats_a_request_whose_term_has_ended_is_told_so() -> None:
    cluster = MemoryCluster()
    async with leading(cluster) as services:
        cluster.is_full = True
        with pytest.raises(RequestRefusedError, match="the store is full"):
            await services.admission.create("acme", "r", spec_of())
    cluster.is_full = False
    with pytest.raises(SupersededError):
        await services.admission.create("acme", "r", spec_of())


async def test_a_cancel_that_is_repeated_is_acknowledged_only_once_it_is_stored() -> None:
    cluster = MemoryCluster()
    async with leading(cluster) as services:
        job = await services.admission.create("acme", "r", spec_of())
        cluster.is_full = True
        for _ in range(2):
            with pytest.raises(RequestRefusedError, match="the store is full"):
                await services.admission.cancel("acme", job.id)
        cluster.is_full = False
        await asyncio.sleep(2)
        assert (await services.admission.cancel("acme", job.id)).cancel_requested


async def test_who_watches_is_told_of_the_end_however_slowly_he_reads() -> None:
    async with leading(MemoryCluster()) as services:
        site = Site(services)
        await site.connect()
        job = await services.admission.create("acme", "r", spec_of())
        await asyncio.sleep(1)
        seen = services.admission.watch("acme", job.id)
        states = [(await anext(seen)).state]
        site.status(f"{job.id}.main.0", SUCCEEDED)
        await asyncio.sleep(1)
        states += [shown.state async for shown in seen]
        assert states[-1] == job_pb2.JOB_STATE_SUCCEEDED
        assert len(states) == 2
