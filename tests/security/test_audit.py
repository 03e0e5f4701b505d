"""The audit log: nothing in it can be changed unseen, and nothing that somebody writes can forge an entry."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from pathlib import Path

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mumian.api.v1 import access_service_pb2 as access
from mumian.api.v1 import fleet_service_pb2, job_service_pb2
from mumian.api.v1.access_service_pb2_grpc import AccessServiceStub
from mumian.api.v1.fleet_service_pb2_grpc import FleetServiceStub
from mumian.api.v1.job_service_pb2_grpc import JobServiceStub
from mumian_orchestrator.adapters.memory.key_value import MemoryCluster
from mumian_orchestrator.domain.audit import AuditBrokenError, Head, entry_after, verify
from mumian_orchestrator.domain.identity import Role
from mumian_orchestrator.domain.periods import month_of
from mumian_orchestrator.main.log_lines import log_to_stderr

from tests.orchestrator.tenant import spec_of
from tests.security.secured import bearer, secured

VALUES = st.dictionaries(st.text(max_size=8), st.text(max_size=30), max_size=3)


def chain(facts: list[dict[str, str]]) -> tuple[list[bytes], Head]:
    lines, head = [], Head()
    for each in facts:
        line, head = entry_after(head, {"about": each})
        lines.append(line)
    return lines, head


@given(st.lists(VALUES, min_size=1, max_size=8))
def test_what_was_written_verifies_and_is_lines_of_printable_ascii(facts: list[dict[str, str]]) -> None:
    lines, head = chain(facts)
    assert verify(lines, head) == head
    assert all(line.isascii() and line.decode().isprintable() for line in lines)
    assert [json.loads(line)["about"] for line in lines] == facts


@given(st.lists(VALUES, min_size=2, max_size=8), st.data())
def test_an_edit_a_removal_and_a_reorder_are_found(facts: list[dict[str, str]], data: st.DataObject) -> None:
    lines, head = chain(facts)
    where = data.draw(st.integers(0, len(lines) - 1))
    match data.draw(st.sampled_from(["edit", "remove", "swap", "repeat"])):
        case "edit":
            position = data.draw(st.integers(0, len(lines[where]) - 1))
            other = data.draw(st.integers(0, 255).filter(lambda byte: byte != lines[where][position]))
            lines[where] = lines[where][:position] + bytes([other]) + lines[where][position + 1 :]
        case "remove":
            del lines[where]
        case "swap":
            other = data.draw(st.integers(0, len(lines) - 1).filter(lambda index: index != where))
            lines[where], lines[other] = lines[other], lines[where]
        case _:
            lines.insert(where, lines[where])
    with pytest.raises(AuditBrokenError):
        verify(lines, head)


def test_a_log_that_was_written_anew_from_an_edited_entry_on_does_not_have_the_head_that_was_noted() -> None:
    _, head = chain([{"a": "1"}, {"a": "2"}])
    forged, _ = chain([{"a": "1"}, {"a": "3"}])
    verify(forged)
    with pytest.raises(AuditBrokenError, match="entry 2 has the hash"):
        verify(forged, head)


async def test_every_change_is_in_the_log_with_who_made_it_and_what_it_stored_and_reads_are_not(
    tmp_path: Path,
) -> None:
    cluster = MemoryCluster()
    async with secured(tmp_path, cluster) as platform, platform.people_channel() as channel:
        admin = bearer(await platform.token(Role.PLATFORM_ADMIN))
        user = bearer(await platform.token(Role.TENANT_USER, "acme"))
        jobs = JobServiceStub(channel)
        request = job_service_pb2.CreateJobRequest(request_id="once", spec=spec_of())
        job = (await jobs.CreateJob(request, metadata=user)).job
        await jobs.GetJob(job_service_pb2.GetJobRequest(job_id=job.id), metadata=user)
        await jobs.CancelJob(job_service_pb2.CancelJobRequest(job_id=job.id), metadata=user)
        release = fleet_service_pb2.ReleaseDisconnectBrakeRequest()
        await FleetServiceStub(channel).ReleaseDisconnectBrake(release, metadata=admin)
        with pytest.raises(grpc.aio.AioRpcError):
            await FleetServiceStub(channel).ReleaseDisconnectBrake(release, metadata=user)
        answers = [
            answer
            async for answer in AccessServiceStub(channel).ReadAuditLog(
                access.ReadAuditLogRequest(), metadata=admin
            )
        ]
    lines = [line for answer in answers for line in answer.entries]
    verify(lines, Head(answers[-1].head_number, answers[-1].head_sha256))
    entries = [json.loads(line) for line in lines]
    assert [(entry["action"], entry["outcome"]) for entry in entries] == [
        ("JobService/CreateJob", "done"),
        ("JobService/CancelJob", "done"),
        ("FleetService/ReleaseDisconnectBrake", "done"),
        ("FleetService/ReleaseDisconnectBrake", "refused"),
    ]
    assert entries[0]["who"].startswith("token ") and entries[0]["who"].endswith("(test)")
    assert f"jobs/{job.id}" in entries[0]["stored"]
    assert entries[1]["about"] == {"job_id": job.id}
    # In the very transaction of the change: the entry and the job have one revision.
    stored = {e.key.removeprefix("/mumian/"): e.mod_revision for e in cluster.entries.values()}
    month = month_of(time.time_ns() // 10**6)
    assert stored[f"log/audit/{month}/{2:015d}"] == stored[f"data/jobs/{job.id}"]


async def test_of_many_jobs_that_one_call_creates_the_log_names_each_with_the_commit_that_stored_it(
    tmp_path: Path,
) -> None:
    cluster = MemoryCluster()
    async with secured(tmp_path, cluster) as platform, platform.people_channel() as channel:
        user = bearer(await platform.token(Role.TENANT_USER, "acme"))
        submissions = [
            job_service_pb2.CreateJobRequest(request_id=f"r{number}", spec=spec_of()) for number in range(100)
        ]
        request = job_service_pb2.CreateJobsRequest(submissions=submissions)
        answer = await JobServiceStub(channel).CreateJobs(request, metadata=user)
        lines, head = await platform.log()
    verify(lines, head)
    entries = [json.loads(line) for line in lines]
    assert {entry["action"] for entry in entries} == {"JobService/CreateJobs"}
    stored = {e.key.removeprefix("/mumian/data/"): e.mod_revision for e in cluster.entries.values()}
    for number, entry in enumerate(entries, start=1):
        revisions = {stored[key] for key in entry["stored"]}
        assert len(revisions) == 1
        in_log = {
            entry.mod_revision
            for entry in cluster.entries.values()
            if "/log/audit/" in entry.key and entry.key.endswith(f"/{number:015d}")
        }
        assert in_log == revisions
    named = [key for entry in entries for key in entry["stored"] if key.startswith("jobs/")]
    assert sorted(named) == sorted(f"jobs/{result.job.id}" for result in answer.results)


async def test_the_next_leader_goes_on_where_the_log_ends(tmp_path: Path) -> None:
    cluster = MemoryCluster()
    for _ in range(2):
        async with secured(tmp_path, cluster) as platform:
            await platform.joined()
            last = await platform.log()
    assert verify(*last).number == 2


async def test_a_long_log_is_read_whole_in_parts(tmp_path: Path) -> None:
    async with secured(tmp_path) as platform:
        audit = platform.services.access.audit
        for number in range(2001):
            listed = audit.note("somebody", "here", "test", "done", {"number": str(number)})
        await listed
        head = await audit.stored_head()
        parts = [len(lines) async for lines in audit.stored_entries(head)]
        assert sum(parts) == 2001 and max(parts) <= 100
        assert verify((await platform.log())[0], head).number == 2001
        earlier = Head(1500, head.sha256)
        assert sum([len(lines) async for lines in audit.stored_entries(earlier)]) == 1500


async def test_who_is_refused_over_and_over_does_not_fill_the_log(tmp_path: Path) -> None:
    async with secured(tmp_path) as platform, platform.people_channel() as channel:
        stub = FleetServiceStub(channel)

        async def knock() -> None:
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.ListZones(fleet_service_pb2.ListZonesRequest(), metadata=bearer("wrong"))

        begun_s = time.monotonic()
        await asyncio.gather(*(knock() for _ in range(200)))
        await asyncio.sleep(1.2)
        await knock()
        # So many at once, then one a second, however slow the machine is.
        listed_max = 60 + (time.monotonic() - begun_s) + 1
        lines, head = await platform.log()
        verify(lines, head)
        assert 60 < head.number <= listed_max
        unlisted = sum(int(json.loads(line)["about"].get("refusals_not_listed", 0)) for line in lines)
        assert head.number + unlisted == 201


async def test_a_title_or_an_id_with_line_breaks_forges_no_entry(tmp_path: Path) -> None:
    forged = 'x\n{"number":2,"who":"root"}\x1b[2J'
    async with secured(tmp_path) as platform, platform.people_channel() as channel:
        admin = bearer(await platform.token(Role.PLATFORM_ADMIN))
        stub = AccessServiceStub(channel)
        wanted = access.CreateApiTokenRequest(title=forged, role=Role.AUDITOR.wire)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.CreateApiToken(wanted, metadata=admin)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        user = bearer(await platform.token(Role.TENANT_USER, "acme"))
        request = job_service_pb2.CreateJobRequest(request_id=forged, spec=spec_of())
        await JobServiceStub(channel).CreateJob(request, metadata=user)
        lines, head = await platform.log()
        assert json.loads(lines[0])["about"]["request_id"] == forged
        assert len(b"\n".join(lines).splitlines()) == head.number == 1


def test_what_somebody_else_chose_stays_within_its_line_of_the_log(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    log_to_stderr()
    logging.getLogger("test").warning("site %s left", "gz\n2026-01-01 INFO root logged in\x1b[2J\u2028")
    [line] = capsys.readouterr().err.splitlines()
    assert line.endswith(r"site gz\n2026-01-01 INFO root logged in\x1b[2J\u2028 left")
