"""A real agent whose link goes silent: it stops by itself what it must, and goes on with all else."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import psutil
import pytest
import yaml
from mumian.api.v1 import fleet_pb2, job_pb2
from mumian.api.v1.job_pb2 import JobSpec, OnDisconnect
from mumian_orchestrator.main.free_ports import free_port

from tests.orchestrator.conftest import Coordinator
from tests.orchestrator.scripted_agent import ScriptedAgent
from tests.orchestrator.tenant import Tenant, spec_of
from tests.processes import SCRIPTS, Running

pytestmark = [pytest.mark.e2e, pytest.mark.etcd, pytest.mark.ray]

RUNNING = job_pb2.ALLOCATION_STATE_RUNNING
UNKNOWN, LOST = job_pb2.ALLOCATION_STATE_UNKNOWN, job_pb2.ALLOCATION_STATE_LOST
PROXY = Path(__file__).parents[2] / "examples/demo/delay_proxy.py"


class Link:
    """The way from an agent to its coordinator. Cut, it swallows everything and says nothing."""

    def __init__(self, folder: Path, coordinator: str) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        argv = [sys.executable, str(PROXY), f"tcp:{self.address}:{coordinator}:0"]
        self.running = Running(argv, folder, "link")
        self.running.wait_ready()

    def cut(self) -> None:
        self.running.process.send_signal(signal.SIGSTOP)

    def heal(self) -> None:
        self.running.process.send_signal(signal.SIGCONT)


@pytest.fixture
def link(tmp_path: Path, coordinator: Coordinator) -> Iterator[Link]:
    """The link of site real."""
    made = Link(tmp_path, coordinator.address)
    yield made
    made.heal()
    made.running.sweep()


@pytest.fixture
async def real(tmp_path: Path, link: Link) -> AsyncIterator[Running]:
    """The agent of site real, the cheaper one."""
    site = {
        "site": {
            "id": "real",
            "operator_id": "op",
            "tier": "edge",
            "jurisdiction": "CN-GD-GZ",
            "pue": {"average": 1.25},
        },
        "coordinator": link.address,
        "state_dir": str(tmp_path / "state"),
        "node": {"cpu_limit": 2, "memory_limit_mib": 2048},
        "reflector": {"listen": f"127.0.0.1:{free_port()}"},
        "stop_grace_ms": 1000,
    }
    config = tmp_path / "site.yaml"
    config.write_text(yaml.safe_dump(site))
    running = Running([str(SCRIPTS / "mumian-agent"), "run", "--config", str(config)], tmp_path, "agent")
    await asyncio.to_thread(running.wait_ready)
    yield running
    await asyncio.to_thread(running.stop)
    running.sweep()


def spec(name: str, mark: Path, contract: OnDisconnect, **job: bool) -> JobSpec:
    """A service that writes its pid down and stays."""
    made = spec_of(name, kind=job_pb2.JOB_KIND_SERVICE, on_disconnect=contract, **job)
    made.task_groups[0].command.argv[:] = ["sh", "-c", f"echo $$ >> {mark}; exec sleep 1000"]
    return made


async def test_a_site_that_is_cut_off_keeps_its_contracts(
    tmp_path: Path, coordinator: Coordinator, channel: grpc.aio.Channel, real: Running, link: Link
) -> None:
    tenant = Tenant(channel)
    once = await tenant.create(
        spec("once", tmp_path / "once", OnDisconnect(lost_after_s=5, stop_after_s=10), at_most_once=True)
    )
    stays = await tenant.create(spec("stays", tmp_path / "stays", OnDisconnect(lost_after_s=600)))
    for job in (once, stays):
        await tenant.until(job.id, job_pb2.JOB_STATE_RUNNING)
    pids = {name: int((tmp_path / name).read_text()) for name in ("once", "stays")}
    dearer = fleet_pb2.Site(prices=fleet_pb2.Prices(cpu_core_hour_microcny=10**6))
    other = ScriptedAgent(channel, "other", site=dearer)
    await other.connect()

    link.cut()
    await tenant.watch(once.id, lambda job: job.allocations[0].state == UNKNOWN)
    run = await other.run_of(once.id)
    assert not psutil.pid_exists(pids["once"]), "it had stopped before another was started"
    other.status(run.allocation.id, RUNNING)
    assert psutil.pid_exists(pids["stays"])

    link.heal()
    [kept] = (await tenant.watch(stays.id, lambda job: job.allocations[0].state == RUNNING)).allocations
    assert (kept.restart_count, (tmp_path / "stays").read_text()) == (0, f"{pids['stays']}\n")
    settled = await tenant.watch(once.id, lambda job: job.allocations[0].state not in (UNKNOWN, LOST))
    first, second = settled.allocations
    assert (first.state, first.superseded) == (job_pb2.ALLOCATION_STATE_CANCELLED, True)
    assert "cut off" in first.state_message
    assert (second.site_id, second.state) == ("other", RUNNING)
    assert (tmp_path / "once").read_text() == f"{pids['once']}\n"
    os.kill(pids["stays"], 0)
    await other.disconnect()
