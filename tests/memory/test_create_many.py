"""Many jobs in one request: each for itself, all durable, in their tenant's turn."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

import pytest
from mumian.api.v1 import error_pb2
from mumian.api.v1.job_pb2 import Job
from mumian_orchestrator.adapters.memory.key_value import MemoryCluster
from mumian_orchestrator.domain.errors import RequestRefusedError
from mumian_orchestrator.services.admission import CHANGES_AT_ONCE, WAITING_OF_TENANT
from mumian_orchestrator.services.job_table import JOBS_PER_COMMIT
from mumian_orchestrator.services.submissions import PART_JOBS, SUBMISSIONS_MAX, Submission

from tests.memory.leader import leading, replayed_jobs_are_the_stored_ones
from tests.orchestrator.tenant import spec_of


def wanted(count: int, tag: str = "r") -> list[Submission]:
    return [Submission(f"{tag}{n}", spec_of(f"job{n % 3}", cpu_milli=n + 1)) for n in range(count)]


def reason_of(outcome: Job | RequestRefusedError) -> str:
    if isinstance(outcome, Job):
        return ""
    return error_pb2.ErrorReason.Name(outcome.reason).removeprefix("ERROR_REASON_")


async def test_all_are_durable_when_it_answers_and_the_same_request_gives_the_same_jobs() -> None:
    cluster = MemoryCluster()
    many = wanted(3 * JOBS_PER_COMMIT)
    async with leading(cluster) as services:
        first = await services.admission.create_many("acme", many)
        assert [job.spec.task_groups[0].resources.cpu_milli for job in first if isinstance(job, Job)] == [
            each.spec.task_groups[0].resources.cpu_milli for each in many
        ]
        stored = {key.removeprefix("/mumian/data/") for key in cluster.entries}
        assert {f"jobs/{job.id}" for job in first if isinstance(job, Job)} <= stored
        again = await services.admission.create_many("acme", many)
        assert _ids(again) == _ids(first)
        alone = await services.admission.create("acme", many[7].request_id, many[7].spec)
        assert alone.id == _ids(first)[7]
    async with leading(cluster) as services:
        assert _ids(await services.admission.create_many("acme", many)) == _ids(first)
        assert len(services.admission.list("acme", [])) == len(many)
    await replayed_jobs_are_the_stored_ones(cluster)


async def test_each_is_refused_for_itself_and_the_others_are_stored() -> None:
    async with leading(MemoryCluster()) as services:
        used = await services.admission.create("acme", "used", spec_of("used"))
        outcomes = await services.admission.create_many(
            "acme",
            [
                Submission("a", spec_of("good")),
                Submission("b", spec_of("Not A Name")),
                Submission("", spec_of("good")),
                Submission("used", spec_of("other")),
                Submission("used", spec_of("used")),
                Submission("a", spec_of("good")),
                Submission("a", spec_of("else")),
                Submission("c", spec_of("good")),
            ],
        )
        assert [reason_of(outcome) for outcome in outcomes] == [
            "",
            "INVALID_FIELD",
            "INVALID_FIELD",
            "REQUEST_ID_REUSED",
            "",
            "",
            "REQUEST_ID_REUSED",
            "",
        ]
        refused = outcomes[1]
        assert isinstance(refused, RequestRefusedError)
        assert [fault.field for fault in refused.faults] == ["name"]
        ids = _ids(outcomes)
        assert (ids[4], ids[5]) == (used.id, ids[0])
        assert len(services.admission.list("acme", [])) == 3


@pytest.mark.parametrize("count", [0, SUBMISSIONS_MAX + 1])
async def test_none_and_too_many_are_refused_whole(count: int) -> None:
    async with leading(MemoryCluster()) as services:
        with pytest.raises(RequestRefusedError, match="must be 1 to 1000 in one request"):
            await services.admission.create_many("acme", wanted(count))
        assert not services.admission.list("acme", [])


async def test_large_specs_never_make_a_commit_that_the_store_refuses() -> None:
    async with leading(MemoryCluster()) as services:
        large = [Submission(f"r{n}", spec_of(f"large{n}")) for n in range(6)]
        for each in large:
            each.spec.task_groups[0].command.argv.append("x" * 200_000)
        outcomes = await services.admission.create_many("acme", large)
        assert [reason_of(outcome) for outcome in outcomes] == [""] * 6


async def test_many_count_as_many_in_the_tenants_turn() -> None:
    """While one tenant's thousand wait, another's single jobs are let in between its parts."""
    async with leading(MemoryCluster()) as services:
        finished: list[str] = []

        async def one(number: int) -> None:
            await services.admission.create("quiet", f"q{number}", spec_of())
            finished.append(f"quiet {len(services.admission.list('flood', []))}")

        flood = asyncio.create_task(services.admission.create_many("flood", wanted(1000)))
        for _ in range(3):  # until its parts stand in line
            await asyncio.sleep(0)
        assert services.admission.changes.waiting > 900
        await asyncio.gather(*(one(number) for number in range(20)))
        before = int(finished[-1].split()[1])
        assert before < 500, "the flood's parts did not go first, though it was there first"
        assert len(await flood) == 1000


async def test_what_finds_no_room_to_wait_is_refused_and_taken_when_it_comes_again() -> None:
    async with leading(MemoryCluster()) as services:
        batches = [wanted(1000, f"b{number}-") for number in range(3)]
        told = await asyncio.gather(*(services.admission.create_many("acme", batch) for batch in batches))
        outcomes = [outcome for outcomes in told for outcome in outcomes]
        counts = Counter(map(reason_of, outcomes))
        assert counts.keys() == {"", "OVERLOADED"}
        assert WAITING_OF_TENANT // 2 < counts[""] <= WAITING_OF_TENANT + CHANGES_AT_ONCE * PART_JOBS
        refused = [outcome for outcome in outcomes if isinstance(outcome, RequestRefusedError)]
        assert all(outcome.retry_after_s for outcome in refused)
        again = await services.admission.create_many("acme", batches[2])
        assert not any(map(reason_of, again))


def _ids(outcomes: Sequence[Job | RequestRefusedError]) -> list[str]:
    return [outcome.id if isinstance(outcome, Job) else "" for outcome in outcomes]
