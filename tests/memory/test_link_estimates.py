"""Links that nobody measures: what the coordinator says of them, and what jobs are promised on that."""

from __future__ import annotations

import asyncio
import math
import random
import statistics
from collections.abc import Callable, Iterable
from pathlib import Path

from mumian.api.v1.explanation_pb2 import SiteVerdict
from mumian.api.v1.fleet_pb2 import FIGURE_SOURCE_MEASURED, FIGURE_SOURCE_MODELLED, Link, Zone
from mumian.api.v1.job_pb2 import JobSpec
from mumian_orchestrator.adapters.memory.key_value import MemoryCluster
from mumian_orchestrator.bench.rtt.matrix import read_matrix
from mumian_orchestrator.main.config import Config
from mumian_orchestrator.services.link_estimates import FRESH_S

from tests.memory.city import City
from tests.memory.leader import leading
from tests.orchestrator.tenant import spec_of

PLANETLAB = Path(__file__).parents[2] / "data/rtt/planetlab_490_1.tsv.gz"
PLACES = {"tianhe": (0, 0), "near": (3000, 0), "west": (-6000, 4000), "north": (2000, 9000)}
MEASURED = [("tianhe", "west"), ("tianhe", "north"), ("west", "near"), ("north", "near"), ("north", "west")]


def rtt_us(one: str, other: str) -> int:
    """Round trips in a plane, behind access lines of half a millisecond."""
    return round(math.dist(PLACES[one], PLACES[other])) + 1000


def measure(city: City, from_id: str, to_site_id: str, rtt_us: int) -> None:
    link = Link(
        from_id=from_id,
        to_site_id=to_site_id,
        rtt_p50_us=rtt_us,
        rtt_p99_us=rtt_us,
        source=FIGURE_SOURCE_MEASURED,
    )
    city.sites[to_site_id].report(links={"links": [link]})


async def rounds(city: City, count: int, pairs: Iterable[tuple[str, str]] = MEASURED) -> None:
    for _ in range(count):
        for one, other in pairs:
            measure(city, one, other, rtt_us(one, other))
        await asyncio.sleep(1)


def promised(budget_us: int, measured_only: bool = False) -> JobSpec:
    made = spec_of("web")
    slo = made.task_groups[0].latency_slo
    slo.zone_ids.append("tianhe")
    slo.budget_us, slo.measured_only = budget_us, measured_only
    return made


async def placed(city: City, request_id: str, wanted: JobSpec) -> str:
    job = await city.services.admission.create("acme", request_id, wanted)
    await asyncio.sleep(2)
    [allocation] = city.job(job.id).allocations
    return allocation.site_id


async def test_a_link_that_nobody_measures_counts_with_its_error_unless_only_measured_ones_do() -> None:
    async with leading(MemoryCluster(), Config(zones=(Zone(id="tianhe"),))) as services:
        city = City(services, "near", "west", "north")
        await city.connect()
        await rounds(city, 200)
        link = services.fleet.link("tianhe", "near")
        assert link is not None
        assert link.source == FIGURE_SOURCE_MODELLED
        assert 0 < link.rtt_error_us < link.rtt_p99_us
        assert link.rtt_p99_us >= rtt_us("tianhe", "near"), "the error covers what it is off by"
        fits = max(link.rtt_p99_us, rtt_us("tianhe", "north")) + 1000
        assert await placed(city, "estimate", promised(fits)) == "near", "the cheapest"
        strict = promised(fits, measured_only=True)
        assert await placed(city, "measured", strict) in ("west", "north")
        near = next(v for v in await verdicts(city, strict) if v.site_id == "near")
        assert "the link from zone tianhe is not measured" in near.rejection.reason


async def verdicts(city: City, wanted: JobSpec) -> list[SiteVerdict]:
    decision, _ = await city.services.admission.plan("acme", wanted)
    [[explanation]] = decision.explanations.values()
    return list(explanation.sites)


async def test_a_measurement_counts_at_once_and_gives_way_to_an_estimate_when_none_follows_it() -> None:
    async with leading(MemoryCluster(), Config(zones=(Zone(id="tianhe"),))) as services:
        city = City(services, "near", "west", "north")
        await city.connect()
        await rounds(city, 100)

        def source() -> int:
            link = services.fleet.link("tianhe", "near")
            assert link is not None
            return link.source

        assert source() == FIGURE_SOURCE_MODELLED
        measure(city, "tianhe", "near", 4321)
        assert source() == FIGURE_SOURCE_MEASURED
        await rounds(city, int(FRESH_S) - 20)
        assert source() == FIGURE_SOURCE_MEASURED
        await rounds(city, 40)
        assert source() == FIGURE_SOURCE_MODELLED


async def test_of_a_site_that_nothing_is_measured_of_nothing_is_said() -> None:
    async with leading(MemoryCluster(), Config(zones=(Zone(id="tianhe"),))) as services:
        city = City(services, "near", "west", "north")
        await city.connect()
        await rounds(city, 30, [("tianhe", "west"), ("west", "north")])
        assert services.fleet.link("tianhe", "near") is None
        assert services.fleet.link("tianhe", "north") is not None


async def test_on_the_internets_round_trips_estimates_with_their_errors_cover_nine_of_ten() -> None:
    """The first 40 nodes of the PlanetLab matrix: 8 are zones, 32 are sites that probe 8 ends each."""
    matrix_us = read_matrix(PLANETLAB, 1000)
    draw = random.Random(5)
    zones, sites = [f"zone-{i}" for i in range(8)], [f"site-{i}" for i in range(8, 40)]
    number = {name: int(name.partition("-")[2]) for name in (*zones, *sites)}
    true_us: Callable[[str, str], int] = lambda a, b: matrix_us[number[a]][number[b]]  # noqa: E731
    async with leading(MemoryCluster(), Config(zones=tuple(Zone(id=zone) for zone in zones))) as services:
        city = City(services, *sites)
        await city.connect()
        probed = {
            site: [end for end in draw.sample([*zones, *sites], 9) if end != site and true_us(end, site)]
            for site in sites
        }
        for _ in range(64):
            for site in sites:
                end = draw.choice(probed[site])
                measure(city, end, site, true_us(end, site))
            await asyncio.sleep(1)
        errors, covered = [], []
        for link in services.fleet.links():
            truth_us = true_us(link.from_id, link.to_site_id)
            if link.source == FIGURE_SOURCE_MODELLED and truth_us:
                errors.append(abs(link.rtt_p99_us - link.rtt_error_us - truth_us) / truth_us)
                covered.append(truth_us <= link.rtt_p99_us)
            else:
                assert link.from_id in probed[link.to_site_id] or not truth_us
    assert len(errors) > 400
    assert statistics.median(errors) < 0.25
    assert statistics.mean(covered) > 0.9
