"""Services whose sites change under them: the real services and the real engine in virtual time."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from mumian.agent.v1.agent_pb2 import AllocationStatus
from mumian.api.v1 import fleet_pb2, job_pb2
from mumian.api.v1.fleet_pb2 import Link
from mumian.api.v1.job_pb2 import JobSpec
from mumian_orchestrator.adapters.memory.key_value import MemoryCluster
from mumian_orchestrator.domain.holds import FIRST_S, FORGIVEN_AFTER_S, LAST_S, Holds
from mumian_orchestrator.main.config import Config

from tests.memory.leader import leading, replayed_jobs_are_the_stored_ones
from tests.memory.site import CLOCK, Site, status_of
from tests.memory.test_rollouts import RUNNING, Web, running
from tests.orchestrator.tenant import spec_of

# Looked at together every ten minutes, with a short search: hours of virtual time must not take minutes.
CONFIG = Config(zones=(fleet_pb2.Zone(id="tianhe"),), reoptimize_interval_s=600, reoptimize_time_limit_ms=10)
BUDGET_US = 20_000
GOOD_US, BAD_US = 5000, 30_000


def promised(patience_s: int = 60, **spec: bool) -> JobSpec:
    """A service within 20 ms of its users."""
    made = spec_of("web", kind=job_pb2.JOB_KIND_SERVICE, **spec)
    slo = made.task_groups[0].latency_slo
    slo.zone_ids.append("tianhe")
    slo.budget_us, slo.patience_ms = BUDGET_US, patience_s * 1000
    return made


def measure(site: Site, rtt_us: int) -> None:
    """The site has measured its link from the zone."""
    link = Link(from_id="tianhe", to_site_id=site.id, rtt_p50_us=rtt_us, rtt_p99_us=rtt_us)
    site.report(links={"links": [link]})


@asynccontextmanager
async def city_of(cluster: MemoryCluster, config: Config = CONFIG) -> AsyncIterator[Web]:
    """Two sites, the first of which is the cheap one, with good links."""
    async with leading(cluster, config) as services:
        made = Web(services, "cheap", "dear")
        await made.connect()
        for site in made.sites.values():
            measure(site, GOOD_US)
        obeying = asyncio.create_task(made.obey(every_s=1))
        yield made
        obeying.cancel()


def where(city: Web, job_id: str) -> list[str]:
    return [a.site_id for a in city.job(job_id).allocations if a.state == RUNNING]


def moves(city: Web, job_id: str) -> int:
    return len(city.job(job_id).allocations) - 1


async def test_a_promise_that_stays_broken_makes_its_task_move_before_it_stops() -> None:
    cluster = MemoryCluster()
    async with city_of(cluster) as city:
        job_id = await running(city, promised())
        assert where(city, job_id) == ["cheap"]
        measure(city.sites["cheap"], BAD_US)
        broken_s = CLOCK.monotonic_s()
        fewest = 1
        while where(city, job_id) != ["dear"]:
            await asyncio.sleep(0.1)
            fewest = min(fewest, len(where(city, job_id)))
        assert fewest == 1, "it answers all the while"
        assert 60 <= CLOCK.monotonic_s() - broken_s < 75
        told = [event.reason for event in await city.services.admission.events("acme", job_id)]
        assert any(
            "its promise had not held for 6" in reason and "30 ms > 20 ms" in reason for reason in told
        )
    await replayed_jobs_are_the_stored_ones(cluster)


@pytest.mark.parametrize("spec", [promised(pinned=True), promised(at_most_once=True)])
async def test_what_must_not_move_stays(spec: JobSpec) -> None:
    async with city_of(MemoryCluster()) as city:
        job_id = await running(city, spec)
        measure(city.sites["cheap"], BAD_US)
        await asyncio.sleep(600)
        assert where(city, job_id) == ["cheap"]


async def test_where_no_place_is_better_it_stays_and_explain_says_since_when() -> None:
    async with city_of(MemoryCluster()) as city:
        job_id = await running(city, promised())
        for site in city.sites.values():
            measure(site, BAD_US)
        await asyncio.sleep(120)
        assert where(city, job_id) == ["cheap"]
        told = await city.explained(job_id)
        assert "main.0 on cheap/n1: its promise has not held for 1" in told
        assert "there is no place where it would hold" in told
        measure(city.sites["dear"], GOOD_US)
        await asyncio.sleep(60)
        assert where(city, job_id) == ["dear"], "as soon as there is one"
        assert await city.explained(job_id) == ""


@pytest.mark.parametrize(("bad_s", "good_s", "most"), [(50, 10, 0), (90, 90, 5)])
async def test_a_link_that_flaps_does_not_make_a_service_go_to_and_fro(
    bad_s: int, good_s: int, most: int
) -> None:
    """Over three hours the cheap site's link is bad and good in turn: what is shorter than the patience
    moves nothing, what is longer moves it ever more rarely, though re-optimisation wants it back.
    """
    async with city_of(MemoryCluster()) as city:
        job_id = await running(city, promised())
        begun_s = CLOCK.monotonic_s()
        flaps = 0
        while CLOCK.monotonic_s() - begun_s < 3 * 3600:
            measure(city.sites["cheap"], BAD_US)
            await asyncio.sleep(bad_s)
            measure(city.sites["cheap"], GOOD_US)
            await asyncio.sleep(good_s)
            flaps += 1
        assert moves(city, job_id) <= most < flaps
        if most:
            assert moves(city, job_id) >= 2, "it goes back when the hold is over: it costs less there"


async def test_a_price_that_has_changed_for_good_moves_what_pays_and_one_that_flickers_does_not() -> None:
    config = dataclasses.replace(CONFIG, reoptimize_interval_s=0)
    async with city_of(MemoryCluster(), config) as city:
        for site, core_microcny in (("cheap", 500_000), ("dear", 900_000)):
            city.sites[site].site.prices.cpu_core_hour_microcny = core_microcny
            await city.sites[site].connect()
        city.sites["cheap"].node.core_active_power_mw = city.sites["dear"].node.core_active_power_mw = 5000
        job_id = await running(city, spec_of("web", kind=job_pb2.JOB_KIND_SERVICE))
        await asyncio.sleep(700)
        cheap = city.sites["cheap"].site
        for _ in range(20):
            cheap.prices.cpu_core_hour_microcny = 2_000_000
            await city.sites["cheap"].connect(*_statuses(city, job_id, "cheap"))
            await asyncio.sleep(30)
            cheap.prices.cpu_core_hour_microcny = 500_000
            await city.sites["cheap"].connect(*_statuses(city, job_id, "cheap"))
            await asyncio.sleep(30)
        assert moves(city, job_id) == 0
        cheap.prices.cpu_core_hour_microcny = 2_000_000
        await city.sites["cheap"].connect(*_statuses(city, job_id, "cheap"))
        await asyncio.sleep(120)
        assert where(city, job_id) == ["dear"]
        cheap.prices.cpu_core_hour_microcny = 500_000
        await city.sites["cheap"].connect(*_statuses(city, job_id, "cheap"))
        await asyncio.sleep(900)
        assert where(city, job_id) == ["dear"], "what has moved stays for half an hour"


async def test_a_site_whose_rent_rises_above_the_ceiling_is_left_for_one_within_it() -> None:
    config = dataclasses.replace(CONFIG, reoptimize_interval_s=0)
    async with city_of(MemoryCluster(), config) as city:
        for site, core_microcny in (("cheap", 500_000), ("dear", 900_000)):
            city.sites[site].site.prices.cpu_core_hour_microcny = core_microcny
            await city.sites[site].connect()
        spec = spec_of("web", kind=job_pb2.JOB_KIND_SERVICE)
        spec.rent_max_microcny_per_hour = spec.task_groups[0].resources.cpu_milli * 1_000_000 // 1000
        job_id = await running(city, spec)
        assert where(city, job_id) == ["cheap"]
        city.sites["cheap"].site.prices.cpu_core_hour_microcny = 2_000_000
        await city.sites["cheap"].connect(*_statuses(city, job_id, "cheap"))
        await asyncio.sleep(120)
        assert where(city, job_id) == ["dear"]
        told = [event.reason for event in await city.services.admission.events("acme", job_id)]
        assert any("its promise had not held for" in reason and "rent " in reason for reason in told), told


def _statuses(city: Web, job_id: str, site_id: str) -> list[AllocationStatus]:
    return [
        status_of(a.id, a.state, start_time=a.start_time)
        for a in city.job(job_id).allocations
        if a.site_id == site_id and a.state == RUNNING
    ]


def test_a_hold_doubles_with_each_break_and_is_forgiven_in_time() -> None:
    holds, now_s = Holds(), 0.0
    lengths = []
    for _ in range(8):
        holds.broke("j", "main", "a", now_s)
        holds.broke("j", "main", "a", now_s + 1)  # another task of the group leaves as well
        lengths.append(holds.left_s("j", "main", "a", now_s))
        now_s += lengths[-1] + 1
    assert lengths == [min(FIRST_S * 4**n, LAST_S) for n in range(8)]
    assert holds.left_s("j", "main", "b", now_s) == 0
    now_s += LAST_S + FORGIVEN_AFTER_S
    holds.broke("j", "main", "a", now_s)
    assert holds.left_s("j", "main", "a", now_s) == FIRST_S
    holds.forget(now_s + FIRST_S + FORGIVEN_AFTER_S + 1)
    assert holds.left_s("j", "main", "a", now_s) == 0
