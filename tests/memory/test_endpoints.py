"""Where jobs answer, as their tenant and its other jobs find it."""

from __future__ import annotations

import asyncio

import pytest
from mumian.api.v1 import error_pb2, fleet_pb2, job_pb2
from mumian.api.v1.fleet_pb2 import Link
from mumian_orchestrator.adapters.memory.key_value import MemoryCluster
from mumian_orchestrator.domain.errors import RequestRefusedError
from mumian_orchestrator.main.config import Config

from tests.memory.city import ANSWERS, MOMENT_S, RUNNING, City
from tests.memory.leader import leading
from tests.orchestrator.tenant import spec_of

SERVICE = job_pb2.JOB_KIND_SERVICE
ZONES = Config(zones=(fleet_pb2.Zone(id="tianhe"),))


async def test_only_tasks_that_run_and_are_well_are_found() -> None:
    async with leading(MemoryCluster()) as services:
        city = City(services, "a")
        await city.connect()
        task = await city.running(spec_of("web", kind=SERVICE))
        [found] = services.endpoints.of("acme", task.split(".")[0], "")
        assert (found.allocation_id, found.endpoint, found.site_id) == (task, ANSWERS, "a")
        assert not found.HasField("rtt_p99_us")
        city.sites["a"].status(task, RUNNING, health_fault="GET / answers 500")
        await asyncio.sleep(MOMENT_S)
        assert services.endpoints.of("acme", "web", "") == [], "it is unwell"
        city.sites["a"].status(task, RUNNING)
        await asyncio.sleep(MOMENT_S)
        assert services.endpoints.of("acme", "web", ""), "it is well again"
        city.sites["a"].status(task, job_pb2.ALLOCATION_STATE_STARTING, endpoints=[ANSWERS])
        await asyncio.sleep(MOMENT_S)
        assert services.endpoints.of("acme", "web", "") == [], "it is restarted"


async def test_a_name_means_the_newest_job_that_has_not_ended_and_no_other_tenants() -> None:
    async with leading(MemoryCluster()) as services:
        city = City(services, "a")
        await city.connect()
        first = await city.running(spec_of("web", kind=SERVICE), "1")
        second = await city.running(spec_of("web", kind=SERVICE), "2")
        assert [found.allocation_id for found in services.endpoints.of("acme", "web", "")] == [second]
        await services.admission.cancel("acme", second.split(".")[0])
        city.sites["a"].status(second, job_pb2.ALLOCATION_STATE_CANCELLED)
        await asyncio.sleep(MOMENT_S)
        assert [found.allocation_id for found in services.endpoints.of("acme", "web", "")] == [first]
        for tenant, job in (("other", "web"), ("other", first.split(".")[0]), ("acme", "none")):
            with pytest.raises(RequestRefusedError) as refused:
                services.endpoints.of(tenant, job, "")
            assert refused.value.reason == error_pb2.ERROR_REASON_JOB_NOT_FOUND


async def test_the_round_trip_from_a_zone_comes_with_each() -> None:
    async with leading(MemoryCluster(), ZONES) as services:
        city = City(services, "a")
        await city.connect()
        link = Link(from_id="tianhe", to_site_id="a", rtt_p50_us=900, rtt_p99_us=1500)
        city.sites["a"].report(links={"links": [link]})
        await city.running(spec_of("web", kind=SERVICE))
        [found] = services.endpoints.of("acme", "web", "tianhe")
        assert (found.rtt_p50_us, found.rtt_p99_us) == (900, 1500)
        with pytest.raises(RequestRefusedError, match="known zones: tianhe"):
            services.endpoints.of("acme", "web", "moon")
