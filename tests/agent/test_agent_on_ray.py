"""The agent as a process on a real Ray, against a scripted coordinator."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

import grpc
import psutil
import pytest
import yaml
from mumian.agent.v1 import agent_pb2 as pb
from mumian.api.v1 import job_pb2, job_service_pb2
from mumian_agent.adapters.ray.settings import temp_dir_of
from mumian_agent.runtime import process_tree
from mumian_orchestrator.main.free_ports import free_port

from tests.agent.scripted_coordinator import ScriptedCoordinator, run_of
from tests.agent.task_processes import process_of
from tests.agent.test_supervisor import AUTO, LISTEN
from tests.processes import SCRIPTS, Running, the_process

pytestmark = pytest.mark.ray

RUNNING, SUCCEEDED = job_pb2.ALLOCATION_STATE_RUNNING, job_pb2.ALLOCATION_STATE_SUCCEEDED
FAILED, CANCELLED = job_pb2.ALLOCATION_STATE_FAILED, job_pb2.ALLOCATION_STATE_CANCELLED
STARTING = job_pb2.ALLOCATION_STATE_STARTING


class Agent:
    """One site's agent, which can be killed and started again on the same state."""

    def __init__(self, folder: Path, coordinator_port: int) -> None:
        self.folder, self.state_dir = folder, folder / "state"
        self.reflector = f"127.0.0.1:{free_port()}"
        self.config = folder / "site.yaml"
        self.config.write_text(
            yaml.safe_dump(
                {
                    "site": {
                        "id": "gz-test",
                        "operator_id": "op",
                        "tier": "edge",
                        "jurisdiction": "CN-GD-GZ",
                        "pue": {"average": 1.25},
                    },
                    "coordinator": f"127.0.0.1:{coordinator_port}",
                    "state_dir": str(self.state_dir),
                    "node": {"cpu_limit": 1, "memory_limit_mib": 512, "labels": {"disk": "ssd"}},
                    "reflector": {"listen": self.reflector},
                    "stop_grace_ms": 500,
                }
            )
        )

    async def start(self) -> str:
        """Start it; its `ready:` line."""
        argv = [str(SCRIPTS / "mumian-agent"), "run", "--verbose", "--config", str(self.config)]
        self.running = Running(argv, self.folder, "agent")
        return await asyncio.to_thread(self.running.wait_ready)

    async def stop(self) -> int:
        """SIGTERM; the exit status."""
        return await asyncio.to_thread(self.running.stop)

    def ray_processes(self) -> list[psutil.Process]:
        """What runs of its Ray."""
        found = []
        for process in psutil.process_iter():
            try:
                if str(temp_dir_of(self.state_dir)) in " ".join(process.cmdline()):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def ray_servers(self) -> set[int]:
        """The processes of its Ray that live as long as it does; workers come and go."""
        running = self.ray_processes()
        servers = [the_process(running, name) for name in ("gcs_server", "raylet")]
        return {server.pid for server in servers if server}


@pytest.fixture
async def port() -> int:
    """Where the coordinator listens."""
    return free_port()


@pytest.fixture
async def coordinator(port: int) -> AsyncIterator[ScriptedCoordinator]:
    """One that wants nothing yet."""
    started = ScriptedCoordinator()
    await started.start(port)
    yield started
    await started.stop()


@pytest.fixture
async def agent(tmp_path: Path, port: int, coordinator: ScriptedCoordinator) -> AsyncIterator[Agent]:
    """A connected one; whatever the test did to it, nothing of it is left behind."""
    started = Agent(tmp_path, port)
    await started.start()
    await coordinator.until(lambda: coordinator.reports)  # ready means that it serves, not that it connected
    yield started
    if started.running.process.poll() is not None:
        coordinator.refusal = None
        await started.start()
    assert await started.stop() == 0
    assert started.ray_processes() == []
    started.running.sweep()


def waits_for(mark: Path) -> str:
    """A piece of shell that ends when the file is there."""
    return f"until [ -e {mark} ]; do sleep 0.05; done"


async def until_gone(allocation_id: str) -> None:
    """Wait until no process of its first attempt is left."""
    async with asyncio.timeout(120):
        while process_tree.members(allocation_id, 1):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def _reports_of(
    coordinator: ScriptedCoordinator, name: Literal["heartbeat", "power", "links"]
) -> list[pb.AgentReport]:
    return [report for report in coordinator.reports if report.HasField(name)]


async def test_a_site_says_who_it_is_and_what_it_has(agent: Agent, coordinator: ScriptedCoordinator) -> None:
    hello = coordinator.reports[0].hello
    assert (hello.site.id, hello.reflector) == ("gz-test", agent.reflector)
    assert hello.site.pue.average_permille == 1250
    [node] = hello.nodes
    assert (node.id, node.cpu_milli, node.memory_mib) == ("gz-test/n1", 1000, 512)
    assert node.labels == {"disk": "ssd"}
    targets = [pb.ProbeTarget(id="tianhe", address=agent.reflector)]
    coordinator.send(probe_targets=pb.ProbeTargets(targets=targets))
    names: tuple[Literal["heartbeat", "power", "links"], ...] = ("heartbeat", "power", "links")
    for name in names:
        await coordinator.until(functools.partial(_reports_of, coordinator, name))
    sequences = [0, *(report.sequence for report in coordinator.reports)]
    for report, before in zip(coordinator.reports, sequences, strict=False):
        assert report.sequence == (1 if report.HasField("hello") else before + 1)


