"""What a flood does to a real coordinator on a real etcd: `python -m bench.overload`.

A tenant submits as fast as it is answered: with one call under way, with fifty, with as many as the
coordinator takes at its peak, and with five times as many, which do not wait when they are told to. Beside it
another tenant submits one job after the other, and the agent of a site shows every tenth of a second that it
lives.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import tempfile
import time
import urllib.request
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import grpc
import psutil
from mumian.agent.v1 import agent_pb2
from mumian.agent.v1.agent_service_pb2_grpc import AgentServiceStub
from mumian.api.v1 import fleet_pb2, job_service_pb2
from mumian.api.v1.job_service_pb2_grpc import JobServiceStub
from mumian_orchestrator.main.free_ports import free_port

from bench.report import Report
from bench.store import private_etcd
from tests.orchestrator.conftest import Coordinator
from tests.orchestrator.tenant import spec_of

_PEAK_AT_ONCE, _OVERLOAD = 400, 5
_CHANNELS = 8
_BEAT_S = 0.1


@dataclass
class Answers:
    """What the calls of one tenant came to."""

    took_s: list[float] = field(default_factory=list)
    in_time: int = 0  # of them, before the phase was over
    refused: int = 0
    failed: Counter[str] = field(default_factory=Counter)  # by code and message


async def _submit_until(end_s: float, tenant: str, jobs: Any, answers: Answers) -> None:
    metadata = (("mumian-tenant", tenant),)
    while time.monotonic() < end_s:
        request = job_service_pb2.CreateJobRequest(request_id=uuid.uuid4().hex, spec=spec_of("flood"))
        begun_s = time.monotonic()
        try:
            await jobs.CreateJob(request, metadata=metadata, timeout=30)
            answers.took_s.append(time.monotonic() - begun_s)
            answers.in_time += time.monotonic() < end_s
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                answers.refused += 1
            else:
                answers.failed[f"{error.code()}: {error.details()}"] += 1


async def flood(address: str, tenant: str, at_once: int, seconds: float) -> Answers:
    """Submit with so many calls under way."""
    answers = Answers()
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(address, options=options) for _ in range(min(_CHANNELS, at_once))]
    stubs: list[Any] = [JobServiceStub(channel) for channel in channels]
    end_s = time.monotonic() + seconds
    await asyncio.gather(
        *(_submit_until(end_s, tenant, stubs[n % len(stubs)], answers) for n in range(at_once))
    )
    for channel in channels:
        await channel.close()
    return answers


def give_way() -> None:
    """Take no processor time from what is measured, as if this ran on another machine."""
    if os.sched_getscheduler(0) in (os.SCHED_RR, os.SCHED_FIFO):  # `chrt -r 2 python -m bench.overload`
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    else:
        os.nice(10)


def _flood_process(address: str, tenant: str, at_once: int, seconds: float, pipe: Any) -> None:
    give_way()
    pipe.send("ready")
    pipe.recv()
    pipe.send(asyncio.run(flood(address, tenant, at_once, seconds)))


async def _ready_process(
    address: str, tenant: str, at_once: int, seconds: float
) -> Callable[[], Awaitable[Answers]]:
    """What asks, so that it does not share an event loop with what measures; it begins when it is called."""
    processes = multiprocessing.get_context("spawn")  # gRPC does not survive a fork
    mine, theirs = processes.Pipe()
    arguments = (address, tenant, at_once, seconds, theirs)
    process = processes.Process(target=_flood_process, args=arguments, daemon=True)
    process.start()
    await asyncio.to_thread(mine.recv)

    async def begin() -> Answers:
        mine.send("go")
        answers: Answers = await asyncio.to_thread(mine.recv)
        process.join()
        return answers

    return begin


class Beats:
    """An agent that measures how long the coordinator takes to see its heartbeats."""

    def __init__(self) -> None:
        self.took_s: list[float] = []

    async def run(self, channel: grpc.aio.Channel) -> None:
        sequence = 1
        call = AgentServiceStub(channel).Connect()
        hello = agent_pb2.Hello(site=fleet_pb2.Site(id="gz", operator_id="op", jurisdiction="CN"))
        hello.agent_time.FromNanoseconds(time.time_ns())
        await call.write(agent_pb2.AgentReport(agent_epoch=1, sequence=1, hello=hello))
        reading = asyncio.create_task(self._read(call))
        try:
            while True:
                await asyncio.sleep(_BEAT_S)
                sequence += 1
                beat = agent_pb2.Heartbeat(sent_ns=time.monotonic_ns())
                await call.write(agent_pb2.AgentReport(agent_epoch=1, sequence=sequence, heartbeat=beat))
        finally:
            reading.cancel()
            call.cancel()

    async def _read(self, call: Any) -> None:
        async for command in call:
            if command.HasField("heartbeat_seen"):
                self.took_s.append((time.monotonic_ns() - command.heartbeat_seen.sent_ns) / 1e9)


def percentile_ms(values_s: list[float], percent: int) -> float:
    """The smallest value that so many percent of all are not above, in ms."""
    return 1000 * sorted(values_s)[max(0, -(-len(values_s) * percent // 100) - 1)]


async def _measure(report: Report, seconds: float, coordinator: Coordinator, metrics: str) -> None:
    async with coordinator.channel() as channel:
        beats = Beats()
        beating = asyncio.create_task(beats.run(channel))
        process = psutil.Process(coordinator.running.process.pid)

        async def phase(name: str, at_once: int) -> float:
            floods = [await _ready_process(coordinator.address, "flood", at_once, seconds)] if at_once else []
            beats.took_s.clear()
            quiet_work = flood(coordinator.address, "quiet", 1, seconds)
            quiet, *told = await asyncio.gather(quiet_work, *(begin() for begin in floods))
            goodput = sum(each.in_time for each in told) / seconds
            report.line(f"overload_{name}_other_tenant_p99", percentile_ms(quiet.took_s, 99), "ms")
            report.line(f"overload_{name}_heartbeat_p99", percentile_ms(beats.took_s, 99), "ms")
            if told:
                report.line(f"overload_{name}_submits", goodput, "per_s")
                took_s = [each for answers in told for each in answers.took_s]
                for percent in (50, 99):
                    report.line(f"overload_{name}_submit_p{percent}", percentile_ms(took_s, percent), "ms")
                report.line(f"overload_{name}_refused", sum(each.refused for each in told), "requests")
                report.line(f"overload_{name}_failed", sum(each.failed.total() for each in told), "requests")
                click.echo(
                    "".join(f"  {text}: {count}\n" for each in told for text, count in each.failed.items()),
                    nl=False,
                )
            report.line(f"overload_{name}_loop_stall", 1000 * await loop_stall_s(metrics), "ms")
            report.line(f"overload_{name}_memory", process.memory_info().rss / 2**20, "MiB")
            return goodput

        await phase("idle", 0)
        await phase("one", 1)
        await phase("fifty", 50)
        peak = await phase("peak", _PEAK_AT_ONCE)
        flooded = await phase("flood", _OVERLOAD * _PEAK_AT_ONCE)
        report.line("overload_goodput", 100 * flooded / peak, "percent_of_peak")
        report.line("machine_load", os.getloadavg()[0], "processes")
        beating.cancel()


async def loop_stall_s(metrics: str) -> float:
    """The worst stall of the event loop in the last minute."""

    def scrape() -> str:
        with urllib.request.urlopen(f"http://{metrics}/metrics", timeout=60) as answer:
            return str(answer.read().decode())

    lines = (await asyncio.to_thread(scrape)).splitlines()
    [line] = [line for line in lines if line.startswith("mumian_loop_stall_max_seconds ")]
    return float(line.split()[1])


@click.command()
@click.option("--seconds", type=click.FloatRange(1, 600), default=10.0, show_default=True, help="Of a phase.")
def main(seconds: float) -> None:
    """Goodput, another tenant's submits and an agent's heartbeats under a flood."""
    report = Report("overload")
    with tempfile.TemporaryDirectory() as folder, private_etcd() as endpoint:
        metrics = f"127.0.0.1:{free_port()}"
        # Other tenants' jobs find no node: what is measured is the way in.
        coordinator = Coordinator(Path(folder), endpoint, metrics=metrics, unreachable_after_ms=10_000)
        try:
            asyncio.run(_measure(report, seconds, coordinator, metrics))
        finally:
            coordinator.running.sweep()


if __name__ == "__main__":
    main()
