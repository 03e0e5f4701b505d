"""Tenants that share a full fleet: quotas, turns by weight, and what is guaranteed to them."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from mumian.api.v1 import error_pb2, job_pb2
from mumian.api.v1.job_pb2 import Allocation, Job, JobSpec
from mumian_orchestrator.adapters.memory.key_value import MemoryCluster
from mumian_orchestrator.domain.errors import RequestRefusedError
from mumian_orchestrator.domain.job_state import holds_room, unplaced_tasks
from mumian_orchestrator.domain.shares import Amount, ShareRules, TenantShare
from mumian_orchestrator.main.composition import Services
from mumian_orchestrator.main.config import Config

from tests.memory.leader import leading
from tests.memory.site import CLOCK, Site
from tests.orchestrator.tenant import spec_of

CORES = 8
CANCELLED, SUCCEEDED = job_pb2.ALLOCATION_STATE_CANCELLED, job_pb2.ALLOCATION_STATE_SUCCEEDED
GANG = job_pb2.JOB_KIND_GANG
NUMBER = iter(range(10**9))


class SharedFleet:
    """One site of CORES cores, and tenants that submit to it."""

    def __init__(self, services: Services) -> None:
        self.services, self.site = services, Site(services, cpu_milli=CORES * 1000)

    async def submit(self, tenant_id: str, spec: JobSpec) -> str:
        job = await self.services.admission.create(tenant_id, f"r{next(NUMBER)}", spec)
        await asyncio.sleep(0.1)
        return job.id

    async def job(self, tenant_id: str, job_id: str) -> Job:
        await asyncio.sleep(0.1)
        return self.services.admission.get(tenant_id, job_id)

    async def end(self, allocation_id: str, state: job_pb2.AllocationState.ValueType = SUCCEEDED) -> None:
        self.site.status(allocation_id, state, start_time=CLOCK.now(), end_time=CLOCK.now())
        await asyncio.sleep(0.1)

    async def stop_as_told(self) -> None:
        """The site ends whatever it was told to stop."""
        for allocation_id in self.site.stops():
            await self.end(allocation_id, CANCELLED)

    def tasks_of(self, *tenant_ids: str) -> Counter[str]:
        """How many tasks hold room, by tenant."""
        held = Counter(a.tenant_id for a in self.live())
        return Counter({tenant_id: held[tenant_id] for tenant_id in tenant_ids})

    def live(self) -> list[Allocation]:
        jobs = list(self.services.table.all_published())
        return [a for job in jobs for a in job.allocations if holds_room(a)]


@asynccontextmanager
async def sharing(**tenants: TenantShare) -> AsyncIterator[SharedFleet]:
    config = Config(shares=ShareRules(tenants), preempt=True)
    async with leading(MemoryCluster(), config) as services:
        fleet = SharedFleet(services)
        await fleet.site.connect()
        yield fleet


def cores(count: float) -> Amount:
    return Amount(cpu_milli=int(count * 1000))


def at_most(count: int) -> Amount:
    return TenantShare().quota._replace(cpu_milli=1000 * count)


async def test_a_quota_holds_tasks_back_and_says_with_what_they_would_run() -> None:
    async with sharing(acme=TenantShare(quota=at_most(2))) as fleet:
        job_id = await fleet.submit("acme", spec_of(count=3))
        job = await fleet.job("acme", job_id)
        assert fleet.tasks_of("acme") == {"acme": 2}
        [explanation] = job.explanations
        assert (explanation.task_count, explanation.held_task_count) == (3, 1)
        assert explanation.held_reason == (
            "quota of tenant acme: it holds 2 cores, may hold 2 cores, and a task needs 1 core, 1 core over; "
            "it would fit with a quota of 3 cores, or when work of it has ended"
        )
        # Another tenant has none of it.
        await fleet.submit("beta", spec_of(count=6))
        assert fleet.tasks_of("acme", "beta") == {"acme": 2, "beta": 6}
        await fleet.end(f"{job_id}.main.0")
        assert len((await fleet.job("acme", job_id)).allocations) == 3


async def test_a_job_that_a_quota_holds_back_whole_is_explained_too() -> None:
    async with sharing(acme=TenantShare(projects={"web": at_most(1)})) as fleet:
        await fleet.submit("acme", spec_of(project="web"))
        held = await fleet.job("acme", await fleet.submit("acme", spec_of(project="web")))
        assert held.explanations[0].held_reason.startswith(
            "quota of project web: it holds 1 core, may hold 1 core"
        )
        other = await fleet.job("acme", await fleet.submit("acme", spec_of(project="batch")))
        assert len(other.allocations) == 1
        share = fleet.services.admission.share("acme")
        assert [(p.project, p.held.cpu_milli, p.quota.cpu_milli) for p in share.projects] == [
            ("batch", 1000, 0),
            ("web", 1000, 1000),
        ]


async def test_a_gang_over_its_quota_waits_whole() -> None:
    async with sharing(acme=TenantShare(quota=at_most(3))) as fleet:
        job = await fleet.job("acme", await fleet.submit("acme", spec_of(count=4, kind=GANG)))
        assert not job.allocations
        assert job.explanations[0].held_task_count == 4
        await fleet.submit("acme", spec_of(count=3, kind=GANG))
        assert fleet.tasks_of("acme") == {"acme": 3}


async def test_when_all_is_full_what_becomes_free_goes_by_weight_and_the_others_are_told_why() -> None:
    async with sharing(beta=TenantShare(weight=2)) as fleet:
        filler = await fleet.submit("filler", spec_of(count=CORES))
        waiting = [await fleet.submit("acme", spec_of()) for _ in range(CORES)]
        for _ in range(CORES):
            await fleet.submit("beta", spec_of())
        for index in range(6):
            await fleet.end(f"{filler}.main.{index}")
        assert fleet.tasks_of("acme", "beta", "filler") == {"acme": 2, "beta": 4, "filler": 2}
        reasons = [(await fleet.job("acme", job_id)).explanations[0].share_reason for job_id in waiting]
        assert any("went first" in reason for reason in reasons)
        assert not any("beta" in reason or "filler" in reason for reason in reasons)
        assert {reason.partition(":")[0] for reason in reasons if reason} == {
            "work of other tenants went first"
        }


async def test_what_is_guaranteed_is_taken_back_from_those_who_borrowed_it_and_no_more() -> None:
    async with sharing(acme=TenantShare(guaranteed=cores(3))) as fleet:
        borrowed = await fleet.submit("beta", spec_of(count=CORES, priority=90))
        claim = await fleet.submit("acme", spec_of(count=5, priority=10))
        assert len(fleet.site.stops()) == 3
        assert (await fleet.job("acme", claim)).explanations[0].task_count == 5
        await fleet.stop_as_told()
        assert fleet.tasks_of("acme", "beta") == {"acme": 3, "beta": 5}
        evicted = [a for a in (await fleet.job("beta", borrowed)).allocations if a.evicted]
        assert {a.state_message for a in evicted} == {
            "evicted: its place was borrowed, and goes to another tenant's job, to which it is guaranteed"
        }


async def test_two_claims_at_once_take_back_no_more_than_is_guaranteed() -> None:
    """Each alone was within the guarantee: both together once took back twice as much."""
    async with sharing(acme=TenantShare(guaranteed=cores(3))) as fleet:
        await fleet.submit("beta", spec_of(count=CORES))
        await asyncio.gather(*(fleet.submit("acme", spec_of(count=3)) for _ in range(2)))
        assert len(fleet.site.stops()) == 3
        await fleet.stop_as_told()
        assert fleet.tasks_of("acme", "beta") == {"acme": 3, "beta": 5}


async def test_nothing_that_is_guaranteed_is_evicted_whatever_the_priority() -> None:
    async with sharing(acme=TenantShare(guaranteed=cores(3))) as fleet:
        await fleet.submit("acme", spec_of(count=CORES, priority=10))
        await fleet.submit("beta", spec_of(count=CORES, priority=100))
        await fleet.stop_as_told()
        assert fleet.tasks_of("acme", "beta") == {"acme": 3, "beta": 5}


async def test_a_guarantee_covers_the_most_important_work_first() -> None:
    async with sharing(acme=TenantShare(guaranteed=cores(2))) as fleet:
        slow = await fleet.submit("acme", spec_of(count=2, priority=10))
        await fleet.submit("beta", spec_of(count=6, priority=50))
        await fleet.submit("acme", spec_of(count=2, priority=60))
        await fleet.stop_as_told()
        # The urgent work is guaranteed now, what ran before is not; the cheapest victims were its own.
        assert len((await fleet.job("acme", slow)).allocations) == 2
        assert fleet.tasks_of("acme", "beta")["acme"] in (2, 4)


async def test_a_priority_over_the_tenants_most_is_refused() -> None:
    async with sharing(acme=TenantShare(priority_max=60)) as fleet:
        with pytest.raises(RequestRefusedError) as refused:
            await fleet.submit("acme", spec_of(priority=61))
        assert refused.value.reason == error_pb2.ERROR_REASON_INVALID_FIELD
        assert "priority (61) must be at most 60 for tenant acme" in str(refused.value)
        await fleet.submit("beta", spec_of(priority=100))


async def test_the_next_leader_counts_what_runs() -> None:
    cluster, rules = MemoryCluster(), ShareRules({"acme": TenantShare(quota=at_most(2))})
    async with leading(cluster, Config(shares=rules)) as services:
        fleet = SharedFleet(services)
        await fleet.site.connect()
        await fleet.submit("acme", spec_of(count=2))
    async with leading(cluster, Config(shares=rules)) as services:
        fleet = SharedFleet(services)
        await fleet.site.connect()
        await fleet.submit("acme", spec_of())
        assert services.admission.share("acme").held.cpu_milli == 2000
        assert fleet.tasks_of("acme") == {"acme": 2}


@pytest.mark.parametrize("seed", range(20))
async def test_whatever_comes_and_ends_quotas_and_guarantees_hold(seed: int) -> None:
    """Nobody is over its quota, evictions end, and no claim waits before its guarantee is used up."""
    rng = random.Random(seed)
    rules = {
        "capped": TenantShare(quota=at_most(3)),
        "firm": TenantShare(guaranteed=cores(2)),
        "mighty": TenantShare(guaranteed=cores(3), weight=3),
        "other": TenantShare(),
    }
    async with sharing(**rules) as fleet:
        waiting: dict[str, list[str]] = {tenant_id: [] for tenant_id in rules}
        for _ in range(40):
            live = [a for a in fleet.live() if not a.stop_requested]
            if live and rng.random() < 0.4:
                await fleet.end(rng.choice(live).id)
            else:
                tenant_id = rng.choice(list(rules))
                spec = spec_of(count=rng.randint(1, 4), priority=rng.choice([10, 50, 90]))
                spec.kind = rng.choice([job_pb2.JOB_KIND_BATCH, job_pb2.JOB_KIND_BATCH, GANG])
                waiting[tenant_id].append(await fleet.submit(tenant_id, spec))
            for _ in range(CORES):
                await fleet.stop_as_told()
            assert not any(a.stop_requested for a in fleet.live()), "evictions go round and round"
            held = fleet.tasks_of(*rules)
            assert held["capped"] <= 3
            for tenant_id, count in (("firm", 2), ("mighty", 3)):
                jobs = [await fleet.job(tenant_id, job_id) for job_id in waiting[tenant_id]]
                claims = any(job.spec.kind != GANG and unplaced_tasks(job) for job in jobs)
                if claims:
                    assert held[tenant_id] >= count, "its claim waits, and the guarantee is not used up"