async def test_a_task_runs_on_ray_and_its_exit_code_comes_back(
    agent: Agent, coordinator: ScriptedCoordinator
) -> None:
    coordinator.run(run_of("good.main.0", "sh", "-c", "sleep 0.1"))
    coordinator.run(run_of("bad.main.0", "sh", "-c", "exit 7"))
    coordinator.run(run_of("none.main.0", "no-such-command"))
    assert (await coordinator.status("good.main.0", SUCCEEDED, FAILED)).exit_code == 0
    assert (await coordinator.status("bad.main.0", SUCCEEDED, FAILED)).exit_code == 7
    assert (await coordinator.status("none.main.0", SUCCEEDED, FAILED)).exit_code == 127


async def test_a_running_task_is_a_child_of_a_worker_of_the_sites_ray(
    agent: Agent, coordinator: ScriptedCoordinator
) -> None:
    coordinator.run(run_of("child.main.0", "sleep", "100"))
    await coordinator.status("child.main.0", RUNNING)
    task = await process_of("child.main.0")
    worker = task.parent()
    assert worker is not None
    assert worker.name().startswith("ray::Runner")
    assert worker.parent() in agent.ray_processes()
    coordinator.stop_allocation("child.main.0")
    await coordinator.status("child.main.0", CANCELLED)
    assert process_tree.members("child.main.0", 1) == []


async def test_a_service_shows_its_endpoint_and_is_restarted_when_it_dies(
    agent: Agent, coordinator: ScriptedCoordinator
) -> None:
    service = run_of("svc.main.0", "python", "-c", LISTEN, kind=job_pb2.JOB_KIND_SERVICE, ports=[AUTO])
    coordinator.run(service)
    first = await coordinator.status("svc.main.0", RUNNING)
    process = await process_of("svc.main.0")
    process.kill()
    await coordinator.until(lambda: coordinator.statuses("svc.main.0")[-1].restart_count == 1)
    again = await coordinator.status("svc.main.0", RUNNING)
    assert (again.endpoints, again.restart_count) == (first.endpoints, 1)
    coordinator.stop_allocation("svc.main.0")
    await coordinator.status("svc.main.0", CANCELLED)


async def test_logs_are_read_whole_by_tail_and_as_they_grow(
    agent: Agent, coordinator: ScriptedCoordinator
) -> None:
    coordinator.run(run_of("logs.main.0", "sh", "-c", "echo one; echo two >&2; sleep 0.5; echo three"))
    followed = await coordinator.logs("logs.main.0", read_id=1, follow=True)
    whole = await coordinator.logs("logs.main.0", read_id=2)
    tail = await coordinator.logs("logs.main.0", read_id=3, tail_bytes=6)

    def text(chunks: list[pb.LogChunk], stream: job_service_pb2.LogStream.ValueType) -> bytes:
        return b"".join(chunk.data for chunk in chunks if chunk.stream == stream)

    for chunks in (followed, whole):
        assert text(chunks, job_service_pb2.LOG_STREAM_STDOUT) == b"one\nthree\n"
        assert text(chunks, job_service_pb2.LOG_STREAM_STDERR) == b"two\n"
    assert text(tail, job_service_pb2.LOG_STREAM_STDOUT) == b"three\n"
    [nothing] = await coordinator.logs("unknown.main.0", read_id=4)
    assert "gz-test has none of it" in nothing.error


async def test_killed_and_started_again_the_agent_adopts_its_work_and_reports_its_end(
    agent: Agent, coordinator: ScriptedCoordinator
) -> None:
    mark, mark_of_short = agent.folder / "mark", agent.folder / "mark-of-short"
    long = run_of("long.main.0", "sh", "-c", f"echo start; {waits_for(mark)}; exit 5")
    short = run_of("short.main.0", "sh", "-c", f"{waits_for(mark_of_short)}; exit 6")
    for run in (long, short):
        coordinator.run(run)
        await coordinator.status(run.allocation.id, RUNNING)
    before = (await process_of("long.main.0", "sh")).pid
    ray_before = agent.ray_servers()
    agent.running.kill()
    mark_of_short.touch()
    await until_gone("short.main.0")  # while nobody looks
    epoch = coordinator.reports[-1].agent_epoch
    coordinator.wanted = [long, short]
    await agent.start()
    # What the killed one had sent may still be read meanwhile.
    await coordinator.until(lambda: coordinator.reports[-1].agent_epoch > epoch or None)
    assert (await coordinator.status("short.main.0", FAILED)).exit_code == 6
    after = (await process_of("long.main.0", "sh")).pid
    assert after == before
    assert agent.ray_servers() == ray_before
    mark.touch()
    assert (await coordinator.status("long.main.0", FAILED)).exit_code == 5
    whole = await coordinator.logs("long.main.0", read_id=1)
    assert b"".join(chunk.data for chunk in whole) == b"start\n"


