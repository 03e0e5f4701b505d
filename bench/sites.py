"""A thousand sites of a hundred nodes each that report to one coordinator: `python -m bench.sites`.

A real coordinator on a real etcd, and agents without machines that say over real gRPC, each by a connection
of its own, what real ones say: every second that they live, every other second their power, every ten seconds
the round trips of what they are told to probe, and now and then all nodes, because a real agent tells of its
nodes only when something has changed. Measured are the coordinator's processor time and memory, how long it
takes to answer a heartbeat, and how long all sites need to join.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import multiprocessing
import os
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import grpc
import psutil
from google.protobuf.timestamp_pb2 import Timestamp
from mumian.agent.v1 import agent_pb2 as pb
from mumian.agent.v1.agent_service_pb2_grpc import AgentServiceStub
from mumian.api.v1 import fleet_pb2
from mumian_orchestrator.main.free_ports import free_port

from bench.overload import loop_stall_s, percentile_ms
from bench.report import Report
from bench.store import private_etcd
from tests.orchestrator.conftest import Coordinator

_BEAT_S, _POWER_EVERY, _LINK_EVERY = 1.0, 2, 10
_JOIN_WITHIN_S = 20.0


class _Site:
    """One of them, as its agent tells."""

    def __init__(self, number: int, nodes: int, nodes_every_s: float) -> None:
        self.id, self._chance = f"s{number:04}", random.Random(number)
        self._sequence = 0
        self._nodes_every = max(1, round(nodes_every_s / _BEAT_S))
        self._site = fleet_pb2.Site(id=self.id, operator_id="op", jurisdiction="CN-GD-GZ")
        self._site.pue.average_permille = self._site.pue.marginal_permille = 1250
        self._nodes = [
            fleet_pb2.Node(
                id=f"{self.id}/n{n}",
                site_id=self.id,
                arch="x86_64",
                health=fleet_pb2.HEALTH_READY,
                cpu_milli=64_000,
                memory_mib=262_144,
            )
            for n in range(nodes)
        ]
        self.targets: list[str] = []
        self.welcomed = asyncio.Event()
        self.took_s: list[float] = []
        self.breaks = 0

    async def live(self, address: str) -> None:
        """Say hello, and report until cancelled; again when the stream breaks, as an agent does."""
        await asyncio.sleep(self._chance.uniform(0, _JOIN_WITHIN_S))
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                await self._stream(address)
            self.breaks += 1
            await asyncio.sleep(self._chance.uniform(0.5, 2))

    async def _stream(self, address: str) -> None:
        async with grpc.aio.insecure_channel(
            address, options=[("grpc.use_local_subchannel_pool", 1)]
        ) as channel:
            call = AgentServiceStub(channel).Connect()
            hello = pb.Hello(site=self._site, agent_time=_now(), reflector="10.0.0.1:9100", nodes=self._nodes)
            await self._tell(call, hello=hello)
            reading = asyncio.create_task(self._read(call))
            try:
                await self.welcomed.wait()
                await asyncio.sleep(self._chance.uniform(0, _BEAT_S))  # not all at once
                beat = self._chance.randrange(self._nodes_every)
                while True:
                    beat += 1
                    heartbeat = pb.Heartbeat(agent_time=_now(), sent_ns=time.monotonic_ns())
                    await self._tell(call, heartbeat=heartbeat)
                    if beat % _POWER_EVERY == 0:
                        power = 100_000 * len(self._nodes) + self._chance.randrange(10_000)
                        await self._tell(call, power=pb.PowerReport(pue=self._site.pue, it_power_mw=power))
                    if links := [
                        self._link(target) for target in self.targets[beat % _LINK_EVERY :: _LINK_EVERY]
                    ]:
                        await self._tell(call, links=pb.LinksReport(links=links))
                    if beat % self._nodes_every == 0:
                        await self._tell(call, nodes=pb.NodesReport(nodes=self._nodes))
                    await asyncio.sleep(_BEAT_S)
            finally:
                reading.cancel()
                call.cancel()

    async def _read(self, call: Any) -> None:
        with contextlib.suppress(grpc.aio.AioRpcError):  # who writes notices it, too
            async for command in call:
                if command.HasField("welcome"):
                    self.welcomed.set()
                elif command.HasField("probe_targets"):
                    self.targets = [target.id for target in command.probe_targets.targets]
                elif command.HasField("heartbeat_seen"):
                    self.took_s.append((time.monotonic_ns() - command.heartbeat_seen.sent_ns) / 1e9)

    def _link(self, from_id: str) -> fleet_pb2.Link:
        """What it has measured: ends lie in a plane of 20 ms, and no two measurements are the same."""
        rtt_us = (1000 + math.dist(_place(from_id), _place(self.id))) * self._chance.uniform(1, 1.05)
        return fleet_pb2.Link(
            from_id=from_id,
            to_site_id=self.id,
            rtt_p50_us=round(rtt_us),
            rtt_p99_us=round(rtt_us * self._chance.uniform(1.1, 1.3)),
            source=fleet_pb2.FIGURE_SOURCE_MEASURED,
            sample_count=256,
            sample_time=_now(),
            probe_method=fleet_pb2.PROBE_METHOD_UDP,
        )

    async def _tell(self, call: Any, **what: Any) -> None:
        self._sequence += 1
        await call.write(pb.AgentReport(agent_epoch=1, sequence=self._sequence, **what))


@functools.cache
def _place(end_id: str) -> tuple[float, float]:
    chance = random.Random(end_id)
    return chance.uniform(0, 20_000), chance.uniform(0, 20_000)


async def _sites(address: str, numbers: range, nodes: int, nodes_every_s: float, pipe: Any) -> None:
    sites = [_Site(number, nodes, nodes_every_s) for number in numbers]
    living = [asyncio.create_task(site.live(address)) for site in sites]
    await asyncio.gather(*(site.welcomed.wait() for site in sites))
    pipe.send("welcomed")
    await asyncio.to_thread(pipe.recv)  # from now on
    for site in sites:
        site.took_s.clear()
    await asyncio.to_thread(pipe.recv)  # until now
    took_s = [took_s for site in sites for took_s in site.took_s]
    pipe.send((took_s, sum(site.breaks for site in sites), sum(len(site.targets) for site in sites)))
    for task in living:
        task.cancel()
    await asyncio.wait(living)


def _process(address: str, numbers: range, nodes: int, nodes_every_s: float, pipe: Any) -> None:
    asyncio.run(_sites(address, numbers, nodes, nodes_every_s, pipe))


@click.command()
@click.option("--sites", type=click.IntRange(1, 10_000), default=1000, show_default=True)
@click.option("--nodes", type=click.IntRange(1, 1000), default=100, show_default=True, help="Of each site.")
@click.option("--zones", type=click.IntRange(0, 1000), default=10, show_default=True, help="That all probe.")
@click.option("--nodes-every", type=click.FloatRange(1), default=60.0, show_default=True, help="Seconds.")
@click.option("--seconds", type=click.FloatRange(1), default=30.0, show_default=True, help="Measured.")
@click.option("--processes", type=click.IntRange(1, 64), default=4, show_default=True, help="Of sites.")
def main(sites: int, nodes: int, zones: int, nodes_every: float, seconds: float, processes: int) -> None:
    """Cores and MiB of a coordinator to which many sites report."""
    report = Report("sites")
    context = multiprocessing.get_context("spawn")  # gRPC does not survive a fork
    with tempfile.TemporaryDirectory() as folder, private_etcd() as endpoint:
        metrics = f"127.0.0.1:{free_port()}"
        coordinator = Coordinator(
            Path(folder),
            endpoint,
            metrics=metrics,
            unreachable_after_ms=60_000,
            zones=[{"id": f"z{n:03}", "reflector": "10.0.0.1:9100"} for n in range(zones)],
        )
        process = psutil.Process(coordinator.running.process.pid)
        pipes, started = [], []
        try:
            begun_s, begun_cpu_s = time.monotonic(), _cpu_s(process)
            for number in range(processes):
                mine, theirs = context.Pipe()
                numbers = range(number, sites, processes)
                arguments = (coordinator.address, numbers, nodes, nodes_every, theirs)
                started.append(context.Process(target=_process, args=arguments, daemon=True))
                started[-1].start()
                pipes.append(mine)
            for pipe in pipes:
                pipe.recv()
            report.line("sites_joined", time.monotonic() - begun_s, "s")
            report.line("sites_joined_cpu", _cpu_s(process) - begun_cpu_s, "s")
            time.sleep(5)
            for pipe in pipes:
                pipe.send("from now on")
            begun_s, begun_cpu_s = time.monotonic(), _cpu_s(process)
            time.sleep(seconds)
            used_s, took_s = _cpu_s(process) - begun_cpu_s, time.monotonic() - begun_s
            for pipe in pipes:
                pipe.send("until now")
            told = [pipe.recv() for pipe in pipes]
            heard_s = [took_s for of_process, _, _ in told for took_s in of_process]
            assert len(heard_s) > 0.2 * sites * seconds, f"{len(heard_s)} heartbeats answered: too few"
            report.line("sites_cpu", used_s / took_s, "cores")
            report.line("sites_memory", process.memory_info().rss / 2**20, "MiB")
            report.line("sites_links_measured", sum(links for _, _, links in told), "links")
            report.line("sites_heartbeat_p50", percentile_ms(heard_s, 50), "ms")
            report.line("sites_heartbeat_p99", percentile_ms(heard_s, 99), "ms")
            report.line("sites_streams_broken", sum(breaks for _, breaks, _ in told), "streams")
            report.line("sites_loop_stall", 1000 * asyncio.run(loop_stall_s(metrics)), "ms")
            report.line("machine_load", os.getloadavg()[0], "processes")
            report.write(
                {
                    "sites": sites,
                    "nodes": nodes,
                    "zones": zones,
                    "nodes_every_s": nodes_every,
                    "seconds": seconds,
                }
            )
        finally:
            for each in started:
                each.terminate()
            coordinator.running.sweep()


def _cpu_s(process: psutil.Process) -> float:
    used = process.cpu_times()
    return float(used.user + used.system)


def _now() -> Timestamp:
    now = Timestamp()
    now.FromNanoseconds(time.time_ns())
    return now


if __name__ == "__main__":
    main()
