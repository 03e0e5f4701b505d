"""What becomes of tasks on sites that fall silent, contract by contract, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from mumian.api.v1 import fleet_pb2, job_event_pb2, job_pb2
from mumian.api.v1.job_event_pb2 import JobEvent
from mumian.api.v1.job_pb2 import JobSpec, OnDisconnect
from mumian_orchestrator.adapters.memory.key_value import MemoryCluster, MemoryKeyValue
from mumian_orchestrator.main.composition import Services
from mumian_orchestrator.main.config import Config
from mumian_orchestrator.services.store.reader import StoreReader

from tests.memory.city import ANSWERS, City
from tests.memory.leader import KEY_PREFIX, leading, replayed_jobs_are_the_stored_ones
from tests.memory.site import CLOCK, status_of
from tests.orchestrator.tenant import spec_of

STARTING, RUNNING = job_pb2.ALLOCATION_STATE_STARTING, job_pb2.ALLOCATION_STATE_RUNNING
SUCCEEDED, FAILED = job_pb2.ALLOCATION_STATE_SUCCEEDED, job_pb2.ALLOCATION_STATE_FAILED
CANCELLED = job_pb2.ALLOCATION_STATE_CANCELLED
UNKNOWN, LOST = job_pb2.ALLOCATION_STATE_UNKNOWN, job_pb2.ALLOCATION_STATE_LOST
UNREACHABLE_S = Config().unreachable_after_ms / 1000
MOMENT_S = 1.0


def spec(contract: Mapping[str, Any] | None = None, **job: Any) -> JobSpec:
    """A job of one task."""
    return spec_of("work", on_disconnect=OnDisconnect(**(contract or {})), **job)


async def events_of(cluster: MemoryCluster, allocation_id: str) -> list[JobEvent]:
    reader = StoreReader(MemoryKeyValue(cluster), KEY_PREFIX)
    values = await reader.read_log(f"log/{allocation_id.split('.')[0]}/")
    return [JobEvent.FromString(value) for value in values]


async def test_a_task_on_a_silent_site_is_unknown_then_lost_then_replaced_elsewhere() -> None:
    cluster = MemoryCluster()
    async with leading(cluster) as services:
        city = City(services, "a", "b")
        await city.connect()
        lost = await city.running(spec({"lost_after_s": 60}))
        cut_s = CLOCK.monotonic_s()
        city.cut("a")
        await asyncio.sleep(UNREACHABLE_S - 1)
        assert city.states(lost) == {"a": RUNNING}
        while city.states(lost) == {"a": RUNNING}:  # noqa: ASYNC110 -- virtual time
            await asyncio.sleep(0.1)
        assert CLOCK.monotonic_s() - cut_s <= 15
        assert city.states(lost) == {"a": UNKNOWN}
        assert city.job(lost).state == job_pb2.JOB_STATE_RUNNING
        assert city.job(lost).state_message == "1 task on silent site a"
        assert "then replaced elsewhere" in await city.explained(lost)
        await asyncio.sleep(60 - UNREACHABLE_S - 3)
        assert city.states(lost) == {"a": UNKNOWN}
        await asyncio.sleep(5)
        assert city.states(lost) == {"a": LOST, "b": job_pb2.ALLOCATION_STATE_PENDING}
        assert city.sites["b"].runs() == [f"{lost}.1"]
        assert "lost with site a, and replaced" in await city.explained(lost)
    kinds = [event.kind for event in await events_of(cluster, lost)]
    assert kinds[-2:] == [job_event_pb2.JOB_EVENT_KIND_LOST, job_event_pb2.JOB_EVENT_KIND_PLACED]
    await replayed_jobs_are_the_stored_ones(cluster)


async def test_a_site_that_is_back_in_time_goes_on_as_if_nothing_had_been() -> None:
    cluster = MemoryCluster()
    async with leading(cluster) as services:
        city = City(services, "a", "b")
        await city.connect()
        task = await city.running(spec({"lost_after_s": 60}))
        events = await events_of(cluster, task)
        city.cut("a")
        await asyncio.sleep(40)
        assert city.states(task) == {"a": UNKNOWN}
        start_time = city.job(task).allocations[0].start_time
        told = status_of(task, RUNNING, start_time=start_time, endpoints=[ANSWERS])
        await city.heal("a", told)
        await asyncio.sleep(MOMENT_S)
        assert city.states(task) == {"a": RUNNING}
        assert city.job(task).state_message == ""
        await asyncio.sleep(120)
        assert (city.sites["a"].runs(), city.sites["a"].stops()) == ([task], [])
        assert city.sites["a"].welcomed() == [task]
        assert await events_of(cluster, task) == events, "a short silence costs no write"


async def test_many_results_of_one_job_share_their_commits() -> None:
    """Each commit takes time for the whole job: one by one, a thousand would outlast the leader's lease."""
    cluster = MemoryCluster()
    async with leading(cluster) as services:
        city = City(services, "a")
        await city.connect()
        job = await services.admission.create("acme", "r", spec_of(count=100, cpu_milli=1))
        await asyncio.sleep(MOMENT_S)
        city.cut("a")
        await asyncio.sleep(20)
        before = int(city.job(job.id).etag)
        await city.heal("a", *[status_of(each, SUCCEEDED) for each in city.sites["a"].runs()])
        await asyncio.sleep(MOMENT_S)
        assert city.job(job.id).state == job_pb2.JOB_STATE_SUCCEEDED
        assert int(city.job(job.id).etag) - before <= 3
    await replayed_jobs_are_the_stored_ones(cluster)


