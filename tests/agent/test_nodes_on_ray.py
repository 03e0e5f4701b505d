"""Sites of two and three machines on a real Ray: each its own raylet, keeper and state, killed at work."""

from __future__ import annotations

import asyncio
import itertools
import signal
from pathlib import Path

import psutil
import pytest
import yaml
from mumian.agent.v1 import agent_pb2 as pb
from mumian.api.v1 import job_pb2
from mumian.api.v1.fleet_pb2 import Node
from mumian_agent.runtime import process_tree
from mumian_agent.runtime.process_tree import NODE_VARIABLE
from mumian_orchestrator.main.free_ports import free_port

from tests.agent.scripted_coordinator import ScriptedCoordinator, run_of
from tests.agent.task_processes import process_of
from tests.agent.test_agent_on_ray import Agent
from tests.processes import SCRIPTS, Running, the_process

pytestmark = pytest.mark.ray

RUNNING, CANCELLED = job_pb2.ALLOCATION_STATE_RUNNING, job_pb2.ALLOCATION_STATE_CANCELLED


class Machine:
    """One more machine of the site, as its keeper's process."""

    def __init__(self, name: str, folder: Path, head: str, token_file: Path) -> None:
        self.state_dir, config = folder / name, folder / f"{name}.yaml"
        said = {"cpu_limit": 1, "memory_limit_mib": 256, "labels": {"disk": name}, "switch": f"sw-{name}"}
        config.write_text(yaml.safe_dump(said))
        argv = [
            *(str(SCRIPTS / "mumian-agent"), "node", "--head", head, "--name", name),
            *("--address", "127.0.0.1", "--token-file", str(token_file)),
            *("--state-dir", str(self.state_dir), "--config", str(config)),
        ]
        self.running = Running(argv, folder, name)

    def raylet(self) -> psutil.Process:
        """Its part of Ray."""
        raylet = the_process(psutil.Process(self.running.process.pid).children(), "raylet")
        assert raylet is not None
        return raylet


def with_ray_port(agent: Agent) -> str:
    """Let the site's Ray listen where others find it; where."""
    head = f"127.0.0.1:{free_port()}"
    config = yaml.safe_load(agent.config.read_text())
    config["ray"] = {"listen": head}
    agent.config.write_text(yaml.safe_dump(config))
    return head


def on_node(allocation_id: str, name: str) -> pb.RunAllocation:
    """A task that runs there until it is stopped."""
    run = run_of(allocation_id, "sh", "-c", f"echo ${NODE_VARIABLE}; exec sleep 600")
    run.allocation.node_id = f"gz-test/{name}"
    return run


async def test_tasks_run_on_the_node_that_was_planned_and_are_lost_with_it(tmp_path: Path) -> None:
    port = free_port()
    coordinator = ScriptedCoordinator()
    await coordinator.start(port)
    agent = Agent(tmp_path, port)
    head = with_ray_port(agent)
    machines: list[Machine] = []
    try:
        await agent.start()
        token_file = agent.state_dir / "ray.token"
        machines = [Machine(name, tmp_path, head, token_file) for name in ("n2", "n3")]

        await coordinator.until(lambda: len(reported(coordinator)) == 3)
        nodes = reported(coordinator)
        assert nodes["gz-test/n3"].labels["disk"] == "n3"
        assert (nodes["gz-test/n2"].cpu_milli, nodes["gz-test/n2"].memory_mib) == (1000, 256)
        assert nodes["gz-test/n2"].disk_mib > 0
        assert [nodes[f"gz-test/{name}"].switch_id for name in ("n1", "n2", "n3")] == ["", "sw-n2", "sw-n3"]

        folders = {"n1": agent.state_dir} | {m.state_dir.name: m.state_dir for m in machines}
        for name in folders:
            coordinator.run(on_node(f"{name}.main.0", name))
        for name, folder in folders.items():
            await coordinator.status(f"{name}.main.0", RUNNING)
            task = await process_of(f"{name}.main.0")
            # Its runner is a worker of that machine's raylet, by the processes above it.
            of_machine = [machine.raylet() for machine in machines if machine.state_dir == folder]
            [raylet] = of_machine or [agent_raylet(agent)]
            assert raylet.pid in [parent.pid for parent in task.parents()]

            # It runs once it is started; what it writes comes when it has written it.
            said, read_ids = b"", itertools.count(100 * int(name[1:]))
            async with asyncio.timeout(60):
                while not said:
                    chunks = await coordinator.logs(f"{name}.main.0", read_id=next(read_ids))
                    said = b"".join(chunk.data for chunk in chunks)
            assert said == f"{folder}\n".encode()

        # The machine dies at once: raylet, keeper and all workers, but for the task itself.
        lost = machines[1]
        orphan = await process_of("n3.main.0")
        for process in (psutil.Process(lost.running.process.pid), lost.raylet()):
            process.send_signal(signal.SIGKILL)
        await coordinator.until(lambda: "gz-test/n3" not in reported(coordinator))
        await coordinator.status("n3.main.0", CANCELLED)
        ended = coordinator.statuses("n3.main.0")[-1]
        assert ended.node_lost
        assert "node gz-test/n3 has left the site" in ended.message
        assert coordinator.statuses("n2.main.0")[-1].state == RUNNING
        process_tree.send([orphan], signal.SIGKILL)

        # Asked to stop, a keeper ends its tasks, and they are lost as well.
        machines[0].running.process.terminate()
        await coordinator.status("n2.main.0", CANCELLED)
        await asyncio.to_thread(machines[0].running.process.wait, 60)
        assert process_tree.all_members(machines[0].state_dir) == []
    finally:
        for machine in machines:
            machine.running.sweep()
        assert await agent.stop() == 0
        agent.running.sweep()
        await coordinator.stop()