async def test_a_site_that_was_stopped_goes_on_with_what_is_still_wanted(
    agent: Agent, coordinator: ScriptedCoordinator
) -> None:
    run = run_of("down.main.0", "sleep", "100")
    coordinator.run(run)
    await coordinator.status("down.main.0", RUNNING)
    assert await agent.stop() == 0
    assert agent.ray_processes() == []
    assert process_tree.members("down.main.0", 1) == []
    coordinator.wanted = [run]
    coordinator.reports.clear()
    await agent.start()
    await coordinator.status("down.main.0", RUNNING)
    assert coordinator.statuses("down.main.0")[-1].restart_count == 0


async def test_cut_off_a_site_goes_on_and_tells_it_all_when_it_is_back(
    agent: Agent, coordinator: ScriptedCoordinator, port: int
) -> None:
    mark = agent.folder / "mark"
    run = run_of("cut.main.0", "sh", "-c", f"{waits_for(mark)}; exit 4")
    coordinator.run(run)
    await coordinator.status("cut.main.0", RUNNING)
    await coordinator.stop()
    mark.touch()
    await until_gone("cut.main.0")
    back = ScriptedCoordinator()
    back.wanted = [run]
    await back.start(port)
    assert (await back.status("cut.main.0", FAILED)).exit_code == 4
    assert back.reports[0].hello.allocations[0].allocation_id == "cut.main.0"
    await back.stop()


async def test_a_worker_of_ray_that_is_killed_takes_its_task_along_and_it_is_started_again(
    agent: Agent, coordinator: ScriptedCoordinator
) -> None:
    coordinator.run(run_of("lost.main.0", "sleep", "100", max_restarts=1))
    await coordinator.status("lost.main.0", RUNNING)
    task = await process_of("lost.main.0")
    worker = task.parent()
    assert worker is not None
    worker.kill()
    await coordinator.until(lambda: coordinator.statuses("lost.main.0")[-1].restart_count == 1)
    await coordinator.status("lost.main.0", RUNNING)
    again = await process_of("lost.main.0")
    assert again.pid != task.pid
    coordinator.stop_allocation("lost.main.0")
    await coordinator.status("lost.main.0", CANCELLED)


async def test_a_command_of_an_older_leader_is_refused(
    agent: Agent, coordinator: ScriptedCoordinator
) -> None:
    coordinator.send(term=9, run=run_of("new.main.0", "true"))
    await coordinator.status("new.main.0", SUCCEEDED)
    coordinator.send(term=8, run=run_of("old.main.0", "true"))
    coordinator.send(term=9, run=run_of("newer.main.0", "true"))
    await coordinator.status("newer.main.0", SUCCEEDED)
    assert coordinator.statuses("old.main.0") == []
    assert "refused run of term 8" in agent.running.log.read_text()


async def test_nobody_connects_to_the_sites_ray_without_its_token(agent: Agent) -> None:
    script = "import json, sys, ray; ray.init(json.load(open(sys.argv[1]))['address'], log_to_driver=False)"
    environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "wrong" * 8}
    environment["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    tried = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", script, str(agent.state_dir / "ray.json")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert tried.returncode != 0
    assert "auth" in tried.stderr.lower()


@pytest.mark.parametrize(
    ("code", "reason", "message"),
    [
        (grpc.StatusCode.ALREADY_EXISTS, "SITE_ID_TAKEN", "site id gz-test is taken; choose another id"),
        (grpc.StatusCode.FAILED_PRECONDITION, "CLOCK_SKEW", "the clock is 7200 s ahead; set it by NTP"),
    ],
)
async def test_a_site_that_is_refused_for_good_leaves_with_status_3_and_the_reason(
    tmp_path: Path,
    coordinator: ScriptedCoordinator,
    port: int,
    code: grpc.StatusCode,
    reason: str,
    message: str,
) -> None:
    coordinator.refusal = (code, reason, message)
    agent = Agent(tmp_path, port)
    refused = await asyncio.to_thread(
        subprocess.run,
        [str(SCRIPTS / "mumian-agent"), "run", "--config", str(agent.config)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert refused.returncode == 3
    assert f"{reason}: {message}" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert agent.ray_processes() == []


async def test_the_death_of_ray_ends_the_agent_and_the_next_one_takes_up_the_work(
    agent: Agent, coordinator: ScriptedCoordinator
) -> None:
    run = run_of("phoenix.main.0", "sleep", "100", max_restarts=1)
    coordinator.run(run)
    await coordinator.status("phoenix.main.0", RUNNING)
    for pid in agent.ray_servers():
        os.kill(pid, signal.SIGKILL)
    status = await asyncio.to_thread(agent.running.process.wait, 120)
    assert status == 1
    assert "Ray has died" in agent.running.log.read_text()
    coordinator.wanted = [run]
    coordinator.reports.clear()
    await agent.start()
    assert (await coordinator.status("phoenix.main.0", RUNNING)).restart_count == 1
    coordinator.stop_allocation("phoenix.main.0")
    await coordinator.status("phoenix.main.0", CANCELLED)
