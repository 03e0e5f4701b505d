"""Services that become a newer version, task by task: the real services in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from mumian.api.v1 import job_event_pb2, job_pb2
from mumian.api.v1.job_pb2 import Allocation, Job, JobSpec
from mumian_orchestrator.adapters.memory.key_value import MemoryCluster
from mumian_orchestrator.domain.errors import RequestRefusedError
from mumian_orchestrator.domain.job_state import is_live
from mumian_orchestrator.domain.shares import UNLIMITED, ShareRules, TenantShare
from mumian_orchestrator.main.composition import Services
from mumian_orchestrator.main.config import Config

from tests.memory.city import ANSWERS, MOMENT_S, City
from tests.memory.leader import leading, replayed_jobs_are_the_stored_ones
from tests.memory.site import CLOCK
from tests.orchestrator.tenant import spec_of

RUNNING, FAILED = job_pb2.ALLOCATION_STATE_RUNNING, job_pb2.ALLOCATION_STATE_FAILED
CANCELLED = job_pb2.ALLOCATION_STATE_CANCELLED
SERVICE = job_pb2.JOB_KIND_SERVICE


def version(number: int, count: int = 3, cpu_milli: int = 1000, **update: object) -> JobSpec:
    """A web service whose command says its version."""
    policy = job_pb2.UpdatePolicy(**update)  # type: ignore[arg-type]
    spec = spec_of("web", count=count, cpu_milli=cpu_milli, kind=SERVICE, update=policy)
    spec.task_groups[0].command.argv.append(f"v{number}")
    return spec


class Web(City):
    """A city whose agents do what they are told, unless the test decides otherwise."""

    def __init__(self, services: Services, *site_ids: str) -> None:
        super().__init__(services, *site_ids)
        # How a new allocation ends up; None: it starts, and goes no further.
        self.fate: Callable[[Allocation], job_pb2.AllocationState.ValueType | None] = lambda _: RUNNING
        self.most_beside = 0  # tasks that were there twice at the same time

    async def obey(self, every_s: float = 0.1) -> None:
        seen: dict[str, int] = {}
        while True:
            await asyncio.sleep(every_s)
            for job in self.services.admission.list("acme", []):
                self.most_beside = max(
                    self.most_beside, sum(bool(a.takes_over_from) and is_live(a) for a in job.allocations)
                )
            for site in self.sites.values():
                for command in site.commands[seen.get(site.id, 0) :]:
                    if command.HasField("stop"):
                        site.status(command.stop.allocation_id, CANCELLED)
                    elif command.HasField("run"):
                        self._start(site.id, command.run.allocation)
                seen[site.id] = len(site.commands)

    def _start(self, site_id: str, allocation: Allocation) -> None:
        state = self.fate(allocation)
        if state == RUNNING:
            self.sites[site_id].status(allocation.id, state, start_time=CLOCK.now(), endpoints=[ANSWERS])
        elif state is not None:
            self.sites[site_id].status(allocation.id, state, message="exited with status 1")

    async def until(self, job_id: str, wanted: Callable[[Job], bool], within_s: float = 300) -> Job:
        async with asyncio.timeout(within_s):
            while not wanted(self.job(job_id)):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        return self.job(job_id)


@asynccontextmanager
async def web(services: Services, *site_ids: str) -> AsyncIterator[Web]:
    made = Web(services, *site_ids)
    await made.connect()
    obeying = asyncio.create_task(made.obey())
    yield made
    obeying.cancel()


def live(job: Job) -> list[int]:
    """The versions of what runs."""
    return sorted(a.job_version for a in job.allocations if a.state == RUNNING)


async def running(city: Web, spec: JobSpec) -> str:
    job = await city.services.admission.create("acme", "r", spec)
    await city.until(job.id, lambda job: job.state == job_pb2.JOB_STATE_RUNNING)
    return job.id


@pytest.mark.parametrize("max_parallel", [1, 2])
async def test_tasks_are_replaced_a_few_at_a_time_and_each_runs_all_the_while(max_parallel: int) -> None:
    cluster = MemoryCluster()
    async with leading(cluster) as services, web(services, "a", "b") as city:
        job_id = await running(city, version(1))
        begun_s = CLOCK.monotonic_s()
        await services.admission.update(
            "acme", "web", version(2, max_parallel=max_parallel, well_for_ms=10_000)
        )
        await services.admission.update(
            "acme", "web", version(2, max_parallel=max_parallel, well_for_ms=10_000)
        )
        fewest = 3
        while city.job(job_id).HasField("rollout"):
            await asyncio.sleep(0.1)
            fewest = min(fewest, len(live(city.job(job_id))))
        done = await city.until(job_id, lambda job: live(job) == [2, 2, 2])
        assert (fewest, city.most_beside) == (3, max_parallel)
        rounds = -(-3 // max_parallel)
        assert 10 * rounds <= CLOCK.monotonic_s() - begun_s < 10 * rounds + 10, (
            "each round is watched for a while"
        )
        assert (done.version, done.spec.task_groups[0].command.argv[-1]) == (2, "v2")
        assert done.state == job_pb2.JOB_STATE_RUNNING
        kinds = [event.kind for event in await services.admission.events("acme", job_id)]
        assert kinds.count(job_event_pb2.JOB_EVENT_KIND_UPDATED) == 1
    await replayed_jobs_are_the_stored_ones(cluster)


async def test_a_new_task_that_fails_stops_the_update_and_the_old_file_takes_it_back() -> None:
    cluster = MemoryCluster()
    async with leading(cluster) as services, web(services, "a", "b") as city:
        job_id = await running(city, version(1))
        city.fate = lambda a: FAILED if a.task_index == 1 and a.job_version == 2 else RUNNING
        await services.admission.update("acme", job_id, version(2, well_for_ms=0))
        stopped = await city.until(job_id, lambda job: bool(job.rollout.stopped))
        assert "main.1 on" in stopped.rollout.stopped
        assert "exited with status 1" in stopped.rollout.stopped
        await asyncio.sleep(60)
        after = city.job(job_id)
        assert (live(after), after.state) == ([1, 1, 2], job_pb2.JOB_STATE_RUNNING)
        starts = sum(len(site.runs()) for site in city.sites.values())
        await services.admission.update("acme", job_id, version(1))
        back = await city.until(job_id, lambda job: not job.HasField("rollout"))
        assert (live(back), back.version) == ([1, 1, 1], 1)
        assert sum(len(site.runs()) for site in city.sites.values()) == starts + 1, "only what was replaced"
    await replayed_jobs_are_the_stored_ones(cluster)


async def test_a_new_task_that_is_unwell_after_it_has_taken_over_stops_the_update() -> None:
    async with leading(MemoryCluster()) as services, web(services, "a") as city:
        job_id = await running(city, version(1, count=2))
        await services.admission.update("acme", job_id, version(2, count=2, well_for_ms=30_000))
        half = await city.until(job_id, lambda job: live(job) == [1, 2])
        new = next(a for a in half.allocations if a.job_version == 2)
        city.sites["a"].status(new.id, RUNNING, health_fault="GET / answers 500")
        stopped = await city.until(job_id, lambda job: bool(job.rollout.stopped))
        assert "is not well: GET / answers 500" in stopped.rollout.stopped
        assert live(stopped) == [1, 2]


async def test_an_update_waits_for_room_and_says_so() -> None:
    async with leading(MemoryCluster()) as services, web(services, "a") as city:
        job_id = await running(city, version(1, count=1, cpu_milli=3000))
        await services.admission.update("acme", job_id, version(2, count=1, cpu_milli=3000, well_for_ms=0))
        waits = await city.until(job_id, lambda job: bool(job.rollout.waits_for))
        assert waits.rollout.waits_for.startswith("room for a new task beside the old one: ")
        assert live(waits) == [1]
        city.sites["b"] = type(city.sites["a"])(services, "b")
        await city.heal("b")
        done = await city.until(job_id, lambda job: not job.HasField("rollout"))
        assert [a.site_id for a in done.allocations if a.state == RUNNING] == ["b"]


async def test_an_update_keeps_to_the_tenants_quota() -> None:
    rules = ShareRules({"acme": TenantShare(quota=UNLIMITED._replace(cpu_milli=3000))})
    async with leading(MemoryCluster(), Config(shares=rules)) as services, web(services, "a") as city:
        job_id = await running(city, version(1, count=2))
        await services.admission.update("acme", job_id, version(2, count=2, cpu_milli=1500, well_for_ms=0))
        waits = await city.until(job_id, lambda job: bool(job.rollout.waits_for))
        assert waits.rollout.waits_for.startswith("quota of tenant acme: it holds 2 cores, may hold 3")
        assert live(waits) == [1, 1]


async def test_a_new_leader_goes_on_where_the_old_one_ended() -> None:
    cluster = MemoryCluster()
    async with leading(cluster) as services, web(services, "a") as city:
        job_id = await running(city, version(1, count=2))
        await services.admission.update("acme", job_id, version(2, count=2, well_for_ms=0))
        await city.until(job_id, lambda job: live(job) == [1, 2] or live(job) == [1, 1, 2])
        statuses = [
            (a.id, a.state) for a in city.job(job_id).allocations if is_live(a) and not a.stop_requested
        ]
    async with leading(cluster) as services, web(services, "a") as city:
        for allocation_id, state in statuses:
            city.sites["a"].status(allocation_id, state, start_time=CLOCK.now())
        done = await city.until(job_id, lambda job: not job.HasField("rollout"))
        assert (done.version, live(done)) == (2, [2, 2])


async def test_a_job_that_has_no_place_takes_the_new_spec_at_once() -> None:
    async with leading(MemoryCluster()) as services, web(services, "a") as city:
        job = await services.admission.create("acme", "r", version(1, count=1, cpu_milli=64_000))
        await asyncio.sleep(MOMENT_S)
        await services.admission.update("acme", job.id, version(2, count=1))
        done = await city.until(job.id, lambda job: job.state == job_pb2.JOB_STATE_RUNNING)
        assert live(done) == [2]


def _batch(spec: JobSpec) -> None:
    spec.kind = job_pb2.JOB_KIND_BATCH
    spec.ClearField("update")


def _more(spec: JobSpec) -> None:
    spec.task_groups[0].count = 4


def _other_group(spec: JobSpec) -> None:
    spec.task_groups[0].name = "other"


@pytest.mark.parametrize(
    ("change", "field"), [(_batch, "kind"), (_more, "task_groups[0].count"), (_other_group, "task_groups")]
)
async def test_what_cannot_be_done_task_by_task_is_refused(
    change: Callable[[JobSpec], None], field: str
) -> None:
    async with leading(MemoryCluster()) as services, web(services, "a") as city:
        job_id = await running(city, version(1))
        spec = version(2)
        change(spec)
        with pytest.raises(RequestRefusedError) as refused:
            await services.admission.update("acme", job_id, spec)
        assert [fault.field for fault in refused.value.faults] == [field]
        assert not city.job(job_id).HasField("rollout")
        assert await services.admission.update("acme", job_id, version(1)), "the same spec changes nothing"
        assert city.job(job_id).version == 1