async def test_on_a_site_of_two_machines_whatever_is_killed_is_taken_up_and_nothing_runs_twice(
    tmp_path: Path,
) -> None:
    """A task, the worker that runs it, the agent, and at last the other machine's raylet."""
    port = free_port()
    coordinator = ScriptedCoordinator()
    await coordinator.start(port)
    agent = Agent(tmp_path, port)
    head = with_ray_port(agent)
    machine = None
    try:
        await agent.start()
        # A name does as well as an address.
        named = head.replace("127.0.0.1", "localhost")
        machine = Machine("n2", tmp_path, named, agent.state_dir / "ray.token")
        await coordinator.until(lambda: "gz-test/n2" in reported(coordinator))
        run = on_node("far.main.0", "n2")
        run.task_group.max_restarts = 2
        coordinator.run(run)
        await coordinator.status("far.main.0", RUNNING)
        task = await process_of("far.main.0")
        start = coordinator.statuses("far.main.0")[-1].start_time.ToNanoseconds()

        task.kill()
        task = await restarted(coordinator, 1, task)
        worker = task.parent()
        assert worker is not None
        worker.kill()
        task = await restarted(coordinator, 2, task)
        assert machine.raylet().pid in [parent.pid for parent in task.parents()]

        # An agent that is killed finds what runs on the other machine again.
        epoch = coordinator.reports[-1].agent_epoch
        agent.running.kill()
        coordinator.wanted = [run]
        await agent.start()
        await coordinator.until(lambda: coordinator.reports[-1].agent_epoch > epoch or None)
        await coordinator.until(lambda: "gz-test/n2" in reported(coordinator))
        assert [each.pid for each in process_tree.members("far.main.0", 1)] == [task.pid]
        assert coordinator.statuses("far.main.0")[-1].start_time.ToNanoseconds() == start

        # Without its raylet a machine is none: its keeper ends the task and itself.
        machine.raylet().kill()
        await coordinator.status("far.main.0", CANCELLED)
        ended = coordinator.statuses("far.main.0")[-1]
        assert ended.node_lost
        assert ended.start_time.ToNanoseconds() == start, "its receipt is of all that it ran"
        await asyncio.to_thread(machine.running.process.wait, 60)
        assert process_tree.all_members(machine.state_dir) == []
    finally:
        if machine is not None:
            machine.running.sweep()
        assert await agent.stop() == 0
        agent.running.sweep()
        await coordinator.stop()


def reported(coordinator: ScriptedCoordinator) -> dict[str, Node]:
    """The nodes as the agent has told of them: all at first, then what is new."""
    nodes: dict[str, Node] = {}
    for report in coordinator.reports:
        if report.HasField("hello"):
            nodes = {node.id: node for node in report.hello.nodes}
        nodes |= {node.id: node for node in report.nodes_change.nodes}
        for node_id in report.nodes_change.removed_node_ids:
            nodes.pop(node_id, None)
    return nodes


async def restarted(coordinator: ScriptedCoordinator, count: int, before: psutil.Process) -> psutil.Process:
    """The task's process once it was started again so often."""

    def is_up() -> bool:
        status = coordinator.statuses("far.main.0")[-1]
        return status.restart_count == count and status.state == RUNNING

    await coordinator.until(is_up)
    task = await process_of("far.main.0")
    assert task.pid != before.pid
    return task


def agent_raylet(agent: Agent) -> psutil.Process:
    """The raylet of the agent's own machine."""
    raylet = the_process(agent.ray_processes(), "raylet")
    assert raylet is not None
    return raylet
