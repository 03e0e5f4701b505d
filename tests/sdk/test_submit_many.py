"""Many jobs in one call, against a coordinator that refuses some."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

import grpc
import mumian
import pytest
from mumian import AsyncClient, Client, MumianError
from mumian.api.v1 import error_pb2
from mumian.api.v1.error_pb2 import FieldViolation, Refusal
from mumian.api.v1.job_pb2 import Job, JobSpec

from tests.sdk.scripted_coordinator import ScriptedCoordinator, refusal

INVALID = Refusal(
    reason=error_pb2.ERROR_REASON_INVALID_FIELD,
    message="priority (101) must be 0 to 100",
    field_violations=[FieldViolation(field="priority", description="(101) must be 0 to 100")],
)
OVERLOADED = Refusal(
    reason=error_pb2.ERROR_REASON_OVERLOADED, message="too many changes wait", retry_after_ms=2000
)


def specs(*named: str) -> list[JobSpec]:
    return [mumian.job(name, mumian.task_group(command=["true"])) for name in named]


def test_each_has_its_job_or_its_own_refusal_in_the_order_of_the_specs(
    coordinator: ScriptedCoordinator,
) -> None:
    coordinator.refused_jobs["b"] = deque([INVALID])
    with Client() as client:
        a, b, c = client.submit_many(specs("a", "b", "c"))
    assert isinstance(a, Job)
    assert isinstance(c, Job)
    assert (a.spec.name, c.spec.name) == ("a", "c")
    assert isinstance(b, MumianError)
    assert b.reason == "INVALID_FIELD"
    assert [violation.field for violation in b.field_violations] == ["priority"]


def test_only_what_there_was_no_room_for_is_sent_again_when_it_was_told(
    coordinator: ScriptedCoordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("mumian.client.time.sleep", pauses.append)
    coordinator.refused_jobs["b"] = deque([OVERLOADED, OVERLOADED])
    with Client() as client:
        outcomes = client.submit_many(specs("a", "b"))
    assert [outcome.spec.name for outcome in outcomes if isinstance(outcome, Job)] == ["a", "b"]
    sent = coordinator.requests("CreateJobs")
    assert [[each.spec.name for each in request.submissions] for request in sent] == [
        ["a", "b"],
        ["b"],
        ["b"],
    ]
    assert sent[0].submissions[1].request_id == sent[2].submissions[0].request_id
    assert [2 <= pause <= 3 for pause in pauses] == [True, True, False]


def test_who_is_never_let_in_is_told_why_when_the_time_is_up(coordinator: ScriptedCoordinator) -> None:
    coordinator.refused_jobs["b"] = deque([OVERLOADED] * 9)
    with Client(timeout_s=1) as client:
        a, b = client.submit_many(specs("a", "b"))
    assert isinstance(a, Job)
    assert isinstance(b, MumianError)
    assert (b.reason, b.retry_after_s) == ("OVERLOADED", 2)


def test_many_are_split_into_requests_that_the_coordinator_takes(coordinator: ScriptedCoordinator) -> None:
    large = mumian.job("large", mumian.task_group(command=["true", "x" * 3 * 1024**2]))
    too_large = mumian.job("huge", mumian.task_group(command=["true", "x" * 5 * 1024**2]))
    with Client() as client:
        outcomes = client.submit_many([*specs("a") * 1001, large, too_large, large])
    counts = [len(request.submissions) for request in coordinator.requests("CreateJobs")]
    assert counts == [1000, 2, 1]
    assert sum(isinstance(outcome, Job) for outcome in outcomes) == 1003
    refused = outcomes[1002]
    assert isinstance(refused, MumianError)
    assert refused.reason == "MESSAGE_TOO_LARGE"


def test_an_unanswered_call_is_sent_again_with_the_same_ids(coordinator: ScriptedCoordinator) -> None:
    coordinator.refuse("CreateJobs", refusal(grpc.StatusCode.UNAVAILABLE, "NOT_LEADER", "not the leader"))
    with Client() as client:
        first = client.submit_many(specs("a", "b"), ["one", "two"])
        assert client.submit_many(specs("a", "b"), ["one", "two"]) == first
    assert {
        tuple(each.request_id for each in request.submissions)
        for request in coordinator.requests("CreateJobs")
    } == {("one", "two")}


async def test_the_async_client_does_the_same(coordinator: ScriptedCoordinator) -> None:
    coordinator.refused_jobs["b"] = deque([INVALID])
    async with AsyncClient() as client:
        outcomes = await client.submit_many(specs("a", "b"))
        with pytest.raises(MumianError, match="one for each of 2 specs"):
            await client.submit_many(specs("a", "b"), ["one"])
    assert [type(outcome) for outcome in outcomes] == [Job, MumianError]


def test_a_call_that_fails_is_the_outcome_of_all_that_it_was_to_store(
    coordinator: ScriptedCoordinator,
) -> None:
    denied = refusal(grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED", "CreateJobs needs jobs.write")
    coordinator.refuse("CreateJobs", denied)
    with Client() as client:
        outcomes = client.submit_many(specs("a", "b"))
    assert [outcome.reason for outcome in outcomes if isinstance(outcome, MumianError)] == [
        "PERMISSION_DENIED",
        "PERMISSION_DENIED",
    ]


def test_submit_takes_several_files_and_files_of_several_jobs(
    mumian: Any, coordinator: ScriptedCoordinator, tmp_path: Path
) -> None:
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text("command: [echo, one]\n")
    two.write_text(
        "name: first\ncommand: [echo, two]\n---\nname: second\npriority: 7\ncommand: [echo]\n---\n"
    )
    coordinator.refused_jobs["second"] = deque([INVALID])
    run = mumian("submit", str(one), str(two), "--request-id", "mine")
    assert run.code == 2
    assert "job one-" in run.out
    assert "2 jobs submitted in" in run.out
    assert run.err == f"mumian: INVALID_FIELD: {two}:5: priority (101) must be 0 to 100\n"
    [request] = coordinator.requests("CreateJobs")
    assert [each.request_id for each in request.submissions] == ["mine.1", "mine.2", "mine.3"]
    assert [each.spec.name for each in request.submissions] == ["one", "first", "second"]


def test_a_fault_in_any_document_keeps_all_from_being_submitted(
    mumian: Any, coordinator: ScriptedCoordinator, tmp_path: Path
) -> None:
    both = tmp_path / "both.yaml"
    both.write_text("command: [echo]\n---\ncommnd: [echo]\n")
    run = mumian("submit", str(both))
    assert run.code == 2
    assert f"{both}:3: commnd is no key of a job spec" in run.err
    assert not coordinator.calls


def test_programs_get_a_line_for_each_job(
    mumian: Any, coordinator: ScriptedCoordinator, tmp_path: Path
) -> None:
    both = tmp_path / "both.yaml"
    both.write_text("name: a\ncommand: [echo]\n---\nname: b\ncommand: [echo]\n")
    coordinator.refused_jobs["b"] = deque([INVALID])
    run = mumian("-o", "json", "submit", str(both))
    assert '"job": {"id": "a-' in run.out.splitlines()[0]
    assert '"error": {"reason": "INVALID_FIELD"' in run.out.splitlines()[1]