async def test_a_silence_that_the_stream_survives_is_ended_by_a_new_hello() -> None:
    async with leading(MemoryCluster()) as services:
        city = City(services, "a")
        await city.connect()
        task = await city.running(spec())
        city._beating.pop("a").cancel()
        await asyncio.sleep(20)
        assert city.states(task) == {"a": UNKNOWN}
        city.sites["a"].report(heartbeat={})
        assert city.sites["a"].closed
        await city.heal("a", status_of(task, RUNNING))
        await asyncio.sleep(MOMENT_S)
        assert city.states(task) == {"a": RUNNING}


@pytest.mark.parametrize(
    ("reconcile", "kept"),
    [
        (job_pb2.RECONCILE_KEEP_ORIGINAL, "a"),
        (job_pb2.RECONCILE_KEEP_REPLACEMENT, "b"),
        (job_pb2.RECONCILE_LONGEST_RUNNING, "a"),
        (job_pb2.RECONCILE_BEST_SCORE, "a"),  # it is the cheaper site
    ],
)
async def test_one_of_two_copies_goes_on_and_the_other_is_stopped(reconcile: int, kept: str) -> None:
    cluster = MemoryCluster()
    async with leading(cluster) as services:
        city = City(services, "a", "b")
        await city.connect()
        contract = {"lost_after_s": 20, "reconcile": reconcile}
        original = await city.running(spec(contract, kind=job_pb2.JOB_KIND_SERVICE))
        start_time = city.job(original).allocations[0].start_time
        city.cut("a")
        await asyncio.sleep(30)
        replacement = f"{original}.1"
        city.sites["b"].status(replacement, RUNNING, start_time=CLOCK.now())
        await asyncio.sleep(MOMENT_S)
        await city.heal("a", status_of(original, RUNNING, start_time=start_time))
        await asyncio.sleep(MOMENT_S)
        loser, loser_id = ("b", replacement) if kept == "a" else ("a", original)
        assert city.sites[loser].stops() == [loser_id]
        assert city.sites["a"].welcomed() == ([original] if kept == "a" else [])
        assert city.sites[kept].stops() == []
        city.sites[loser].status(loser_id, CANCELLED)
        await asyncio.sleep(MOMENT_S)
        assert city.states(original) == {kept: RUNNING, loser: CANCELLED}
        assert city.job(original).state == job_pb2.JOB_STATE_RUNNING
        await asyncio.sleep(120)
        assert len(city.job(original).allocations) == 2, "no third copy"
    [settled] = [
        e for e in await events_of(cluster, original) if e.kind == job_event_pb2.JOB_EVENT_KIND_RECONCILED
    ]
    assert "site a is back" in settled.reason
    await replayed_jobs_are_the_stored_ones(cluster)


