"""Runs rounds: some load, a fault, the time until work goes on, and the oracle's verdict."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import mumian
from mumian_orchestrator.adapters.etcd.client import EtcdClient
from mumian_orchestrator.adapters.etcd.key_value import EtcdKeyValue

from tests.etcd_cluster import EtcdCluster
from tests.faults.coordinators import KEY_PREFIX, Coordinators
from tests.faults.load import Load
from tests.faults.platform import RealPlatform
from tests.faults.rounds import FAULTS, Scene
from tests.faults.site import Site
from tests.oracle.history import History
from tests.oracle.oracle import Oracle, Verdict

SITES = ("gz-a", "gz-b")
_PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one round."""

    fault: str
    seed: int
    recovery_s: float  # from the fault until a task runs whose job was submitted after it
    verdict: Verdict


class Suite:
    """A city under test: etcd, coordinators, sites."""

    def __init__(
        self, coordinators: Coordinators, oracle: Oracle, history: History, lease_ttl_s: int
    ) -> None:
        self._coordinators, self._oracle, self._history = coordinators, oracle, history
        self._lease_ttl_s = lease_ttl_s
        self._rounds = 0

    async def round(self, fault: str, seed: int) -> Outcome:
        """One round; the seed decides the moment and the load."""
        self._rounds += 1
        name, chance = f"r{self._rounds}", random.Random(seed)
        self._history.add("round", name=name, fault=fault, seed=seed)
        load = Load(name, self._coordinators.addresses, self._history, chance)
        scene = Scene(self._coordinators, load, self._history, chance, self._lease_ttl_s)
        running = asyncio.create_task(load.run())
        await asyncio.sleep(chance.uniform(0.2, 1.2))
        undo = await FAULTS[fault](scene)
        struck_s = time.monotonic()
        self._history.add("struck", fault=fault)
        await self._started(await load.probe())
        recovery_s = time.monotonic() - struck_s
        self._history.add("recovered", after_s=round(recovery_s, 3))
        await undo()
        await asyncio.sleep(0.5)
        await load.finish()
        await running
        verdict = await self._oracle.judge(name)
        self._history.add("judged", verdict=str(verdict))
        return Outcome(fault, seed, recovery_s, verdict)

    async def _started(self, job_id: str) -> None:
        seen = 0
        async with asyncio.timeout(_PATIENCE_S):
            while True:
                news = self._history.of("started")[seen:]
                if any(event["allocation"].startswith(f"{job_id}.") for event in news):
                    return
                seen += len(news)
                await asyncio.sleep(0.01)


@asynccontextmanager
async def suite(folder: Path, history: History, count: int, lease_ttl_s: int) -> AsyncIterator[Suite]:
    """Everything started; everything gone at the end."""
    (folder / "etcd").mkdir()
    with EtcdCluster(folder / "etcd") as cluster:
        etcd = EtcdClient(tuple(cluster.endpoints))
        kv = EtcdKeyValue(etcd)
        coordinators = Coordinators(folder, cluster.endpoints[0], kv, count, lease_ttl_s)
        addresses = coordinators.addresses
        sites = [Site(site_id, addresses, folder / site_id, history) for site_id in SITES]
        running = [asyncio.create_task(site.run()) for site in sites]
        try:
            for site in sites:
                await site.welcomed.wait()
            everybody = ",".join(addresses)
            async with (
                mumian.AsyncClient(everybody, timeout_s=_PATIENCE_S) as client,
                mumian.AsyncClient(everybody, tenant="stranger", timeout_s=_PATIENCE_S) as stranger,
            ):
                await client.set_budget("default", month_microcny=10**15)
                oracle = Oracle(history, RealPlatform(client, stranger, kv), KEY_PREFIX)
                yield Suite(coordinators, oracle, history, lease_ttl_s)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            coordinators.sweep()
            await etcd.close()
