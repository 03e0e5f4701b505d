"""`mumian-coordinator`: waits for leadership, leads, and starts over when a term ends."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from pathlib import Path

import click

from mumian_orchestrator.adapters.clock import SystemClock
from mumian_orchestrator.adapters.core.engine import CoreEngine
from mumian_orchestrator.adapters.etcd.client import EtcdClient
from mumian_orchestrator.adapters.etcd.key_value import EtcdKeyValue
from mumian_orchestrator.adapters.grpc.agent_service import AgentService
from mumian_orchestrator.adapters.grpc.fleet_service import FleetService
from mumian_orchestrator.adapters.grpc.job_service import JobService
from mumian_orchestrator.adapters.grpc.planning_service import PlanningService
from mumian_orchestrator.adapters.grpc.server import PortTakenError, start_server
from mumian_orchestrator.main.composition import compose, first_of
from mumian_orchestrator.main.config import (
    Config,
    ConfigError,
    etcd_credentials,
    host_and_port,
    is_loopback,
    load,
)
from mumian_orchestrator.ports.key_value import KeyValue
from mumian_orchestrator.ports.store import SupersededError
from mumian_orchestrator.services.leadership import Term, campaign
from mumian_orchestrator.services.store.fenced import FencedStore

log = logging.getLogger(__name__)

_SHUTDOWN_GRACE_S = 1.0


async def run(config: Config) -> None:
    """Campaign and lead, again and again, until a signal says stop."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    client = EtcdClient(config.etcd, etcd_credentials(config))
    kv = EtcdKeyValue(client)
    name = f"{socket.gethostname()}/{os.getpid()} on {config.listen}"
    try:
        while not stop.is_set():
            candidate = asyncio.create_task(
                campaign(kv, f"{config.key_prefix}leader", name, config.lease_ttl_s)
            )
            await first_of(candidate, stop.wait())
            if candidate.cancelled():
                return
            term = candidate.result()
            try:
                await _lead(config, kv, term, stop)
            finally:
                await term.resign()
    finally:
        await client.close()


async def _lead(config: Config, kv: KeyValue, term: Term, stop: asyncio.Event) -> None:
    """Serve until the term ends or a signal says stop. Everything in memory lives as long as the term."""
    store = FencedStore(kv, config.key_prefix, term)
    services = compose(config, term.number, store, CoreEngine(config.policy), SystemClock())
    services.load((await store.load()).entries)
    server = await start_server(
        config.listen,
        JobService(services.admission),
        FleetService(services.fleet),
        PlanningService(services.reoptimisation, services.what_if, config.search_limits),
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


@click.command()
@click.option("--config", "path", type=click.Path(path_type=Path), required=True, help="YAML file.")
@click.option("--insecure-no-tls", is_flag=True, help="Listen beyond this machine without TLS.")
def main(path: Path, insecure_no_tls: bool) -> None:
    """Run a coordinator: tenants, ops and agents talk to it on one port."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    try:
        config = load(path)
        host, _ = host_and_port("listen", config.listen)
        if not is_loopback(host) and not insecure_no_tls:
            raise ConfigError(
                f"listen ({config.listen}) can be reached from other machines, and TLS is not there yet; "
                "listen on 127.0.0.1, or add --insecure-no-tls on a network that you trust"
            )
        asyncio.run(run(config))
    except (ConfigError, PortTakenError) as error:
        print(f"mumian-coordinator: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