@pytest.mark.parametrize(
    ("reconcile", "told", "replacement", "kept"),
    [
        (job_pb2.RECONCILE_KEEP_REPLACEMENT, SUCCEEDED, RUNNING, "b"),
        (job_pb2.RECONCILE_KEEP_ORIGINAL, SUCCEEDED, RUNNING, "a"),
        (job_pb2.RECONCILE_KEEP_ORIGINAL, SUCCEEDED, SUCCEEDED, "b"),
        (job_pb2.RECONCILE_KEEP_ORIGINAL, RUNNING, SUCCEEDED, "b"),
        (job_pb2.RECONCILE_KEEP_ORIGINAL, FAILED, RUNNING, "b"),
    ],
)
async def test_what_has_ended_meanwhile_counts_once(
    reconcile: int,
    told: job_pb2.AllocationState.ValueType,
    replacement: job_pb2.AllocationState.ValueType,
    kept: str,
) -> None:
    cluster = MemoryCluster()
    async with leading(cluster) as services:
        city = City(services, "a", "b")
        await city.connect()
        original = await city.running(spec({"lost_after_s": 20, "reconcile": reconcile}))
        city.cut("a")
        await asyncio.sleep(30)
        city.sites["b"].status(f"{original}.1", replacement)
        await asyncio.sleep(MOMENT_S)
        await city.heal("a", status_of(original, told))
        await asyncio.sleep(MOMENT_S)
        for site in city.sites.values():
            for stopped in site.stops():
                site.status(stopped, CANCELLED)
        await asyncio.sleep(MOMENT_S)
        if kept == "b" and replacement == RUNNING:
            assert city.job(original).state == job_pb2.JOB_STATE_RUNNING
            city.sites["b"].status(f"{original}.1", SUCCEEDED)
            await asyncio.sleep(MOMENT_S)
        assert city.job(original).state == job_pb2.JOB_STATE_SUCCEEDED
        counted = [a.site_id for a in city.job(original).allocations if not a.superseded and a.state != LOST]
        assert counted == [kept] or (replacement == SUCCEEDED and counted == ["b"])
    await replayed_jobs_are_the_stored_ones(cluster)


async def test_a_task_that_is_not_to_be_replaced_waits_for_its_site() -> None:
    async with leading(MemoryCluster()) as services:
        city = City(services, "a", "b")
        await city.connect()
        task = await city.running(spec({"lost_after_s": 20, "replace": False}))
        city.cut("a")
        await asyncio.sleep(600)
        assert city.states(task) == {"a": LOST}
        assert "replace is false" in await city.explained(task)
        await city.heal("a", status_of(task, RUNNING))
        await asyncio.sleep(MOMENT_S)
        assert city.states(task) == {"a": RUNNING}
        assert city.sites["a"].welcomed() == [task]


async def test_a_cancelled_job_does_not_wait_for_a_lost_site_and_its_task_is_stopped_later() -> None:
    async with leading(MemoryCluster()) as services:
        city = City(services, "a", "b")
        await city.connect()
        task = await city.running(spec({"lost_after_s": 20, "replace": False}, at_most_once=True))
        city.cut("a")
        await asyncio.sleep(600)
        assert city.states(task) == {"a": UNKNOWN}
        await services.admission.cancel("acme", task.split(".")[0])
        await asyncio.sleep(10)
        assert city.job(task).state == job_pb2.JOB_STATE_CANCELLED
        await city.heal("a", status_of(task, RUNNING))
        assert city.sites["a"].welcomed() == []
        city.sites["a"].status(task, CANCELLED)
        await asyncio.sleep(MOMENT_S)
        assert city.states(task) == {"a": CANCELLED}


