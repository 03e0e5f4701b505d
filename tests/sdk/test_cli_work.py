"""What goes to a job's tasks, what comes back, and where they answer: as a user sees it."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import Any

from mumian.api.v1 import job_pb2
from mumian.api.v1.job_service_pb2 import TaskEndpoint
from mumian.archives import pack

from tests.sdk.scripted_coordinator import ScriptedCoordinator
from tests.sdk.test_cli import RUNNING, job


def test_endpoints_come_nearest_first_with_their_round_trips(
    mumian: Any, coordinator: ScriptedCoordinator
) -> None:
    assert "no task of web answers now" in mumian("endpoints", "web").out
    for index, rtt_us in enumerate((None, 9000, 1500)):
        coordinator.endpoints.append(
            TaskEndpoint(
                allocation_id=f"web-1.main.{index}",
                task_group="main",
                task_index=index,
                site_id=f"s{index}",
                endpoint=job_pb2.Endpoint(port="http", address=f"10.0.0.{index}:80"),
                rtt_p50_us=rtt_us,
                rtt_p99_us=rtt_us,
            )
        )
    run = mumian("endpoints", "web", "--from", "tianhe")
    assert [line.split() for line in run.out.splitlines() if line.startswith("main.")] == [
        ["main.2", "http", "10.0.0.2:80", "s2", "1.5", "1.5"],
        ["main.1", "http", "10.0.0.1:80", "s1", "9.0", "9.0"],
        ["main.0", "http", "10.0.0.0:80", "s0", "-", "-"],
    ]
    asked = coordinator.requests("ListEndpoints")[-1]
    assert (asked.job, asked.zone_id) == ("web", "tianhe")
    assert len(mumian("endpoints", "web", "-o", "json").json["endpoints"]) == 3


def test_a_folder_is_uploaded_once_and_named_in_the_job(
    mumian: Any, coordinator: ScriptedCoordinator, tmp_path: Path
) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "main.py").write_bytes(os.urandom(3_000_000))
    (tmp_path / "job.yaml").write_text("command: [python3, main.py]\nupload: app\n")
    coordinator.watched = [job(RUNNING)]
    run = mumian("submit", str(tmp_path / "job.yaml"))
    assert run.code == 0
    assert "app uploaded (2.9 MiB packed)" in run.out
    [(sha256, stored)] = coordinator.bundles.items()
    assert hashlib.sha256(stored).hexdigest() == sha256
    named = coordinator.requests("CreateJob")[0].spec.task_groups[0].command.bundle
    assert (named.sha256, named.size_bytes) == (sha256, len(stored))
    pieces = len(coordinator.requests("UploadBundle"))
    assert pieces == 4, "one question, three pieces"
    mumian("submit", str(tmp_path / "job.yaml"))
    assert len(coordinator.requests("UploadBundle")) == pieces + 1


def test_outputs_are_fetched_into_a_folder_for_each_task(
    mumian: Any, coordinator: ScriptedCoordinator, tmp_path: Path
) -> None:
    ended = job(job_pb2.JOB_STATE_SUCCEEDED)
    coordinator.jobs = [ended]
    assert "declares no outputs" in mumian("fetch", "hello-1").err
    ended.spec.task_groups.add(name="main", outputs=["*.csv"])
    assert "has left nothing that its outputs name" in mumian("fetch", "hello-1").err
    packed = io.BytesIO()
    (tmp_path / "a.csv").write_text("1\n" * 500)
    pack(tmp_path, [Path("a.csv")], packed)
    for index in range(2):
        name = f"hello-1.main.{index}"
        ended.allocations.add(id=name, output_bytes=len(packed.getvalue()))
        coordinator.outputs[name] = packed.getvalue()
    run = mumian("fetch", "hello-1", "-d", str(tmp_path / "out"))
    assert run.code == 0
    assert "main.1: 1 file" in run.out
    assert (tmp_path / "out" / "main.1" / "a.csv").read_text() == "1\n" * 500
    only = mumian("fetch", "hello-1", "--task", "main.0", "-d", str(tmp_path / "one"), "-o", "json")
    assert only.json["files"] == [str(tmp_path / "one" / "main.0" / "a.csv")]
    coordinator.outputs["hello-1.main.0"] = b"damaged"
    assert "OUTPUT_NOT_FOUND" in mumian("fetch", "hello-1", "-d", str(tmp_path / "bad")).err


def test_an_update_tells_each_step_and_ends_well_or_says_why_not(
    mumian: Any, coordinator: ScriptedCoordinator, tmp_path: Path
) -> None:
    (tmp_path / "hello.yaml").write_text("kind: service\ncommand: [serve]\ncount: 2\n")
    rolling = [job(RUNNING) for _ in range(3)]
    for number, seen in enumerate(rolling):
        seen.spec.task_groups[0].count = 2
        seen.rollout.version, seen.version = 2, 1
        for _ in range(number):
            seen.allocations.add(state=job_pb2.ALLOCATION_STATE_RUNNING, job_version=2)
    rolling[2].ClearField("rollout")
    rolling[2].version = 2
    coordinator.watched = rolling
    run = mumian("update", str(tmp_path / "hello.yaml"))
    assert run.code == 0
    assert [line for line in run.out.splitlines() if line] == [
        "update to version 2: 0 of 2 tasks replaced",
        "update to version 2: 1 of 2 tasks replaced",
        "job hello-1 is of version 2",
    ]
    assert coordinator.requests("UpdateJob")[0].job == "hello"
    rolling[1].rollout.stopped = "the new task main.1 on gz/n1: exited with status 1"
    run = mumian("update", str(tmp_path / "hello.yaml"))
    assert run.code == 1
    said = run.err
    assert said.startswith("mumian: UPDATE_STOPPED: the update to version 2")
    assert (
        "has stopped with 1 of 2 tasks replaced: the new task main.1 on gz/n1: exited with status 1" in said
    )
    coordinator.jobs = [rolling[1]]
    assert "has stopped with 1 of 2 tasks" in mumian("status", "hello-1").out
