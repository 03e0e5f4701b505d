"""What tenants' work needs, on a whole platform: real etcd, coordinator, agent and Ray."""

from __future__ import annotations

import os
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import mumian
import pytest
from mumian.api.v1 import job_pb2
from mumian.api.v1.job_pb2 import Job, JobSpec

from tests.orchestrator.test_up import Machine

pytestmark = [pytest.mark.e2e, pytest.mark.etcd, pytest.mark.ray]

WITHIN_S = 120.0
RUNNING, SUCCEEDED = job_pb2.JOB_STATE_RUNNING, job_pb2.JOB_STATE_SUCCEEDED
# Says which version it is, and is ready only half a second after it accepts.
SERVER = """
import http.server, os, sys, time
begun_s = time.monotonic()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        ready = time.monotonic() - begun_s > 0.5
        self.send_response(200 if ready else 503)
        self.end_headers()
        self.wfile.write(sys.argv[1].encode())
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["MUMIAN_PORT_HTTP"])), Handler).serve_forever()
"""
# A busy machine is slow to answer, and that is no fault here.
HEALTH = mumian.health(http="/", interval="200ms", timeout="60s", grace="2m")


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """One platform for all tests of this file."""
    made = Machine(tmp_path_factory.mktemp("work"))
    assert made.up().returncode == 0
    yield made
    made.run("down")
    assert made.processes() == []


@pytest.fixture
def client(machine: Machine) -> Iterator[mumian.Client]:
    """A tenant of it."""
    with mumian.Client(machine.address, tenant="acme") as opened:
        yield opened


def until(client: mumian.Client, job: Job, wanted: Callable[[Job], bool]) -> Job:
    """The job as soon as it is so."""
    for seen in client.watch(job.id, timeout_s=WITHIN_S):
        if wanted(seen):
            return seen
    raise AssertionError(client.get(job.id))


def web(version: str, count: int = 1) -> JobSpec:
    """A web service that says its version."""
    group = mumian.task_group(
        command=["python", "-c", SERVER, version],
        count=count,
        cpu=0.1,
        memory="64MiB",
        ports={"http": "auto"},
        health=HEALTH,
    )
    return mumian.job("web", group, kind="service", update=mumian.update_policy(well_for="500ms"))


def answer(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}/", timeout=10) as response:
        return str(response.read().decode())


def test_a_folder_goes_to_the_task_and_what_it_leaves_comes_back(
    client: mumian.Client, tmp_path: Path
) -> None:
    app = tmp_path / "app"
    (app / "lib").mkdir(parents=True)
    (app / "lib" / "work.py").write_text(
        "def main():\n    import pathlib\n    pathlib.Path('out').mkdir()\n"
        "    pathlib.Path('out/answer.txt').write_text(pathlib.Path('data.bin').read_bytes()[:2].hex())\n"
    )
    (app / "data.bin").write_bytes(b"\x2a\x2b" + os.urandom(2_500_000))
    bundle = client.upload(app)
    group = mumian.task_group(entry_point="lib.work:main", upload=bundle, outputs=["out/*.txt"], count=2)
    ended = client.wait(client.submit(mumian.job("files", group)).id, timeout_s=WITHIN_S)
    assert ended.state == SUCCEEDED, ended
    for allocation in ended.allocations:
        [file] = client.fetch(ended.id, allocation.id, tmp_path / "got")
        assert (tmp_path / "got" / file).read_text() == "2a2b"
        assert str(file) == "out/answer.txt"


def test_a_service_is_found_by_another_job_when_it_is_ready(client: mumian.Client) -> None:
    job = client.submit(web("one"))
    until(client, job, lambda seen: seen.state == RUNNING)
    [found] = client.endpoints("web", zone="here")
    assert answer(found.endpoint.address) == "one"
    script = (
        "import mumian, urllib.request\n"
        "with mumian.Client() as client:\n"
        "    [found] = client.endpoints('web')\n"
        "print(urllib.request.urlopen(f'http://{found.endpoint.address}/').read().decode())\n"
    )
    asker = client.submit(mumian.job("asker", mumian.task_group(command=["python", "-c", script], cpu=0.1)))
    assert client.wait(asker.id, timeout_s=WITHIN_S).state == SUCCEEDED
    assert b"".join(client.logs(asker.id)) == b"one\n"
    client.cancel(job.id)
    client.wait(job.id, timeout_s=WITHIN_S)


def test_a_wrong_health_check_restarts_the_service_and_says_why(client: mumian.Client) -> None:
    check = mumian.health(command="echo not yet; exit 4", grace="1s")
    group = mumian.task_group(command=["sleep", "100"], cpu=0.1, health=check, max_restarts=1)
    job = client.submit(mumian.job("unwell", group, kind="service"))
    ended = client.wait(job.id, timeout_s=WITHIN_S)
    assert ended.state == job_pb2.JOB_STATE_FAILED
    assert "not ready 1 s after its start: sh exits with status 4: not yet, after 1 restart" in (
        ended.state_message
    )


def test_an_update_replaces_a_service_without_a_moment_in_which_it_does_not_answer(
    client: mumian.Client,
) -> None:
    job = client.submit(web("one", count=2))
    until(client, job, lambda seen: seen.state == RUNNING)
    answers = {answer(found.endpoint.address) for found in client.endpoints("web")}
    assert answers == {"one"}
    client.update("web", web("two", count=2))
    fewest, done = 2, False
    while not done:
        fewest = min(fewest, len(client.endpoints("web")))
        done = not client.get(job.id).HasField("rollout")
    assert fewest == 2
    assert {answer(found.endpoint.address) for found in client.endpoints("web")} == {"two"}
    bad = web("three", count=2)
    bad.task_groups[0].command.argv[2] = "raise SystemExit(7)"
    bad.task_groups[0].max_restarts = 0
    client.update("web", bad)
    stopped = until(client, job, lambda seen: bool(seen.rollout.stopped))
    assert "exited with status 7" in stopped.rollout.stopped
    assert [answer(found.endpoint.address) for found in client.endpoints("web")] == ["two", "two"]
    client.update("web", web("two", count=2))
    assert not until(client, job, lambda seen: not seen.HasField("rollout")).rollout.stopped
    client.cancel(job.id)
    client.wait(job.id, timeout_s=WITHIN_S)
