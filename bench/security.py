"""What TLS and access control cost: `python -m bench.security`.

Two real coordinators on one real etcd, one as `mumian up` starts it and one with TLS, a tenant's token and
the audit log. They take turns, so that a machine that is busy for a while is busy for both. A tenant submits
jobs from a process of its own: one after the other (ms until each is durable), and many at once (jobs a
second, and the coordinator's processor time for each, which other work on the machine disturbs least).
Every job has to be there at the end. Beside it, how long the answer "not found" takes for a job of another
tenant and for one that does not exist: they should not differ.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import subprocess
import tempfile
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import click
import grpc
import psutil
from mumian.api.v1 import job_service_pb2 as pb
from mumian.api.v1.job_service_pb2_grpc import JobServiceStub
from mumian_orchestrator.main.free_ports import free_port

from bench.report import Report
from bench.store import private_etcd
from tests.orchestrator.conftest import Coordinator
from tests.orchestrator.tenant import spec_of
from tests.processes import SCRIPTS

_CHANNELS = 4
_OPTIONS = (("grpc.use_local_subchannel_pool", 1),)


@dataclass(frozen=True)
class Door:
    """How a tenant reaches one of the coordinators."""

    address: str
    authority: bytes  # empty: without TLS
    metadata: tuple[tuple[str, str], ...]

    def channel(self) -> grpc.aio.Channel:
        if not self.authority:
            return grpc.aio.insecure_channel(self.address, options=_OPTIONS)
        credentials = grpc.ssl_channel_credentials(self.authority)
        return grpc.aio.secure_channel(self.address, credentials, options=_OPTIONS)


@dataclass
class Acknowledged:
    """What came of submissions."""

    took_ms: list[float] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)


async def _submit(door: Door, at_once: int, seconds: float) -> Acknowledged:
    channels = [door.channel() for _ in range(min(_CHANNELS, at_once))]
    stubs: list[Any] = [JobServiceStub(channel) for channel in channels]
    answers = Acknowledged()
    end_s = time.monotonic() + seconds

    async def go_on(stub: Any) -> None:
        while time.monotonic() < end_s:
            request = pb.CreateJobRequest(request_id=uuid.uuid4().hex, spec=spec_of("bench"))
            begun_s = time.monotonic()
            answer = await stub.CreateJob(request, metadata=door.metadata, timeout=60)
            answers.took_ms.append(1000 * (time.monotonic() - begun_s))
            answers.ids.append(answer.job.id)

    await asyncio.gather(*(go_on(stubs[number % len(stubs)]) for number in range(at_once)))
    for channel in channels:
        await channel.close()
    return answers


def _process(door: Door, at_once: int, seconds: float, pipe: Any) -> None:
    pipe.send(asyncio.run(_submit(door, at_once, seconds)))


def submitted_by(door: Door, at_once: int, seconds: float) -> Acknowledged:
    processes = multiprocessing.get_context("spawn")  # gRPC does not survive a fork
    mine, theirs = processes.Pipe()
    process = processes.Process(target=_process, args=(door, at_once, seconds, theirs), daemon=True)
    process.start()
    answers: Acknowledged = mine.recv()
    process.join()
    return answers


def _command(coordinator: Coordinator, *arguments: str) -> str:
    argv = [str(SCRIPTS / "mumian-coordinator"), "--config", str(coordinator.config), *arguments]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


def _doors(folder: Path, etcd: str) -> tuple[list[Coordinator], dict[str, Door], Door]:
    """The coordinators, the doors by name, and one for another tenant."""
    started = []
    for name in ("open", "secure"):
        (folder / name).mkdir()
        more: dict[str, Any] = {
            "state_dir": str(folder / "state"),
            "listen_agents": f"127.0.0.1:{free_port()}",
        }
        started.append(Coordinator(folder / name, etcd, **(more if name == "secure" else {})))
    authority = (folder / "state/authority.pem").read_bytes()
    tokens = [
        _command(started[1], "token", "create", "--role", "tenant-user", "--tenant", tenant)
        for tenant in ("acme", "rival")
    ]
    mine, theirs = (
        Door(started[1].address, authority, (("authorization", f"Bearer {token}"),)) for token in tokens
    )
    doors = {"open": Door(started[0].address, b"", (("mumian-tenant", "acme"),)), "secure": mine}
    return started, doors, theirs


def cpu_ms_of(coordinator: Coordinator) -> float:
    """Processor time that it has used."""
    used = psutil.Process(coordinator.running.process.pid).cpu_times()
    return 1000 * float(used.user + used.system)


async def _not_found_us(door: Door, ids: dict[str, str], count: int) -> dict[str, list[float]]:
    took: dict[str, list[float]] = {name: [] for name in ids}
    async with door.channel() as channel:
        stub: Any = JobServiceStub(channel)
        for _ in range(count):
            for name in random.sample(list(ids), len(ids)):
                begun_s = time.perf_counter()
                try:
                    await stub.GetJob(pb.GetJobRequest(job_id=ids[name]), metadata=door.metadata)
                except grpc.aio.AioRpcError as error:
                    assert error.code() is grpc.StatusCode.NOT_FOUND, error
                took[name].append(1e6 * (time.perf_counter() - begun_s))
    return took


async def _listed(door: Door) -> Counter[str]:
    """The ids of all jobs, and how often each is listed."""
    async with door.channel() as channel:
        stub: Any = JobServiceStub(channel)
        found, token = Counter[str](), ""
        while True:
            request = pb.ListJobsRequest(page_size=500, page_token=token)
            page = await stub.ListJobs(request, metadata=door.metadata)
            found.update(job.id for job in page.jobs)
            token = page.next_page_token
            if not token:
                return found


async def _one_id(door: Door) -> str:
    async with door.channel() as channel:
        stub: Any = JobServiceStub(channel)
        request = pb.CreateJobRequest(request_id=uuid.uuid4().hex, spec=spec_of("bench"))
        return str((await stub.CreateJob(request, metadata=door.metadata)).job.id)


@click.command()
@click.option("--seconds", type=click.FloatRange(0.5, 60), default=2.0, show_default=True, help="Of a turn.")
@click.option("--turns", type=click.IntRange(1, 20), default=3, show_default=True, help="Of each.")
@click.option("--at-once", type=click.IntRange(1, 1000), default=64, show_default=True)
def main(seconds: float, turns: int, at_once: int) -> None:
    """Submits a second and ms a submit, without and with TLS, tokens and audit; and their ratio."""
    report = Report("security")
    with tempfile.TemporaryDirectory() as folder, private_etcd() as endpoint:
        coordinators, doors, rival = _doors(Path(folder), endpoint)
        try:
            rates: dict[str, list[float]] = {name: [] for name in doors}
            singles: dict[str, list[float]] = {name: [] for name in doors}
            cpu_ms: dict[str, list[float]] = {name: [] for name in doors}
            submitted: dict[str, Counter[str]] = {name: Counter() for name in doors}
            for turn in range(turns + 1):
                for (name, door), coordinator in zip(doors.items(), coordinators, strict=True):
                    one, begun_ms = submitted_by(door, 1, seconds), cpu_ms_of(coordinator)
                    many = submitted_by(door, at_once, seconds)
                    used_ms = cpu_ms_of(coordinator) - begun_ms
                    submitted[name].update([*one.ids, *many.ids])
                    if turn:  # the first turn warms up
                        singles[name] += one.took_ms
                        rates[name].append(len(many.ids) / seconds)
                        cpu_ms[name].append(used_ms / len(many.ids))
            for name, door in doors.items():
                listed = asyncio.run(_listed(door))
                lost, more = submitted[name] - listed, listed - submitted[name]
                assert not lost and not more, (
                    f"{name}: lost or one id for two: {lost}; not acknowledged: {more}"
                )
                report.line(f"submits_{name}", rates[name], "jobs/s")
                report.line(f"submit_{name}_p50", median(singles[name]), "ms")
                report.line(f"submit_{name}_cpu", cpu_ms[name], "ms")
            for figure, values in (("submits", rates), ("submit_cpu", cpu_ms)):
                pairs = zip(values["secure"], values["open"], strict=True)
                report.line(f"{figure}_secure_of_open", [secure / plain for secure, plain in pairs], "ratio")
            ids = {"another_tenants": asyncio.run(_one_id(doors["secure"])), "nobodys": "bench-00000000"}
            for name, took_us in asyncio.run(_not_found_us(rival, ids, 2000)).items():
                report.line(f"not_found_{name}_p50", median(took_us), "us")
            report.write({"seconds": seconds, "turns": turns, "at_once": at_once})
        finally:
            for coordinator in coordinators:
                coordinator.running.sweep()


if __name__ == "__main__":
    main()
