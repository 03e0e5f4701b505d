"""A leader's real services on a cluster in memory, for one term."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mumian_orchestrator.adapters.core.engine import CoreEngine
from mumian_orchestrator.adapters.memory.key_value import MemoryCluster, MemoryKeyValue
from mumian_orchestrator.adapters.memory.virtual_time import VirtualClock
from mumian_orchestrator.domain.job_events import replay, without
from mumian_orchestrator.main.composition import Services, compose
from mumian_orchestrator.main.config import Config
from mumian_orchestrator.ports.clock import Clock
from mumian_orchestrator.ports.engine import Engine
from mumian_orchestrator.ports.log_files import LogFiles
from mumian_orchestrator.ports.secret_box import SecretBox
from mumian_orchestrator.services.leadership import campaign
from mumian_orchestrator.services.store.fenced import FencedStore

KEY_PREFIX = Config().key_prefix


@asynccontextmanager
async def leading(
    cluster: MemoryCluster,
    config: Config | None = None,
    engine: Engine | None = None,
    secret_box: SecretBox | None = None,
    log_files: LogFiles | None = None,
    clock: Clock | None = None,
) -> AsyncIterator[Services]:
    """A leader's services at work."""
    kv, config = MemoryKeyValue(cluster), config or Config()
    term = await campaign(kv, f"{KEY_PREFIX}leader", "test", config.lease_ttl_s)
    store = FencedStore(kv, KEY_PREFIX, term)
    engine = engine or CoreEngine(config.policy)
    services = compose(
        *(config, term.number, store, engine, clock or VirtualClock()),
        secret_box=secret_box,
        log_files=log_files,
    )
    services.load((await store.load()).entries)
    running = asyncio.create_task(services.run())
    try:
        yield services
    finally:
        running.cancel()
        await asyncio.wait({running})
        await term.resign()


async def replayed_jobs_are_the_stored_ones(cluster: MemoryCluster, tenant_id: str = "acme") -> None:
    """Check that every job's events make the job that a new leader finds."""
    async with leading(cluster) as services:
        for job in services.admission.list(tenant_id, []):
            events = await services.admission.events(tenant_id, job.id)
            assert replay(events) == without(job, "explanations")
