"""The command line when something is wrong: one message with a code, and the exit code that belongs to it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from mumian.api.v1 import job_pb2
from mumian.api.v1.job_pb2 import Job
from mumian.api.v1.job_service_pb2 import ReadLogsResponse
from mumian.cli import app
from mumian_orchestrator.main.free_ports import free_port

from tests.processes import SCRIPTS
from tests.sdk.scripted_coordinator import ScriptedCoordinator, refusal

HUGE = "9" * 30


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["submt", "x"], "did you mean submit?"),
        (["submit"], "Missing argument 'FILE...'"),
        (["submit", "BAD"], "did you mean command?"),
        (["submit", "FOLDER"], "is a directory"),
        (["submit", "/dev/zero"], "over 4 MiB"),
        (["submit", "GOOD", "--wait=yes"], "does not take a value"),
        (["plan", "NONE"], "cannot be read"),
        (["plan", ""], "is a directory"),
        (["plan", "GOOD", "GOOD"], "unexpected extra argument"),
        (["jobs", "--output", "xml"], "'xml' is not one of"),
        (["jobs", "--coordinator", "nowhere"], "must be host:port"),
        (["jobs", "--tenant", "A B"], "write a-b"),
        (["jobs", "--state", "zombie"], "'zombie' is not one of"),
        (["jobs", "--limit", "0"], "is not in the range"),
        (["jobs", "--limit", HUGE], "is not in the range"),
        (["status"], "Missing argument 'JOB'"),
        (["status", "nope"], "JOB_NOT_FOUND: job (nope) does not exist"),
        (["status", "a", "b"], "unexpected extra argument"),
        (["logs", "x", "--tail", "-1"], "is not in the range"),
        (["logs", "x", "--tail", HUGE], "is not in the range"),
        (["logs", "--follow"], "Missing argument 'JOB'"),
        (["cancel"], "Missing argument 'JOB'"),
        (["cancel", "x", "y"], "unexpected extra argument"),
        (["cancel", "--force", "x"], "No such option"),
        (["explain"], "Missing argument 'JOB'"),
        (["explain", "x", "-o"], "requires an argument"),
        (["explain", "x", "--tenant", "é"], "must be 1 to 40"),
        (["sites", "gz"], "unexpected extra argument"),
        (["nodes", "a", "b"], "unexpected extra argument"),
        (["zones", "-o", "yaml"], "'yaml' is not one of"),
        (["links", "a", "b"], "unexpected extra argument"),
        (["top", "--interval", "0"], "is not in the range"),
        (["top", "--interval", "nan"], "is no length of time"),
        (["top", "--interval", "inf"], "is not in the range"),
    ],
)
def test_bad_input_is_exit_2_with_a_code_and_advice_and_asks_nobody_for_a_job(
    mumian: Any, coordinator: ScriptedCoordinator, tmp_path: Path, argv: list[str], told: str
) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text("command: [echo]\n")
    bad.write_text("comand: [echo]\ncount: many\n")
    files = {"GOOD": good, "BAD": bad, "FOLDER": tmp_path, "NONE": tmp_path / "none.yaml"}
    words = [str(files.get(word, word)) for word in argv]
    run = mumian(*words)
    assert (run.code, run.out) == (2, "")
    assert told in run.err
    assert re.match(r"mumian: [A-Z_]+[:\n]", run.err), "a message begins with its code"
    as_json = mumian("--output", "json", *words)
    if "--output" not in words and "-o" not in words:
        assert json.loads(as_json.err)["error"]["reason"] in ("INVALID_FIELD", "JOB_NOT_FOUND")
    assert not coordinator.requests("CreateJob")


def test_errors_are_json_too_when_the_output_is(mumian: Any) -> None:
    run = mumian("status", "nope", "-o", "json")
    assert json.loads(run.err)["error"]["reason"] == "JOB_NOT_FOUND"
    assert not run.out


def test_a_fault_of_the_server_is_exit_4(mumian: Any, coordinator: ScriptedCoordinator) -> None:
    coordinator.refuse("ListJobs", refusal(grpc.StatusCode.INTERNAL, "INTERNAL", "a defect of Mumian"))
    run = mumian("jobs")
    assert (run.code, run.err) == (4, "mumian: INTERNAL: a defect of Mumian\n")


def test_a_coordinator_that_is_not_there_is_exit_3(mumian: Any) -> None:
    run = mumian("sites", "--coordinator", f"127.0.0.1:{free_port()}")
    assert run.code == 3
    assert "start one with `mumian up` or set MUMIAN_COORDINATOR" in run.err


def test_the_tenant_package_alone_says_how_to_get_up(mumian: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "_contributed", dict)
    run = mumian("up")
    assert run.code == 2
    assert "install mumian-orchestrator and mumian-agent" in run.err
    assert mumian("--help").code == 0


def test_ctrl_c_leaves_130_and_the_job_running(coordinator: ScriptedCoordinator, hello: str) -> None:
    coordinator.watched = [Job(id="hello-1", state=job_pb2.JOB_STATE_PENDING)]
    coordinator.watch_stays_open = True
    process = subprocess.Popen(
        [SCRIPTS / "mumian", "submit", hello],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "MUMIAN_COORDINATOR": coordinator.address},
    )
    while not coordinator.requests("WatchJob"):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err.strip() == "job hello-00000000 goes on; `mumian cancel hello-00000000` stops it"
    assert not coordinator.requests("CancelJob")


def test_a_reader_that_has_enough_is_no_error(coordinator: ScriptedCoordinator) -> None:
    coordinator.chunks = [ReadLogsResponse(data=b"x" * 100_000)] * 20
    command = f"{SCRIPTS / 'mumian'} logs hello-1 --coordinator {coordinator.address} | head -c 5"
    run = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, check=False)
    assert (run.stdout, run.stderr, run.returncode) == (b"xxxxx", b"", 0)


def test_a_reader_that_has_enough_of_a_table_is_no_error(coordinator: ScriptedCoordinator) -> None:
    coordinator.page_size = 1000
    coordinator.jobs = [Job(id=f"job-{number}") for number in range(3000)]
    command = f"{SCRIPTS / 'mumian'} jobs --limit 3000 --coordinator {coordinator.address} | head -1"
    run = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, check=False)
    assert (run.stderr, run.returncode) == (b"", 0)


@pytest.mark.parametrize(("output", "code"), [(">&-", 0), ("> /dev/full", 2)])
def test_an_output_that_cannot_be_written_is_no_defect(
    coordinator: ScriptedCoordinator, output: str, code: int
) -> None:
    command = f"{SCRIPTS / 'mumian'} jobs --coordinator {coordinator.address} {output}"
    run = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert run.returncode == code
    told = "mumian: INVALID_FIELD: standard output cannot be written: no space left on device"
    assert run.stderr.startswith(told) if code else run.stderr == ""
