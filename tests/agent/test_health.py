"""Services that are asked how they are: real servers, real commands, real restarts."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from mumian.api.v1 import job_pb2
from mumian.api.v1.job_pb2 import CommandCheck, HealthCheck, Port
from mumian_agent.runtime import health
from mumian_agent.runtime.health import CommandProbe, HttpProbe, TcpProbe

from tests.agent.test_supervisor import (
    AUTO,
    CANCELLED,
    FAILED,
    RUNNING,
    SERVICE,
    STARTING,
    Supervised,
    new_run,
)

# Answers with what the file says, so that a test decides how well it is.
ANSWERS = """
import http.server, os, pathlib, sys, time
mood = pathlib.Path(sys.argv[1])
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        said = mood.read_text()
        if said == "silent":
            time.sleep(60)
        self.send_response(int(said))
        self.end_headers()
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["MUMIAN_PORT_HTTP"])), Handler).serve_forever()
"""


def service(folder: Path, mood: str, **check: Any) -> Supervised:
    """A web server that is asked by HTTP five times a second."""
    (folder / "mood").write_text(mood)
    given = HealthCheck(**{"http_path": "/healthz", "interval_ms": 200, "timeout_ms": 10_000, **check})
    ports = [Port(name="other"), Port(name="http")]
    given.port = "http"
    argv = ("python", "-c", ANSWERS, str(folder / "mood"))
    return Supervised(folder, new_run(*argv, kind=SERVICE, ports=ports, health_check=given))


async def test_a_service_runs_when_it_is_ready_and_not_when_its_port_accepts(tmp_path: Path) -> None:
    work = service(tmp_path, "503")
    other, http = "other", "http"
    while not work.supervisor._ports:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    probe = TcpProbe("127.0.0.1", work.supervisor._ports[http])
    while await probe.fault():  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.5)
    assert work.supervisor.view().status.state == STARTING
    (tmp_path / "mood").write_text("204")
    view = await work.until(lambda view: view.status.state == RUNNING)
    assert [endpoint.port for endpoint in view.status.endpoints] == [other, http]
    work.supervisor.stop()
    assert (await work.ended()).status.state == CANCELLED


async def test_a_failure_shows_and_is_over_when_it_is_well_again(tmp_path: Path) -> None:
    work = service(tmp_path, "200", failures=1000)
    await work.until(lambda view: view.status.state == RUNNING)
    (tmp_path / "mood").write_text("500")
    view = await work.until(lambda view: bool(view.status.health_fault))
    assert (view.status.state, view.status.health_fault) == (RUNNING, "GET /healthz answers 500")
    (tmp_path / "mood").write_text("302")
    view = await work.until(lambda view: not view.status.health_fault)
    assert (view.status.state, view.status.restart_count) == (RUNNING, 0)
    work.supervisor.stop()
    await work.ended()


@pytest.mark.parametrize(
    ("mood", "said"), [("500", "GET /healthz answers 500"), ("silent", "no answer within 0.4 s")]
)
async def test_failures_in_a_row_restart_it_with_nothing_left_of_the_old_one(
    tmp_path: Path, mood: str, said: str
) -> None:
    work = service(tmp_path, "200", failures=2, timeout_ms=400)
    first = await work.until(lambda view: view.status.state == RUNNING)
    (tmp_path / "mood").write_text(mood)
    view = await work.until(lambda view: view.status.restart_count == 1)
    assert f"its health check failed 2 times in a row: {said}; restart 1" in view.status.message
    assert not view.status.health_fault
    (tmp_path / "mood").write_text("200")
    again = await work.until(lambda view: view.status.state == RUNNING)
    assert again.status.endpoints == first.status.endpoints
    assert first.process is not None
    assert first.process.process() is None
    work.supervisor.stop()
    await work.ended()


async def test_what_is_not_ready_within_its_grace_fails_in_the_end_and_says_why(tmp_path: Path) -> None:
    check = HealthCheck(command=CommandCheck(argv=["sh", "-c", "echo no database; exit 9"]), grace_ms=100)
    work = Supervised(
        tmp_path,
        new_run("sleep", "100", kind=SERVICE, health_check=check, max_restarts=1, restart_delay_ms=1),
    )
    view = await work.ended()
    assert (view.status.state, view.status.restart_count) == (FAILED, 1)
    assert view.status.message == (
        "not ready 0.1 s after its start: sh exits with status 9: no database, after 1 restart"
    )
    assert not view.status.HasField("start_time"), "it never ran"
    assert work.left() == []


async def test_a_command_asks_in_the_tasks_folder_with_its_environment(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    script = 'test -e mark && test "$OWN" = 1 && test -n "$MUMIAN_PORT"'
    command = job_pb2.Command(
        argv=["sh", "-c", "touch mark; sleep 100"],
        working_directory=str(tmp_path / "inside"),
        environment={"OWN": "1"},
    )
    check = HealthCheck(command=CommandCheck(argv=["sh", "-c", script]))
    work = Supervised(tmp_path, new_run(command=command, kind=SERVICE, ports=[AUTO], health_check=check))
    await work.until(lambda view: view.status.state == RUNNING)
    work.supervisor.stop()
    await work.ended()


async def test_a_command_that_hangs_is_a_failure_and_is_killed(tmp_path: Path) -> None:
    run = new_run("true")
    work = Supervised(tmp_path, run)
    await work.ended()
    hangs = CommandProbe(["sh", "-c", "sleep 100 & sleep 100"], work.task.environment, None)
    asked = health.Health(HealthCheck(timeout_ms=100), hangs)
    assert await asked._ask() == "no answer within 0.1 s"
    while work.left():  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def test_a_server_that_speaks_no_http_is_named(tmp_path: Path) -> None:
    def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        assert await HttpProbe("127.0.0.1", port, "/").fault() == "GET / is not answered by HTTP"
    assert "finds no server" in await HttpProbe("127.0.0.1", port, "/").fault()
