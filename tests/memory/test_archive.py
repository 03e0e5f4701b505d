"""Jobs that have ended long ago: out of memory and of what a takeover reads, and still to be read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from mumian.api.v1 import job_event_pb2, job_pb2
from mumian.api.v1.job_pb2 import Job
from mumian_orchestrator.adapters.memory.key_value import MemoryCluster
from mumian_orchestrator.domain.errors import RequestRefusedError
from mumian_orchestrator.domain.job_events import replay
from mumian_orchestrator.main.composition import Services
from mumian_orchestrator.main.config import Config
from mumian_orchestrator.services import archive
from mumian_orchestrator.services.archive import REPEATED_WITHIN_S

from tests.memory.leader import KEY_PREFIX, leading
from tests.memory.site import Site, status_of
from tests.orchestrator.tenant import spec_of

RUNNING, SUCCEEDED = job_pb2.ALLOCATION_STATE_RUNNING, job_pb2.ALLOCATION_STATE_SUCCEEDED
SOON_S, DAY_S = 60, 86_400
LASTS_S = 2  # more than one look of the archive


@asynccontextmanager
async def city(cluster: MemoryCluster, **config: Any) -> AsyncIterator[tuple[Services, Site]]:
    async with leading(cluster, Config(unreachable_after_ms=10**12, **config)) as services:
        site = Site(services)
        await site.connect()
        yield services, site


async def ended_job(services: Services, site: Site, request: str, tenant: str = "acme") -> Job:
    """A job of one task that has succeeded."""
    job = await services.admission.create(tenant, request, spec_of(cpu_milli=100))
    await asyncio.sleep(0.1)
    for state in (RUNNING, SUCCEEDED):
        site.report(allocation_status=status_of(f"{job.id}.main.0", state))
    await asyncio.sleep(0.1)
    ended = services.admission.get(tenant, job.id)
    assert ended.state == job_pb2.JOB_STATE_SUCCEEDED
    return Job.FromString(ended.SerializeToString())


async def all_of(
    services: Services, size: int, states: tuple[job_pb2.JobState.ValueType, ...] = ()
) -> list[str]:
    """The ids that pages of a size give, one after the other."""
    found, after = [], ""
    while True:
        page, after = await services.admission.page_of_all("acme", states, after, size)
        assert len(page) <= size
        found += [job.id for job in page]
        if not after:
            return found


def keys(cluster: MemoryCluster, below: str) -> list[str]:
    return [key.removeprefix(KEY_PREFIX) for key in cluster.entries if key.startswith(KEY_PREFIX + below)]


async def test_a_job_that_was_put_away_is_read_as_before_also_by_the_next_leader() -> None:
    cluster = MemoryCluster()
    async with city(cluster, archive_after_s=SOON_S) as (services, site):
        job = await ended_job(services, site, "r")
        told = await services.admission.events("acme", job.id)
        await asyncio.sleep(SOON_S + LASTS_S)
        assert services.archive.count == 1
        assert services.table.get(job.id) is services.table.published(job.id) is None
        # Nothing of it is left where a leader that takes over reads, nor its single events.
        assert not [key for key in keys(cluster, "") if job.id in key and "archive" not in key]
        assert not keys(cluster, "data/requests/")
    async with city(cluster) as (services, _):
        again = await services.admission.find("acme", job.id)
        job.ClearField("explanations")
        assert again == job
        events = await services.admission.events("acme", job.id)
        assert (events, replay(events)) == (told, job)
        assert events[0].kind == job_event_pb2.JOB_EVENT_KIND_SUBMITTED
        assert [seen async for seen in services.admission.watch("acme", job.id)] == [job]
        assert await services.admission.cancel("acme", job.id) == job
        assert await services.admission.explain("acme", job.id) == ([], [])
        for stranger in ("rival", "acm"):
            with pytest.raises(RequestRefusedError):
                await services.admission.find(stranger, job.id)


@pytest.mark.parametrize("size", [1, 3, 500])
async def test_pages_of_all_jobs_have_each_once_newest_first(size: int) -> None:
    cluster = MemoryCluster()
    async with city(cluster, archive_ended_max=2, archive_after_s=DAY_S) as (services, site):
        jobs = []
        for number in range(7):
            jobs.append(await ended_job(services, site, f"r{number}"))
            await ended_job(services, site, f"other{number}", tenant="bolt")
        await asyncio.sleep(REPEATED_WITHIN_S + LASTS_S)
        jobs.append(await services.admission.create("acme", "living", spec_of(cpu_milli=100)))
        assert services.archive.count == 14 - 2
        newest_first = [job.id for job in reversed(jobs)]
        assert await all_of(services, size) == newest_first
        assert await all_of(services, size, (job_pb2.JOB_STATE_SUCCEEDED,)) == newest_first[1:]
        assert await all_of(services, size, (job_pb2.JOB_STATE_FAILED,)) == []
        assert [job.id for job in services.admission.list("acme", [])] == newest_first[:2]


async def test_a_request_is_known_for_ten_minutes_however_many_jobs_have_ended() -> None:
    async with city(MemoryCluster(), archive_ended_max=1) as (services, site):
        jobs = [await ended_job(services, site, f"r{number}") for number in range(5)]
        await asyncio.sleep(REPEATED_WITHIN_S - 60)
        again = [await services.admission.create("acme", f"r{n}", spec_of(cpu_milli=100)) for n in range(5)]
        assert [job.id for job in again] == [job.id for job in jobs]
        assert services.archive.count == 0


async def test_a_late_report_on_a_job_that_was_put_away_changes_nothing() -> None:
    async with city(MemoryCluster(), archive_after_s=SOON_S) as (services, site):
        job = await ended_job(services, site, "r")
        await asyncio.sleep(SOON_S + LASTS_S)
        site.report(allocation_status=status_of(f"{job.id}.main.0", SUCCEEDED, message="late"))
        await asyncio.sleep(1)
        assert (await services.admission.find("acme", job.id)).allocations == job.allocations
        assert site.commands[-1].HasField("status_stored"), "its site may forget it"


async def test_what_was_kept_for_long_enough_is_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "_DAY_S", 60)
    monkeypatch.setattr(archive, "_FORGET_EVERY_S", 10)
    cluster = MemoryCluster()
    async with city(cluster, archive_after_s=10, archive_keep_days=2) as (services, site):
        old = [
            await ended_job(services, site, f"r{n}", tenant)
            for n in range(3)
            for tenant in ("acme", "acme-x")
        ]
        await asyncio.sleep(100)
        young = await ended_job(services, site, "young")
        await asyncio.sleep(60)
        assert await all_of(services, 500) == [young.id]
        assert len(keys(cluster, "log/archive")) == 2
        with pytest.raises(RequestRefusedError):
            await services.admission.find("acme", old[0].id)
