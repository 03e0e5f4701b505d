"""The coordinator: waits for leadership, leads, and starts over when a term ends."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket

from mumian_orchestrator.adapters.clock import SystemClock
from mumian_orchestrator.adapters.core.engine import CoreEngine
from mumian_orchestrator.adapters.etcd.client import EtcdClient
from mumian_orchestrator.adapters.etcd.health import EtcdHealth
from mumian_orchestrator.adapters.etcd.key_value import EtcdKeyValue
from mumian_orchestrator.adapters.grpc.agent_service import AgentService
from mumian_orchestrator.adapters.grpc.fleet_service import FleetService
from mumian_orchestrator.adapters.grpc.job_service import JobService
from mumian_orchestrator.adapters.grpc.ops_service import OpsService
from mumian_orchestrator.adapters.grpc.planning_service import PlanningService
from mumian_orchestrator.adapters.grpc.server import start_server
from mumian_orchestrator.adapters.telemetry.exporter import Exporter
from mumian_orchestrator.main import metrics
from mumian_orchestrator.main.composition import compose, first_of
from mumian_orchestrator.main.config import Config, etcd_credentials, host_and_port
from mumian_orchestrator.ports.key_value import KeyValue
from mumian_orchestrator.ports.store import SupersededError
from mumian_orchestrator.ports.store_health import StoreHealth
from mumian_orchestrator.services.leadership import Term, campaign, leader_key
from mumian_orchestrator.services.loop_watch import LoopWatch
from mumian_orchestrator.services.store.fenced import FencedStore

log = logging.getLogger(__name__)

_SHUTDOWN_GRACE_S = 1.0


async def run(config: Config) -> None:
    """Campaign and lead, again and again, until a signal says stop."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    loop_watch, exporter = LoopWatch(), Exporter()
    watching = asyncio.create_task(loop_watch.run())
    exporter.figures = metrics.of_the_process(loop_watch)
    stop_metrics = exporter.listen(*host_and_port("metrics", config.metrics)) if config.metrics else None
    credentials = etcd_credentials(config)
    client = EtcdClient(config.etcd, credentials)
    kv, health = EtcdKeyValue(client), EtcdHealth(client, credentials)
    name = f"{socket.gethostname()}/{os.getpid()} on {config.listen}"
    try:
        while not stop.is_set():
            candidate = asyncio.create_task(
                campaign(kv, leader_key(config.key_prefix), name, config.lease_ttl_s)
            )
            await first_of(candidate, stop.wait())
            if candidate.cancelled():
                return
            term = candidate.result()
            try:
                await _lead(config, kv, health, term, stop, exporter)
            finally:
                exporter.figures = metrics.of_the_process(loop_watch)
                await term.resign()
    finally:
        await client.close()
        watching.cancel()
        if stop_metrics is not None:
            stop_metrics()


async def _lead(
    config: Config, kv: KeyValue, health: StoreHealth, term: Term, stop: asyncio.Event, exporter: Exporter
) -> None:
    """Serve until the term ends or a signal says stop. Everything in memory lives as long as the term."""
    store = FencedStore(kv, config.key_prefix, term)
    services = compose(config, term.number, store, CoreEngine(config.policy), SystemClock(), health)
    services.load((await store.load()).entries)
    exporter.figures = [*exporter.figures, *metrics.of_the_leader(services)]
    server = await start_server(
        config.listen,
        JobService(services.admission),
        FleetService(services.fleet, services.disconnections),
        PlanningService(services.reoptimisation, services.what_if, config.search_limits),
        OpsService(services.diagnosis),
        AgentService(services.sessions, services.reports),
    )
    log.info("leading, term %d: %d jobs stored", term.number, len(list(services.table.jobs())))
    print(f"ready: coordinator on {config.listen}", flush=True)
    try:
        await first_of(services.run(), term.over.wait(), stop.wait())
    except SupersededError:
        log.error("another coordinator leads now; starting over")
    finally:
        await server.stop(_SHUTDOWN_GRACE_S)