async def test_a_cancel_ends_what_its_site_never_heard_of() -> None:
    async with leading(MemoryCluster()) as services:
        city = City(services, "a")
        await city.connect()
        city.cut("a")
        job = await services.admission.create("acme", "r", spec())
        await asyncio.sleep(MOMENT_S)
        await services.admission.cancel("acme", job.id)
        await city.heal("a")
        await asyncio.sleep(MOMENT_S)
        [stopped] = city.sites["a"].stops()
        assert (city.sites["a"].welcomed(), city.sites["a"].runs()) == ([], [])
        city.sites["a"].status(stopped, CANCELLED)
        await asyncio.sleep(MOMENT_S)
        assert city.job(job.id).state == job_pb2.JOB_STATE_CANCELLED


async def test_an_at_most_once_task_is_replaced_only_when_it_has_surely_stopped() -> None:
    async with leading(MemoryCluster()) as services:
        city = City(services, "a", "b")
        await city.connect()
        endless = await city.running(spec({"lost_after_s": 20}, at_most_once=True), "endless")
        stopping = await city.running(
            spec({"lost_after_s": 20, "stop_after_s": 100}, at_most_once=True), "stopping"
        )
        city.cut("a")
        await asyncio.sleep(100)
        assert city.states(endless) == city.states(stopping) == {"a": UNKNOWN}
        assert "not replaced before its site is back" in await city.explained(endless)
        await asyncio.sleep(20)
        assert city.states(stopping)["a"] == LOST
        assert city.sites["b"].runs() == [f"{stopping}.1"]
        await asyncio.sleep(600)
        assert city.states(endless) == {"a": UNKNOWN}


async def test_a_task_that_its_site_has_stopped_is_placed_anew() -> None:
    async with leading(MemoryCluster()) as services:
        city = City(services, "a", "b")
        await city.connect()
        contract = {"lost_after_s": 1000, "stop_after_s": 20, "replace": False}
        task = await city.running(spec(contract, at_most_once=True))
        city.cut("a")
        await asyncio.sleep(60)
        await city.heal("a", status_of(task, CANCELLED, cut_off=True))
        await asyncio.sleep(MOMENT_S)
        first, second = city.job(task).allocations
        assert (first.state, first.superseded, second.id) == (CANCELLED, True, f"{task}.1")
        assert city.sites["a"].runs() == [task, second.id]


async def test_a_site_that_has_forgotten_an_at_most_once_task_does_not_start_it_again() -> None:
    async with leading(MemoryCluster()) as services:
        city = City(services, "a")
        await city.connect()
        once = await city.running(spec(at_most_once=True), "once")
        more = await city.running(spec(), "more")
        city.cut("a")
        await city.heal("a")
        await asyncio.sleep(MOMENT_S)
        assert city.sites["a"].welcomed() == [more]
        assert city.job(once).state == job_pb2.JOB_STATE_FAILED
        assert "came back without it" in city.job(once).state_message


async def test_a_lost_task_whose_site_comes_back_without_it_is_not_started_there_again() -> None:
    async with leading(MemoryCluster()) as services:
        city = City(services, "a", "b")
        await city.connect()
        task = await city.running(spec({"lost_after_s": 20}))
        city.cut("a")
        await asyncio.sleep(30)
        await city.heal("a")
        await asyncio.sleep(MOMENT_S)
        assert city.sites["a"].welcomed() == []
        assert city.states(task) == {"a": CANCELLED, "b": job_pb2.ALLOCATION_STATE_PENDING}


