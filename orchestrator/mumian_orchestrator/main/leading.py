"""One term of a leader, from taking over what is stored to giving leadership back: real or simulated."""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from mumian_orchestrator.main.composition import Services, compose, first_of
from mumian_orchestrator.main.config import Config
from mumian_orchestrator.main.security import Security
from mumian_orchestrator.ports.bundle_store import BundleStore
from mumian_orchestrator.ports.clock import Clock
from mumian_orchestrator.ports.engine import Engine
from mumian_orchestrator.ports.key_value import KeyValue
from mumian_orchestrator.ports.log_files import LogFiles
from mumian_orchestrator.ports.secret_box import SecretBox
from mumian_orchestrator.ports.store import SupersededError
from mumian_orchestrator.ports.store_health import StoreHealth
from mumian_orchestrator.services.leadership import Term
from mumian_orchestrator.services.store.fenced import FencedStore

log = logging.getLogger(__name__)


class Doors(Protocol):
    """How tenants and agents reach the services."""

    async def open(self, services: Services) -> None:
        """Let them in."""

    async def close(self) -> None:
        """Let nobody in, and end the calls under way."""


async def lead(
    config: Config,
    kv: KeyValue,
    term: Term,
    engine: Engine,
    clock: Clock,
    doors: Doors,
    stop: asyncio.Event,
    health: StoreHealth | None = None,
    bundle_store: BundleStore | None = None,
    security: Security | None = None,
    secret_box: SecretBox | None = None,
    log_files: LogFiles | None = None,
) -> None:
    """Serve until the term ends or `stop` is set. Everything in memory lives as long as the term."""
    services: Services | None = None
    try:
        store = FencedStore(kv, config.key_prefix, term)
        services = compose(
            config,
            term.number,
            store,
            engine,
            clock,
            health,
            bundle_store=bundle_store,
            security=security,
            secret_box=secret_box,
            log_files=log_files,
        )
        services.load((await store.load()).entries)
        await doors.open(services)
        log.info("leading, term %d: %d jobs stored", term.number, len(list(services.table.jobs())))
        await first_of(services.run(), term.over.wait(), stop.wait())
    except SupersededError:
        log.error("another coordinator leads now; starting over")
    finally:
        await term.resign()  # before the calls under way have ended: who follows need not wait for them
        if services is not None:
            services.sessions.close_all("this coordinator leads no more")
        await doors.close()
