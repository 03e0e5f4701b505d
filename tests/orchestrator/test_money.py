"""Money on a real coordinator and a real etcd, as users see it: never below zero, accounts that add up."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
from collections.abc import AsyncIterator
from datetime import date
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from mumian.api.v1 import fleet_pb2, job_pb2
from mumian.api.v1.job_pb2 import JobSpec
from mumian_orchestrator.main.free_ports import free_port

from tests.orchestrator.conftest import Coordinator
from tests.orchestrator.scripted_agent import ScriptedAgent
from tests.orchestrator.tenant import Tenant, spec_of
from tests.processes import SCRIPTS, Running

pytestmark = pytest.mark.etcd

CNY = 10**6
HOUR_MS = 3_600_000


def always() -> dict[str, date]:
    """Dates of their own: YAML makes an alias of what is there twice, and no document may have one."""
    return {"from": date(2000, 1, 1), "until": date(2099, 12, 31)}


VOUCHERS = {
    "kind": "vouchers",
    "policies": [
        {
            "id": "any",
            **always(),
            "pool_cny_per_year": 100,
            "enterprise_cny_per_year": 3,
            "accelerators_only": False,
            "shares": [{"percent": 30}],
        }
    ],
}
REGISTRY = {"kind": "registry", "enterprises": [{"id": "acme", "sector": "ai"}], "operators": [{"id": "op"}]}
OFFERS = {
    "kind": "offers",
    "operator": "op",
    "prices": [
        {"what": "cpu", "cny_per_hour": 60, **always()},
        {"what": "memory", "cny_per_hour": 0, **always()},
    ],
}
# The words of the city's report.
AMOUNTS = {
    "rent_microcny": "rent",
    "energy_microcny": "energy",
    "carbon_microcny": "carbon",
    "egress_microcny": "egress",
    "forgone_microcny": "borne by operators",
    "voucher_microcny": "paid by vouchers",
    "tenant_microcny": "paid by tenants",
}


class User:
    """Somebody of tenant acme at a terminal."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator

    async def __call__(self, *argv: str, code: int = 0) -> str:
        """What a command prints, both streams."""
        address = ("--coordinator", self._coordinator.address, "--tenant", "acme")
        return await self._run(str(SCRIPTS / "mumian"), *address, *argv, code=code)

    async def ask(self, *argv: str) -> Any:
        """A command's JSON."""
        return json.loads(await self(*argv, "-o", "json"))

    async def verify(self) -> str:
        """What the check of the ledger finds; it fails if the ledger is not whole."""
        argv = ("ledger", "verify", "--config", str(self._coordinator.config))
        return await self._run(str(SCRIPTS / "mumian-coordinator"), *argv, code=0)

    async def _run(self, *argv: str, code: int) -> str:
        run = await asyncio.to_thread(subprocess.run, argv, capture_output=True, text=True, timeout=60)
        assert run.returncode == code, f"{argv} ended with {run.returncode}:\n{run.stdout}\n{run.stderr}"
        return run.stdout + run.stderr


def published(folder: Path, document: dict[str, Any]) -> str:
    """A file with a document."""
    file = folder / f"{document['kind']}.yaml"
    file.write_text(yaml.safe_dump(document))
    return str(file)


@contextlib.asynccontextmanager
async def real_agent(folder: Path, coordinator: Coordinator) -> AsyncIterator[None]:
    """The agent of a site whose energy is dear."""
    facts = {"id": "real", "operator_id": "op", "tier": "edge", "jurisdiction": "CN-GD-GZ"}
    site = {
        "site": {**facts, "pue": {"average": 1.25}, "prices": {"energy_kwh_cny": 700}},
        "coordinator": coordinator.address,
        "state_dir": str(folder / "state"),
        "node": {"cpu_limit": 2, "memory_limit_mib": 2048},
        "reflector": {"listen": f"127.0.0.1:{free_port()}"},
        "stop_grace_ms": 1000,
    }
    config = folder / "site.yaml"
    config.write_text(yaml.safe_dump(site))
    running = Running([str(SCRIPTS / "mumian-agent"), "run", "--config", str(config)], folder, "agent")
    try:
        await asyncio.to_thread(running.wait_ready)
        yield
        await asyncio.to_thread(running.stop)
    finally:
        running.sweep()