async def test_the_next_leader_gives_up_what_does_not_come_back_to_it() -> None:
    cluster = MemoryCluster()
    async with leading(cluster) as services:
        city = City(services, "a", "b")
        await city.connect()
        task = await city.running(spec({"lost_after_s": 60}))
    async with leading(cluster) as services:
        city = City(services, "a", "b")
        await city.heal("b")
        assert city.states(task) == {"a": RUNNING}
        await asyncio.sleep(UNREACHABLE_S + 1)
        assert city.states(task) == {"a": UNKNOWN}
        await asyncio.sleep(60)
        assert city.states(task) == {"a": LOST, "b": job_pb2.ALLOCATION_STATE_PENDING}


class TestBrake:
    """Many sites that vanish at once are most likely the coordinator's own network."""

    async def braked(self, services: Services) -> tuple[City, list[str]]:
        city = City(services, "a", "b", "c", "d")
        await city.connect()
        tasks = [await city.running(spec({"lost_after_s": 20}), request_id) for request_id in ("1", "2")]
        city.cut("a")
        await asyncio.sleep(5)
        city.cut("b", "c")
        await asyncio.sleep(60)
        return city, tasks

    async def test_it_holds_replacements_back_and_says_so(self) -> None:
        async with leading(MemoryCluster()) as services:
            city, tasks = await self.braked(services)
            assert [city.states(task) for task in tasks] == [{"a": UNKNOWN}, {"a": UNKNOWN}]
            assert "3 of 4 sites vanished" in await city.explained(tasks[0])
            assert services.disconnections.brake().engaged

    async def test_an_operator_releases_it(self) -> None:
        async with leading(MemoryCluster()) as services:
            city, tasks = await self.braked(services)
            assert not services.disconnections.release_brake().engaged
            await asyncio.sleep(2)
            assert city.sites["d"].runs() == [f"{task}.1" for task in tasks]

    async def test_time_releases_it(self) -> None:
        async with leading(MemoryCluster()) as services:
            city, tasks = await self.braked(services)
            await asyncio.sleep(Config().brake_release_after_ms / 1000)
            assert city.sites["d"].runs() == [f"{task}.1" for task in tasks]

    async def test_sites_that_come_back_release_it(self) -> None:
        async with leading(MemoryCluster()) as services:
            city, tasks = await self.braked(services)
            await city.heal("b")
            assert not services.disconnections.brake().engaged
            await asyncio.sleep(2)
            assert city.sites["b"].runs() == [f"{task}.1" for task in tasks]

    async def test_a_task_that_was_lost_before_waits_as_well(self) -> None:
        async with leading(MemoryCluster()) as services:
            city = City(services, "a", "b", "c", "d")
            await city.connect()
            task = await city.running(spec({"lost_after_s": 20}))
            # Nothing is free elsewhere when it is lost.
            fillers = [await services.admission.create("acme", n, spec_of(cpu_milli=4000)) for n in "bcd"]
            await asyncio.sleep(MOMENT_S)
            city.cut("a")
            await asyncio.sleep(30)
            assert city.states(task) == {"a": LOST}
            city.cut("b", "c")
            await asyncio.sleep(UNREACHABLE_S + 1)
            [filler] = [f"{job.id}.main.0" for job in fillers if "d" in city.states(job.id)]
            city.sites["d"].status(filler, SUCCEEDED)
            await asyncio.sleep(MOMENT_S)
            assert city.states(task) == {"a": LOST}
            services.disconnections.release_brake()
            await asyncio.sleep(MOMENT_S)
            assert city.states(task) == {"a": LOST, "d": job_pb2.ALLOCATION_STATE_PENDING}

    async def test_one_site_of_one_is_no_mass(self) -> None:
        async with leading(MemoryCluster()) as services:
            city = City(services, "a")
            await city.connect()
            task = await city.running(spec({"lost_after_s": 20}))
            city.cut("a")
            await asyncio.sleep(40)
            assert city.states(task) == {"a": LOST}
            assert services.fleet.sites()[0].health == fleet_pb2.HEALTH_UNREACHABLE
