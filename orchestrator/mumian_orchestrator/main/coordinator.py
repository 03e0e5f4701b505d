"""The coordinator: waits for leadership, leads, and starts over when a term ends."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
from pathlib import Path

from mumian_orchestrator.adapters.clock import SystemClock
from mumian_orchestrator.adapters.core.engine import CoreEngine
from mumian_orchestrator.adapters.disk.bundle_store import DiskBundleStore
from mumian_orchestrator.adapters.disk.log_files import DiskLogFiles
from mumian_orchestrator.adapters.etcd.client import EtcdClient
from mumian_orchestrator.adapters.etcd.health import EtcdHealth
from mumian_orchestrator.adapters.etcd.key_value import EtcdKeyValue
from mumian_orchestrator.adapters.grpc.access_service import AccessService
from mumian_orchestrator.adapters.grpc.agent_service import AgentService
from mumian_orchestrator.adapters.grpc.enrolment_service import EnrolmentService
from mumian_orchestrator.adapters.grpc.fleet_service import FleetService
from mumian_orchestrator.adapters.grpc.forwarding import Forwarding
from mumian_orchestrator.adapters.grpc.guard import Guard
from mumian_orchestrator.adapters.grpc.job_service import JobService
from mumian_orchestrator.adapters.grpc.money_service import MoneyService
from mumian_orchestrator.adapters.grpc.ops_service import OpsService
from mumian_orchestrator.adapters.grpc.planning_service import PlanningService
from mumian_orchestrator.adapters.grpc.secret_service import SecretService
from mumian_orchestrator.adapters.grpc.server import Server, start_following, start_leading
from mumian_orchestrator.adapters.telemetry.exporter import Exporter
from mumian_orchestrator.main import metrics
from mumian_orchestrator.main.composition import Services, first_of
from mumian_orchestrator.main.config import Config, etcd_credentials, host_and_port
from mumian_orchestrator.main.cycle_collector import CycleCollector
from mumian_orchestrator.main.decisions_command import decision_log_of
from mumian_orchestrator.main.leading import lead
from mumian_orchestrator.main.security import Security, doors_of, secret_box_of, security_of
from mumian_orchestrator.services.leadership import Incumbent, campaign, leader_key, leader_name
from mumian_orchestrator.services.loop_watch import LoopWatch

_SHUTDOWN_GRACE_S = 1.0


async def run(config: Config) -> None:
    """Campaign and lead, again and again, until a signal says stop; while another leads, follow it."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    loop_watch, exporter = LoopWatch(), Exporter()
    cycles = CycleCollector()
    cycles.start()
    _take_files()
    watching = asyncio.create_task(loop_watch.run())
    exporter.figures = metrics.of_the_process(loop_watch)
    stop_metrics = exporter.listen(*host_and_port("metrics", config.metrics)) if config.metrics else None
    credentials, security = etcd_credentials(config), security_of(config, SystemClock())
    secret_box = secret_box_of(config)
    client = EtcdClient(config.etcd, credentials)
    decisions = decision_log_of(config)
    kv, health = EtcdKeyValue(client), EtcdHealth(client, credentials)
    name = leader_name(config.address, f"{socket.gethostname()}/{os.getpid()}")
    try:
        while not stop.is_set():
            incumbent = Incumbent()
            candidate = asyncio.create_task(
                campaign(kv, leader_key(config.key_prefix), name, config.lease_ttl_s, incumbent)
            )
            await first_of(candidate, _follow(config, incumbent, security), stop.wait())
            if candidate.cancelled():
                return
            term = candidate.result()
            try:
                engine, doors = (
                    CoreEngine(config.policy, decisions=decisions),
                    _GrpcDoors(config, exporter, security),
                )
                bundles = DiskBundleStore(Path(config.bundles_dir)) if config.bundles_dir else None
                log_files = DiskLogFiles(Path(config.records_dir)) if config.records_dir else None
                clock = SystemClock()
                await lead(
                    config,
                    kv,
                    term,
                    engine,
                    clock,
                    doors,
                    stop,
                    health,
                    bundle_store=bundles,
                    security=security,
                    secret_box=secret_box,
                    log_files=log_files,
                )
            finally:
                exporter.figures = metrics.of_the_process(loop_watch)
    finally:
        await client.close()
        watching.cancel()
        if decisions is not None:
            decisions.close()
        cycles.stop()
        if stop_metrics is not None:
            stop_metrics()


async def _follow(config: Config, incumbent: Incumbent, security: Security | None) -> None:
    """Serve by asking the leader, once there is one that is not this coordinator before it was killed."""
    while incumbent.address in ("", config.address):
        await incumbent.changed.wait()
        incumbent.changed.clear()
    forwarding = Forwarding(incumbent, security.proof if security else None)
    doors = doors_of(config, security)
    server = await start_following(doors, config.connection_limits, forwarding)
    print(f"ready: coordinator on {_where(config)}, following {incumbent.address}", flush=True)
    try:
        await server.wait_for_termination()
    finally:
        await forwarding.release()
        await server.stop(None)
        await forwarding.close()


def _take_files() -> None:
    """Every connection is a file: as many as this process may have."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class _GrpcDoors:
    """The ports on which everybody asks, and Prometheus."""

    def __init__(self, config: Config, exporter: Exporter, security: Security | None) -> None:
        self._config, self._exporter, self._security = config, exporter, security
        self._server: Server | None = None

    async def open(self, services: Services) -> None:
        """Listen."""
        self._exporter.figures = [*self._exporter.figures, *metrics.of_the_leader(services)]
        access = services.access
        guard = Guard(access.authentication, access.audit) if access.authentication else None
        if guard is not None:
            access.tokens.on_revoked = guard.end_streams
        self._server = await start_leading(
            doors_of(self._config, self._security),
            self._config.connection_limits,
            guard,
            JobService(services.admission, services.endpoints, services.bundles),
            FleetService(services.fleet, services.disconnections),
            PlanningService(services.reoptimisation, services.what_if, self._config.search_limits),
            OpsService(services.diagnosis),
            MoneyService(services.treasury),
            AgentService(services.sessions, services.reports, services.bundles, access.sites),
            AccessService(access.tokens, access.sites, access.audit),
            SecretService(services.secrets),
            EnrolmentService(access.sites),
        )
        print(f"ready: coordinator on {_where(self._config)}", flush=True)

    async def close(self) -> None:
        """Listen no more."""
        if self._server is not None:
            await self._server.stop(_SHUTDOWN_GRACE_S)


def _where(config: Config) -> str:
    if not config.is_secure:
        return config.listen
    return f"{config.listen} (TLS), agents on {config.agents_door}"
