"""Submits of one program that are under way together."""

from __future__ import annotations

import asyncio
from collections import deque

import mumian
from mumian import AsyncClient, MumianError
from mumian.api.v1.job_pb2 import Job, JobSpec
from mumian_orchestrator.main.free_ports import free_port

from tests.sdk.scripted_coordinator import ScriptedCoordinator
from tests.sdk.test_submit_many import INVALID, OVERLOADED


def spec_of(name: str) -> JobSpec:
    return mumian.job(name, mumian.task_group(command=["true"]))


async def submitted(client: AsyncClient, *names: str) -> list[Job | BaseException]:
    return await asyncio.gather(*(client.submit(spec_of(n), n) for n in names), return_exceptions=True)


async def test_the_first_go_alone_and_those_behind_them_share_a_request(
    coordinator: ScriptedCoordinator,
) -> None:
    names = [f"j{number}" for number in range(40)]
    async with AsyncClient() as client:
        jobs = await submitted(client, *names)
        assert [job.spec.name for job in jobs if isinstance(job, Job)] == names
        assert len(coordinator.requests("CreateJob")) == 2
        shared = coordinator.requests("CreateJobs")
        assert sum(len(request.submissions) for request in shared) == 38
        assert len(shared) == 1
        await client.submit(spec_of("later"))
    assert len(coordinator.requests("CreateJob")) == 3, "alone again when nothing else is under way"


async def test_each_of_a_shared_request_has_its_own_answer_as_soon_as_it_is_there(
    coordinator: ScriptedCoordinator,
) -> None:
    coordinator.refused_jobs["wrong"] = deque([INVALID])
    coordinator.refused_jobs["later"] = deque([OVERLOADED])  # comes again after two seconds
    async with AsyncClient() as client:
        names = ("first", "second", "wrong", "good", "later")
        tasks = [asyncio.create_task(client.submit(spec_of(name))) for name in names]
        _, _, wrong, good, later = tasks
        await asyncio.wait({wrong, good})
        assert not later.done()
        error = wrong.exception()
        assert isinstance(error, MumianError)
        assert error.reason == "INVALID_FIELD"
        assert good.result().spec.name == "good"
        assert (await later).spec.name == "later"
    assert [len(request.submissions) for request in coordinator.requests("CreateJobs")] == [3, 1]


async def test_what_is_changed_after_it_was_submitted_is_sent_as_it_was(
    coordinator: ScriptedCoordinator,
) -> None:
    async with AsyncClient() as client:
        spec = spec_of("a")
        tasks = []
        for number in range(6):
            spec.name = f"n{number}"
            tasks.append(asyncio.create_task(client.submit(spec)))
            await asyncio.sleep(0)
        assert [job.spec.name for job in await asyncio.gather(*tasks)] == [f"n{n}" for n in range(6)]


async def test_who_goes_away_while_it_waits_is_not_sent_and_harms_nobody(
    coordinator: ScriptedCoordinator,
) -> None:
    async with AsyncClient() as client:
        tasks = [asyncio.create_task(client.submit(spec_of(f"j{n}"), f"j{n}")) for n in range(6)]
        await asyncio.sleep(0)
        tasks[4].cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(answer, Job) for answer in answers] == [True, True, True, True, False, True]
    assert "j4" not in coordinator.job_by_request


async def test_where_nobody_answers_all_are_told_when_the_first_is() -> None:
    async with AsyncClient(f"127.0.0.1:{free_port()}", connect_timeout_s=0.5) as client:
        answers = await submitted(client, *(f"j{number}" for number in range(200)))
        # Nothing waits any more, though not one in a hundred was tried.
        assert {answer.reason for answer in answers if isinstance(answer, MumianError)} == {
            "CLIENT_UNREACHABLE"
        }
        assert len(answers) == 200
