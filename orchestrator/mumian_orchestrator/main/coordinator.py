"""`mumian-coordinator`: waits for leadership, leads, and starts over when a term ends."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import click

from mumian_orchestrator.adapters.clock import SystemClock
from mumian_orchestrator.adapters.core.engine import CoreEngine
from mumian_orchestrator.adapters.etcd.client import EtcdClient
from mumian_orchestrator.adapters.etcd.leadership import Term, campaign
from mumian_orchestrator.adapters.etcd.store import EtcdStore
from mumian_orchestrator.adapters.grpc.agent_service import AgentService
from mumian_orchestrator.adapters.grpc.fleet_service import FleetService
from mumian_orchestrator.adapters.grpc.job_service import JobService
from mumian_orchestrator.adapters.grpc.server import PortTakenError, start_server
from mumian_orchestrator.main.config import Config, ConfigError, host_and_port, is_loopback, load
from mumian_orchestrator.ports.store import SupersededError
from mumian_orchestrator.services.admission import Admission
from mumian_orchestrator.services.agent_reports import AgentReports
from mumian_orchestrator.services.agent_sessions import AgentSessions
from mumian_orchestrator.services.commit_log import CommitLog
from mumian_orchestrator.services.fleet import Fleet
from mumian_orchestrator.services.job_table import JobTable
from mumian_orchestrator.services.plan_applier import PlanApplier
from mumian_orchestrator.services.preemptions import Preemptions
from mumian_orchestrator.services.reconciler import Reconciler
from mumian_orchestrator.services.scheduler import Scheduler

log = logging.getLogger(__name__)

_SHUTDOWN_GRACE_S = 1.0
_SILENCE_CHECK_S = 0.5


async def run(config: Config) -> None:
    """Campaign and lead, again and again, until a signal says stop."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    client = EtcdClient(config.etcd)
    name = f"{socket.gethostname()}/{os.getpid()} on {config.listen}"
    try:
        while not stop.is_set():
            candidate = asyncio.create_task(
                campaign(client, f"{config.key_prefix}leader", name, config.lease_ttl_s)
            )
            await _first(candidate, asyncio.create_task(stop.wait()))
            if candidate.cancelled():
                return
            term = candidate.result()
            try:
                await _lead(config, client, term, stop)
            finally:
                await term.resign()
    finally:
        await client.close()


async def _lead(config: Config, client: EtcdClient, term: Term, stop: asyncio.Event) -> None:
    """Serve until the term ends or a signal says stop. Everything in memory lives as long as the term."""
    clock = SystemClock()
    store = EtcdStore(client, config.key_prefix, term)
    stored = await store.load()
    commit_log = CommitLog(store)
    engine = CoreEngine(config.policy)
    table = JobTable(commit_log, clock)
    fleet = Fleet(config.zones, table, engine, commit_log, clock, config.unreachable_after_ms)
    sessions = AgentSessions(term.number, fleet, table, clock, config.heartbeat_interval_ms)
    preemptions = Preemptions(table, engine, sessions)
    applier = PlanApplier(table, engine, sessions, preemptions, clock)
    scheduler = Scheduler(table, engine, applier, preemptions, clock)
    reconciler = Reconciler(table, engine, sessions, scheduler, preemptions)
    reports = AgentReports(fleet, sessions, reconciler, scheduler)
    admission = Admission(table, fleet, engine, scheduler, reconciler, sessions, clock)
    table.load(stored)
    fleet.load(stored)
    reconciler.resume()

    server = await start_server(
        config.listen, JobService(admission), FleetService(fleet), AgentService(sessions, reports)
    )
    log.info("leading, term %d: %d jobs stored", term.number, len(list(table.jobs())))
    print(f"ready: coordinator on {config.listen}", flush=True)
    try:
        await _first(
            *(
                asyncio.create_task(work)
                for work in (
                    commit_log.run(),
                    scheduler.run(),
                    _watch_silence(fleet, preemptions, scheduler),
                    term.over.wait(),
                    stop.wait(),
                )
            )
        )
    except SupersededError:
        log.error("another coordinator leads now; starting over")
    finally:
        await server.stop(_SHUTDOWN_GRACE_S)


async def _watch_silence(fleet: Fleet, preemptions: Preemptions, scheduler: Scheduler) -> None:
    while True:
        await asyncio.sleep(_SILENCE_CHECK_S)
        if silent := fleet.mark_silent():
            preemptions.lose_sites(silent)
            scheduler.evaluate_waiting()


async def _first(*tasks: asyncio.Task[Any]) -> None:
    """Wait for the first task to end, end the others, and raise what it raised."""
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


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
