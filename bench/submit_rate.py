"""How fast jobs are taken: in batches, and singly at a steady rate: `python -m bench.submit_rate`.

A real coordinator on a real etcd. A tenant submits single jobs at a given rate, whether or not the earlier
ones are answered: by `AsyncClient.submit`, whose submits share requests, and then each by a request of its
own, as if as many programs were there. Then it stores many by `Client.submit_many`, all alike and then all
different. No site is there, so each job is considered once and waits: this is the way in, beside the work of
looking for places.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import click
import grpc
import psutil
from mumian import AsyncClient, Client
from mumian.api.v1.job_pb2 import Job, JobSpec
from mumian.api.v1.job_service_pb2 import CreateJobRequest
from mumian.api.v1.job_service_pb2_grpc import JobServiceStub

from bench.overload import percentile_ms
from bench.report import Report
from bench.store import private_etcd
from tests.orchestrator.conftest import Coordinator
from tests.orchestrator.tenant import spec_of

_TIMEOUT_S = 60.0

Submit = Callable[[], Awaitable[None]]


def _alike(count: int) -> list[JobSpec]:
    return [spec_of("alike") for _ in range(count)]


def _different(count: int) -> list[JobSpec]:
    return [spec_of("different", cpu_milli=1000 + number) for number in range(count)]


def _batched(report: Report, name: str, address: str, process: psutil.Process, specs: list[JobSpec]) -> None:
    with Client(address, timeout_s=_TIMEOUT_S) as client:
        begun_s, begun_cpu_s = time.monotonic(), _cpu_s(process)
        outcomes = client.submit_many(specs)
        took_s, used_s = time.monotonic() - begun_s, _cpu_s(process) - begun_cpu_s
        assert all(isinstance(outcome, Job) for outcome in outcomes), "a job was refused"
        assert len({outcome.id for outcome in outcomes if isinstance(outcome, Job)}) == len(specs)
    report.line(f"submit_batched_{name}", len(specs) / took_s, "jobs_per_s")
    report.line(f"submit_batched_{name}_cpu", 1e6 * used_s / len(specs), "us_per_job")


async def _singly(
    report: Report, name: str, process: psutil.Process, per_s: float, seconds: float, submit: Submit
) -> None:
    took_s: list[float] = []
    refused = 0

    async def one() -> None:
        nonlocal refused
        begun_s = time.monotonic()
        try:
            await submit()
            took_s.append(time.monotonic() - begun_s)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise
            refused += 1  # by a machine that does not keep up with the rate

    begun_s, begun_cpu_s = time.monotonic(), _cpu_s(process)
    under_way = []
    for number in range(round(per_s * seconds)):
        await asyncio.sleep(begun_s + number / per_s - time.monotonic())
        under_way.append(asyncio.create_task(one()))
    await asyncio.gather(*under_way)
    report.line(f"submit_{name}_rate", len(took_s) / (time.monotonic() - begun_s), "jobs_per_s")
    report.line(f"submit_{name}_cpu", 1e6 * (_cpu_s(process) - begun_cpu_s) / len(took_s), "us_per_job")
    report.line(f"submit_{name}_p50", percentile_ms(took_s, 50), "ms")
    report.line(f"submit_{name}_p99", percentile_ms(took_s, 99), "ms")
    report.line(f"submit_{name}_refused", refused, "jobs")


async def _by_client(
    report: Report, address: str, process: psutil.Process, per_s: float, seconds: float
) -> None:
    async with AsyncClient(address, timeout_s=_TIMEOUT_S) as client:

        async def submit() -> None:
            await client.submit(spec_of("single"))

        await _singly(report, "single", process, per_s, seconds, submit)


async def _by_calls(
    report: Report, address: str, process: psutil.Process, per_s: float, seconds: float
) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        jobs: Any = JobServiceStub(channel)

        async def submit() -> None:
            await jobs.CreateJob(CreateJobRequest(request_id=uuid.uuid4().hex, spec=spec_of("call")))

        await _singly(report, "call", process, per_s, seconds, submit)


def _cpu_s(process: psutil.Process) -> float:
    used = process.cpu_times()
    return float(used.user + used.system)


@click.command()
@click.option("--jobs", type=click.IntRange(1), default=10_000, show_default=True, help="Of each batch.")
@click.option("--per-s", type=click.FloatRange(1), default=500.0, show_default=True, help="Single submits.")
@click.option(
    "--seconds", type=click.FloatRange(1), default=10.0, show_default=True, help="Of single submits."
)
def main(jobs: int, per_s: float, seconds: float) -> None:
    """Jobs acknowledged a second in batches, and how long a single submit takes at a steady rate."""
    report = Report("submit_rate")
    with tempfile.TemporaryDirectory() as folder, private_etcd() as endpoint:
        coordinator = Coordinator(Path(folder), endpoint, unreachable_after_ms=10_000)
        process = psutil.Process(coordinator.running.process.pid)
        try:
            asyncio.run(_by_client(report, coordinator.address, process, per_s, seconds))
            time.sleep(1)
            asyncio.run(_by_calls(report, coordinator.address, process, per_s, seconds))
            time.sleep(1)
            _batched(report, "alike", coordinator.address, process, _alike(jobs))
            time.sleep(5)
            _batched(report, "different", coordinator.address, process, _different(jobs))
        finally:
            coordinator.running.sweep()
    report.line("machine_load", os.getloadavg()[0], "processes")
    report.write({"jobs": jobs, "per_s": per_s, "seconds": seconds})


if __name__ == "__main__":
    main()
