"""What money costs a submit: `python -m bench.money`.

A real coordinator on a real etcd, and a scripted site that takes everything. Two tenants take turns: one
without budget, vouchers and quota, and one with all three, so that each of its tasks is quoted, held against
its quota, reserved in the budgets of month and year and in the vouchers' pool and share, and entered in the
ledger. Jobs come one after the other (ms until each is durable), then many at once (jobs a second, and the
coordinator's processor time for each, its placement included). Every job has to be placed.
"""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import click
import mumian
from mumian.api.v1.fleet_pb2 import Site

from bench.report import Report
from bench.security import Door, cpu_ms_of, submitted_by
from bench.store import private_etcd
from tests.orchestrator.conftest import Coordinator
from tests.orchestrator.scripted_agent import ScriptedAgent

_CNY = 1_000_000
_TENANTS = ("free", "paying")
_SHARES = {"tenants": {"paying": {"quota": {"tasks": 1_000_000, "cpu": 1_000_000}}}}
_DOCUMENTS = (
    "kind: registry\nenterprises: [{id: paying, sector: ai}]\noperators: [{id: op}]",
    "kind: vouchers\npolicies: [{id: city, from: 2020-01-01, until: 2099-12-31, accelerators_only: false, "
    "pool_cny_per_year: 100_000_000, enterprise_cny_per_year: 3_000_000, shares: [{percent: 30}]}]",
)


@contextmanager
def _site(coordinator: Coordinator) -> Iterator[None]:
    """A site with room for all, until the end; on a thread, because the submits are waited for."""
    stop, ready = threading.Event(), threading.Event()

    async def serve() -> None:
        prices = Site()
        prices.prices.cpu_core_hour_microcny = 100_000
        async with coordinator.channel() as channel:
            agent = ScriptedAgent(channel, cpu_milli=1_000_000_000, site=prices, memory_mib=100_000_000)
            await agent.connect()
            ready.set()
            await asyncio.to_thread(stop.wait)
            await agent.disconnect()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    ready.wait(60)
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _prepare(address: str) -> None:
    with mumian.Client(address) as client:
        client.set_budget("paying", month_microcny=10_000_000 * _CNY, year_microcny=100_000_000 * _CNY)
        for text in _DOCUMENTS:
            client.apply_money_document(text)


def _placed(address: str, tenant: str, job_ids: list[str]) -> None:
    """All that were acknowledged have a place; the last ones may still be looked at."""
    with mumian.Client(address, tenant=tenant) as client:
        for job_id in job_ids[-1:] + job_ids[:1]:
            seen = next(seen for seen in client.watch(job_id, timeout_s=60) if seen.allocations)
            [hold] = seen.allocations[0].funding.holds
            assert hold.month_budget == hold.year_budget == (tenant == "paying"), seen


@click.command()
@click.option("--seconds", type=click.FloatRange(0.5, 60), default=2.0, show_default=True, help="Of a turn.")
@click.option("--turns", type=click.IntRange(1, 20), default=3, show_default=True, help="Of each.")
@click.option("--at-once", type=click.IntRange(1, 1000), default=64, show_default=True)
def main(seconds: float, turns: int, at_once: int) -> None:
    """Submits a second and ms a submit, without and with budget, vouchers and quota; and their ratio."""
    report = Report("money")
    rates: dict[str, list[float]] = {name: [] for name in _TENANTS}
    singles: dict[str, list[float]] = {name: [] for name in _TENANTS}
    cpu_ms: dict[str, list[float]] = {name: [] for name in _TENANTS}
    with tempfile.TemporaryDirectory() as folder, private_etcd() as endpoint:
        coordinator = Coordinator(Path(folder), endpoint, unreachable_after_ms=600_000, shares=_SHARES)
        try:
            _prepare(coordinator.address)
            with _site(coordinator):
                for turn in range(turns + 1):
                    for name in _TENANTS:
                        door = Door(coordinator.address, b"", (("mumian-tenant", name),))
                        one, begun_ms = submitted_by(door, 1, seconds), cpu_ms_of(coordinator)
                        many = submitted_by(door, at_once, seconds)
                        _placed(coordinator.address, name, many.ids)
                        used_ms = cpu_ms_of(coordinator) - begun_ms
                        if turn:  # the first turn warms up
                            singles[name] += one.took_ms
                            rates[name].append(len(many.ids) / seconds)
                            cpu_ms[name].append(used_ms / len(many.ids))
        finally:
            coordinator.running.sweep()
    for name in _TENANTS:
        report.line(f"submits_{name}", rates[name], "jobs/s")
        report.line(f"submit_{name}_p50", median(singles[name]), "ms")
        report.line(f"submit_{name}_cpu", cpu_ms[name], "ms")
    for figure, values in (("submits", rates), ("submit_cpu", cpu_ms)):
        pairs = zip(values["paying"], values["free"], strict=True)
        report.line(f"{figure}_paying_of_free", [paying / free for paying, free in pairs], "ratio")
    report.write({"seconds": seconds, "turns": turns, "at_once": at_once})


if __name__ == "__main__":
    main()