def hour(name: str) -> JobSpec:
    """A task of one core that may run for an hour."""
    spec = spec_of(name)
    spec.task_groups[0].time_limit_ms = HOUR_MS
    return spec


async def until_placed(tenant: Tenant, job_ids: list[str], count: int) -> list[str]:
    """Those of the jobs that have a place, once there are so many."""
    async with asyncio.timeout(60):
        while True:
            jobs = [await tenant.get(job_id) for job_id in job_ids]
            placed = [job.id for job in jobs if job.allocations]
            if len(placed) >= count:
                return placed
            await asyncio.sleep(0.2)


async def test_200_racing_submits_and_a_killed_leader_never_overspend_a_budget(
    tmp_path: Path, coordinator: Coordinator
) -> None:
    user = User(coordinator)
    whole = -(-CNY * (HOUR_MS + 10_000) // HOUR_MS)
    priced = fleet_pb2.Site(prices=fleet_pb2.Prices(cpu_core_hour_microcny=CNY))
    async with coordinator.channel() as channel:
        agent = ScriptedAgent(channel, cpu_milli=400_000, site=priced)
        await agent.connect()
        await user("budget", "set", "acme", "--month", f"{50.5 * whole / CNY:.6f}")
        tenant = Tenant(channel)
        racing = [asyncio.create_task(tenant.create(hour("race"), f"r{n}")) for n in range(200)]
        await asyncio.wait(racing, return_when=asyncio.FIRST_COMPLETED)
        coordinator.running.kill()
        await asyncio.gather(*racing, return_exceptions=True)
        await agent.disconnect()
    coordinator.start()
    async with coordinator.channel() as channel:
        agent = ScriptedAgent(channel, cpu_milli=400_000, site=priced, epoch=2)
        await agent.connect()
        tenant = Tenant(channel)
        jobs = await asyncio.gather(*(tenant.create(hour("race"), f"r{n}") for n in range(200)))
        assert len({job.id for job in jobs}) == 200
        await until_placed(tenant, [job.id for job in jobs], 50)
        file = tmp_path / "one-more.yaml"
        file.write_text('{command: ["true"], resources: {cpu: 1}, time_limit: 1h}')
        told = await user("plan", str(file), code=1)
        assert "NO_MONEY" in told
        assert "mumian budget set acme --month" in told
        assert len(await until_placed(tenant, [job.id for job in jobs], 50)) == 50
        [fund] = [each for each in (await user.ask("budget", "show"))["funds"] if "-" in each["period"]]
        assert int(fund["reserved_microcny"]) == 50 * whole
        assert int(fund["available_microcny"]) == int(fund["granted_microcny"]) - 50 * whole
        await agent.disconnect()
    assert "the ledger is whole" in await user.verify()


@pytest.mark.ray
@pytest.mark.e2e
async def test_receipts_statements_and_the_citys_report_are_the_same_and_are_what_was_metered(
    tmp_path: Path, coordinator: Coordinator, channel: grpc.aio.Channel
) -> None:
    user = User(coordinator)
    await user("documents", "apply", *(published(tmp_path, each) for each in (VOUCHERS, REGISTRY, OFFERS)))
    await user("budget", "set", "acme", "--month", "100", "--year", "1000")
    tenant = Tenant(channel)
    jobs = []
    async with real_agent(tmp_path, coordinator):
        for seconds in (1, 3):
            spec = spec_of(f"busy-{seconds}", contract="C-1")
            busy = f"import time; end = time.time() + {seconds}\nwhile time.time() < end: pass"
            spec.task_groups[0].command.argv[:] = ["python3", "-c", busy]
            job = await tenant.create(spec)
            jobs.append(await tenant.until(job.id, job_pb2.JOB_STATE_SUCCEEDED))
    allocations = [allocation for job in jobs for allocation in job.allocations]
    paid = {part: sum(getattr(a.receipt, part) for a in allocations) for part in AMOUNTS}
    # What the agent has metered of each task, and nothing else, is what the receipts are made of.
    for allocation in allocations:
        receipt = allocation.receipt
        held_ms = allocation.end_time.ToMilliseconds() - allocation.start_time.ToMilliseconds()
        assert receipt.it_energy_uj == allocation.it_energy_uj > 0
        assert abs(receipt.rent_microcny - 60 * CNY * held_ms // HOUR_MS) <= 60 * CNY // HOUR_MS
        assert receipt.energy_microcny == receipt.facility_energy_uj * 700 * CNY // (3600 * 10**9)
        assert receipt.voucher_microcny == receipt.rent_microcny * 300 // 1000
    statement, of_operator = await user.ask("statement"), await user.ask("statement", "--operator", "op")
    lines = (await user.ask("city", "report"))["csv"].splitlines()
    report = {tuple(line.split(",")[:3]): line.split(",")[3] for line in lines[1:]}
    for part, word in AMOUNTS.items():
        assert int(statement["total"][part]) == int(of_operator["total"][part]) == paid[part]
        assert report["money", "all", word] == f"{paid[part] / CNY:.6f}"
    kwh = sum(allocation.it_energy_uj for allocation in allocations) / 3.6e12
    assert report["compute", "real", "IT energy"] == f"{kwh:.6f}"
    assert report["compute of all sites", "all", "IT energy"] == f"{kwh:.6f}"
    funds = [*(await user.ask("budget", "show"))["funds"], *(await user.ask("voucher", "funds"))["funds"]]
    spent = [int(fund["spent_microcny"]) for fund in funds]
    assert spent == [paid["tenant_microcny"]] * 2 + [paid["voucher_microcny"]] * 2
    assert {int(fund["reserved_microcny"]) for fund in funds} == {0}
    assert "receipts 2" in await user.verify()


@pytest.mark.ray
@pytest.mark.e2e
async def test_a_site_ends_by_itself_what_is_no_longer_paid_for_and_it_goes_on_once_there_is_money(
    tmp_path: Path, etcd_endpoint: str
) -> None:
    window_s = 6
    coordinator = Coordinator(tmp_path, etcd_endpoint, budget_window_ms=window_s * 1000)
    user = User(coordinator)
    await user("documents", "apply", published(tmp_path, OFFERS))
    async with coordinator.channel() as channel, real_agent(tmp_path, coordinator):
        tenant = Tenant(channel)
        spec = spec_of("stays", kind=job_pb2.JOB_KIND_SERVICE)
        spec.task_groups[0].command.argv[:] = ["sleep", "1000"]
        # Two windows of a core, at CNY 0.1 and what its energy may be, and not a third one.
        one_window = await user.ask("plan", _file(tmp_path))
        microcny = int(one_window["quote"]["tenant_microcny_per_hour"]) * window_s // 3600
        await user("budget", "set", "acme", "--month", f"{2.5 * microcny / CNY:.6f}")
        job = await tenant.create(spec)
        stopped = await tenant.watch(job.id, lambda job: any(a.receipt.held_ms for a in job.allocations))
        [ended] = stopped.allocations
        assert "its budget pays for" in ended.state_message
        assert window_s * 1000 < ended.receipt.held_ms <= 2 * window_s * 1000
        assert 0 < ended.receipt.tenant_microcny <= 2 * microcny
        waits = await tenant.watch(job.id, lambda job: job.HasField("shortage"))
        assert waits.state == job_pb2.JOB_STATE_PENDING
        told = await user("status", job.id)
        assert "1 task waits for money" in told
        assert "mumian budget set acme --month" in told
        await user("budget", "set", "acme", "--month", "1000")
        await tenant.until(job.id, job_pb2.JOB_STATE_RUNNING)
        await tenant.cancel(job.id)
        await tenant.until(job.id, job_pb2.JOB_STATE_CANCELLED)
        assert "receipts 2" in await user.verify()
    coordinator.running.sweep()


def _file(folder: Path) -> str:
    file = folder / "stays.yaml"
    file.write_text('{kind: service, command: ["sleep", "1000"], resources: {cpu: 1, memory: 256MiB}}')
    return str(file)
