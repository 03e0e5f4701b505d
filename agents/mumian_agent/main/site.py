"""Puts an agent together from its parts, runs it, and takes it apart."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
from collections.abc import Iterable
from typing import Any

import click

from mumian_agent.adapters.grpc import echo
from mumian_agent.adapters.grpc.bundle_source import CoordinatorBundles
from mumian_agent.adapters.grpc.coordinator_stream import CoordinatorStream, Outbox, RefusedForGoodError
from mumian_agent.adapters.local.server import serve
from mumian_agent.adapters.ray.cluster import RayCluster
from mumian_agent.adapters.ray.nodes import RayHosts
from mumian_agent.adapters.ray.runners import RayRunners
from mumian_agent.adapters.ray.settings import temp_dir_of
from mumian_agent.agent.allocations import Allocations
from mumian_agent.agent.energy_accounts import EnergyAccounts
from mumian_agent.agent.log_reads import LogReads
from mumian_agent.agent.site_agent import SiteAgent
from mumian_agent.agent.site_desk import SiteDesk
from mumian_agent.agent.site_nodes import SiteNodes
from mumian_agent.agent.site_reports import SiteReports
from mumian_agent.agent.task_folders import TaskFolders
from mumian_agent.domain.config import AgentConfig
from mumian_agent.domain.fields import host_and_port
from mumian_agent.main.joining import (
    doors_for_tasks,
    keep_certificate_fresh,
    refuse_the_open_network,
)
from mumian_agent.runtime.certificates import Certificates
from mumian_agent.runtime.contact import Contact
from mumian_agent.runtime.identity import Identity
from mumian_agent.runtime.journal import Journal
from mumian_agent.runtime.node_probe import NodeProbe
from mumian_agent.runtime.own_host import OwnHost
from mumian_agent.runtime.power.site_meters import power_of_site
from mumian_agent.runtime.probing.prober import Prober

_RAY_LOOK_EVERY_S = 2.0
_CANCEL_AGAIN_AFTER_S = 1.0


async def run_site(config: AgentConfig, identity: Identity) -> None:
    """Run the agent until SIGTERM or SIGINT; then end the site's work and its Ray.

    Raises:
        ConfigError: a file that the configuration names cannot be used; nothing was started.
        RefusedForGoodError: the coordinator does not take it. What runs goes on.
        SiteRuntimeError: the site's Ray does not start.
    """
    certificates = Certificates(config.state_dir)
    refuse_the_open_network(config, certificates)
    power = power_of_site(config)
    cores = max(1, (config.node.cpu_milli_limit or len(os.sched_getaffinity(0)) * 1000) // 1000)
    cluster = RayCluster(config.state_dir, config.ray_num_cpus or cores, config.ray_listen)
    stop = asyncio.Event()
    _set_at_signals(stop)
    await cluster.open()
    _set_at_signals(stop)  # again: Ray has put its own handlers in their place
    journal, outbox = Journal(config.state_dir), Outbox()
    probe = await asyncio.to_thread(
        NodeProbe,
        config.node,
        config.state_dir,
        cluster.processes,
        meters=False,
        hidden=(config.state_dir, temp_dir_of(config.state_dir)),
    )
    address, _ = host_and_port(config.ray_listen)
    hosts = RayHosts(OwnHost(probe, address))
    runners = RayRunners(hosts.ray_id, config.warm_workers)
    nodes = SiteNodes(config.site.id, hosts, config.stop_grace_ms / 1000)
    await nodes.open()
    accounts = EnergyAccounts(config.node.idle_power_mw)
    folders = TaskFolders(config.state_dir, journal, CoordinatorBundles(config.coordinators, certificates))
    doors = doors_for_tasks(config, certificates)
    allocations = Allocations(journal, runners, outbox, nodes, accounts, folders, doors)
    await runners.open(allocations.runners_in_use())
    await runners.warm_up([node.id for node in nodes.all()])
    allocations.adopt()
    prober = Prober(
        config.site.id,
        config.routes,
        config.probe_interval_ms,
        config.probe_window,
        config.bandwidth_kbps,
        config.probe_packets_per_second_max,
        echo.connected,
        config.probe_window_s,
    )
    contact = Contact(config.state_dir / "contact")
    reports = SiteReports(
        *(config, identity.agent_epoch, nodes, allocations, accounts, prober, outbox, power, contact),
        on_nodes=runners.warm_up,
    )
    log_reads = LogReads(config.site.id, allocations, journal, folders, outbox, nodes)
    agent = SiteAgent(
        identity, allocations, log_reads, reports, prober, contact, functools.cache(_ready(config))
    )
    stream = CoordinatorStream(config.coordinators, identity.agent_epoch, outbox, certificates)
    fresh = keep_certificate_fresh(certificates, stream.reopen)
    works = [
        asyncio.create_task(work)
        for work in (
            stream.run(agent),
            fresh,
            reports.run(),
            allocations.look_after_disk(),
            serve(config.state_dir, SiteDesk(config.site.id, allocations, journal, contact)),
            _watch(cluster),
            stop.wait(),
        )
    ]
    try:
        done, _ = await asyncio.wait(works, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await _end(works)
        prober.close()
    refused = [work for work in done if isinstance(work.exception(), RefusedForGoodError)]
    if refused and allocations.live():
        allocations.close()
    else:
        await allocations.interrupt()
        await cluster.close()
    for work in done:
        work.result()


async def _end(works: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel until all have ended: one cancellation can be lost in code below that handles another."""
    left = {work for work in works if not work.done()}
    while left:
        for work in left:
            work.cancel()
        ended, left = await asyncio.wait(left, timeout=_CANCEL_AGAIN_AFTER_S)
        for work in ended:
            if not work.cancelled():
                work.exception()  # seen: what ended first is what counts


def _set_at_signals(stop: asyncio.Event) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)


def _ready(config: AgentConfig) -> functools.partial[None]:
    where = ", ".join(config.coordinators)
    return functools.partial(click.echo, f"ready: agent {config.site.id} connected to {where}")


async def _watch(cluster: RayCluster) -> None:
    while await asyncio.to_thread(cluster.is_alive):  # noqa: ASYNC110 -- it sets no event
        await asyncio.sleep(_RAY_LOOK_EVERY_S)
    message = "the site's Ray has died; start the agent again, it takes up the site's work"
    click.echo(f"mumian-agent: {message}", err=True)
    # At once: Ray's exit handlers would wait a minute for what is dead. All that matters is in the journal.
    os._exit(1)
