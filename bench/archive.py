"""Memory when many jobs have ended, with old ones put away and without: `python -m bench.archive`.

A leader's real services on a real etcd, in a process of their own; a tenant and a site in the same process,
so that no network takes part. Every job has one task, which is placed and ends. The memory is what the
process has beyond what it had after the first jobs, by which everything is warm. At the end another leader
takes over, and pages through all jobs that there ever were.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import time
from typing import Any

import click
import psutil
from mumian.agent.v1.agent_pb2 import AgentReport, AllocationStatus, CoordinatorCommand, Hello
from mumian.api.v1 import fleet_pb2, job_pb2
from mumian_orchestrator.adapters.clock import SystemClock
from mumian_orchestrator.adapters.core.engine import CoreEngine
from mumian_orchestrator.adapters.etcd.client import EtcdClient
from mumian_orchestrator.adapters.etcd.key_value import EtcdKeyValue
from mumian_orchestrator.main.composition import Services, compose
from mumian_orchestrator.main.config import Config
from mumian_orchestrator.services.leadership import campaign, leader_key
from mumian_orchestrator.services.store.fenced import FencedStore

from bench.report import Report
from bench.store import private_etcd
from tests.memory.site import status_of
from tests.orchestrator.tenant import spec_of

_WARM_JOBS, _AT_ONCE = 2000, 200
_SUCCEEDED = job_pb2.ALLOCATION_STATE_SUCCEEDED


class _Leader:
    """Services for one term."""

    def __init__(self, endpoint: str, config: Config) -> None:
        self._client, self._config = EtcdClient([endpoint]), config

    async def __aenter__(self) -> Services:
        kv, config = EtcdKeyValue(self._client), self._config
        self._term = await campaign(kv, leader_key(config.key_prefix), "bench", 60)
        store = FencedStore(kv, config.key_prefix, self._term)
        services = compose(config, self._term.number, store, CoreEngine(config.policy), SystemClock())
        services.load((await store.load()).entries)
        self._running = asyncio.create_task(services.run())
        return services

    async def __aexit__(self, *error: object) -> None:
        self._running.cancel()
        await asyncio.wait({self._running})
        await self._term.resign()
        await self._client.close()


class _Site:
    """An agent that ends every task as soon as it is told to run it."""

    commands_waiting = 0

    def __init__(self, services: Services) -> None:
        self._services, self._sequence = services, 1

    async def connect(self) -> None:
        """Say hello."""
        site = fleet_pb2.Site(id="gz", operator_id="op", jurisdiction="CN-GD-GZ")
        site.pue.average_permille = site.pue.marginal_permille = 1250
        node = fleet_pb2.Node(id="gz/n1", site_id="gz", arch="x86_64", health=fleet_pb2.HEALTH_READY)
        node.cpu_milli, node.memory_mib = 2**30, 2**30
        hello = Hello(site=site, agent_time=SystemClock().now(), nodes=[node])
        self._session = await self._services.sessions.open(hello, 1, self)
        self._services.reports.hello(self._session, hello)

    def send(self, command: CoordinatorCommand) -> None:
        """What it is told."""
        if command.HasField("run"):
            ended = status_of(command.run.allocation.id, _SUCCEEDED, exit_code=0)
            asyncio.get_running_loop().call_soon(self._tell, ended)

    def close(self, reason: str) -> None:
        """The coordinator has ended the stream."""
        raise AssertionError(reason)

    def _tell(self, status: AllocationStatus) -> None:
        self._sequence += 1
        report = AgentReport(agent_epoch=1, sequence=self._sequence, allocation_status=status)
        if self._services.sessions.is_current(self._session, report):
            self._services.reports.take(self._session, report)


async def _end_jobs(services: Services, numbers: range) -> None:
    """So many jobs, each from its submission to its end."""
    for start in range(numbers.start, numbers.stop, _AT_ONCE):
        part = range(start, min(start + _AT_ONCE, numbers.stop))
        await asyncio.gather(
            *(services.admission.create("acme", f"r{n}", spec_of(cpu_milli=1)) for n in part)
        )
        while services.table.ended_count + services.archive.count < part.stop:  # noqa: ASYNC110 -- it is a benchmark
            await asyncio.sleep(0.01)


def _rss_mib() -> float:
    gc.collect()
    return float(psutil.Process().memory_info().rss / 2**20)


async def _measure(endpoint: str, jobs: int, after_s: int, pipe: Any) -> None:
    figures: dict[str, float] = {}
    config = Config(key_prefix=f"/archive-{after_s}/", archive_after_s=after_s, unreachable_after_ms=10**9)
    async with _Leader(endpoint, config) as services:
        await _Site(services).connect()
        await _end_jobs(services, range(_WARM_JOBS))
        begun_mib, begun_s = _rss_mib(), time.monotonic()
        await _end_jobs(services, range(_WARM_JOBS, jobs))
        figures["s"] = time.monotonic() - begun_s
        while services.table.ended_count and after_s < 3600:  # noqa: ASYNC110 -- it is a benchmark
            await asyncio.sleep(1)
        figures["grown_mib"] = _rss_mib() - begun_mib
        figures["archived"] = services.archive.count
    begun_s = time.monotonic()
    async with _Leader(endpoint, config) as services:
        figures["takeover_s"] = time.monotonic() - begun_s
        found, after = 0, ""
        begun_s = time.monotonic()
        while True:
            page, after = await services.admission.page_of_all("acme", (), after, 500)
            found += len(page)
            if not after:
                break
        figures["listed_s"] = time.monotonic() - begun_s
    assert found == jobs, f"{jobs} jobs have ended, and {found} are listed"
    pipe.send(figures)


def _process(endpoint: str, jobs: int, after_s: int, pipe: Any) -> None:
    asyncio.run(_measure(endpoint, jobs, after_s, pipe))


@click.command()
@click.option("--jobs", type=click.IntRange(_WARM_JOBS + 1), default=100_000, show_default=True)
@click.option("--kept-jobs", type=click.IntRange(_WARM_JOBS + 1), default=20_000, show_default=True)
def main(jobs: int, kept_jobs: int) -> None:
    """Memory with ended jobs put away at once, and, for fewer jobs, with none."""
    report = Report("archive")
    context = multiprocessing.get_context("spawn")  # gRPC does not survive a fork
    for name, count, after_s in (("kept", kept_jobs, 86_400), ("put_away", jobs, 1)):
        with private_etcd() as endpoint:
            mine, theirs = context.Pipe()
            process = context.Process(target=_process, args=(endpoint, count, after_s, theirs), daemon=True)
            process.start()
            theirs.close()
            figures = mine.recv()
            process.join()
            report.line(f"archive_{name}_jobs", count, "jobs")
            report.line(f"archive_{name}_memory", figures["grown_mib"], "MiB")
            report.line(
                f"archive_{name}_memory_a_job", 2**20 * figures["grown_mib"] / (count - _WARM_JOBS), "bytes"
            )
            report.line(f"archive_{name}_takeover", figures["takeover_s"], "s")
            report.line(f"archive_{name}_listed_all", figures["listed_s"], "s")
            report.line(f"archive_{name}_jobs_a_second", (count - _WARM_JOBS) / figures["s"], "per_s")
            report.line(f"archive_{name}_store", _stored_mib(endpoint), "MiB")
    report.line("machine_load", os.getloadavg()[0], "processes")
    report.write({"jobs": jobs, "kept_jobs": kept_jobs})


def _stored_mib(endpoint: str) -> float:
    """Keys and values in etcd, as they are now."""

    async def ask() -> float:
        client = EtcdClient([endpoint])
        kv = EtcdKeyValue(client)
        total = 0
        async for page in kv.pages("/"):
            total += sum(len(entry.key) + len(entry.value) for entry in page.entries)
        await client.close()
        return total / 2**20

    return asyncio.run(ask())


if __name__ == "__main__":
    main()
