"""`mumian-bench submit`: from a tenant's submit to its task at work, through a real `mumian up`.

Each job is one small task on a warm site. Counted are, for each: how long until the coordinator had stored
the job (acknowledged), how long until the job was seen running by the SDK's `watch`, and how long a whole
`mumian submit` took as a process of its own, from its start to its end, which is when the task runs; and how
much processor time that process needed, which says more than its wall clock where the machine is busy.
"""

from __future__ import annotations

import contextlib
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import click
import mumian
from mumian.api.v1 import job_pb2

_TASK = mumian.task_group(command=["sleep", "1000"], cpu=0.1, memory="16MiB")
_SPEC_YAML = "command: [sleep, 1000]\nresources: {cpu: 0.1, memory: 16MiB}\n"
WARM_UP_JOBS = 3
_WITHIN_S = 30.0


@click.command()
@click.option("--jobs", "job_count", type=click.IntRange(10, 10_000), default=100, show_default=True)
@click.option("--cli-jobs", "cli_job_count", type=click.IntRange(10, 1000), default=20, show_default=True)
@click.option(
    "--coordinator",
    metavar="HOST:PORT",
    help="Of a platform that is up; default: one is started, used and stopped.",
)
@click.option("--listen", default="127.0.0.1:7079", show_default=True, help="Where the started one listens.")
def submit(job_count: int, cli_job_count: int, coordinator: str | None, listen: str) -> None:
    """From submit to running, on a warm site; one line `name value unit` each."""
    with contextlib.ExitStack() as stack:
        address = coordinator or stack.enter_context(_platform(listen))
        client = stack.enter_context(mumian.Client(address))
        for _ in range(WARM_UP_JOBS):
            run_one(client)
        timed = [run_one(client) for _ in range(job_count)]
        by_cli = [_run_one_by_cli(client, address) for _ in range(cli_job_count)]
    for name, times_ms in (
        ("submit_acknowledged", [acknowledged for acknowledged, _ in timed]),
        ("submit_running", [running for _, running in timed]),
        ("submit_cli_process", [whole for whole, _ in by_cli]),
        ("submit_cli_cpu", [cpu for _, cpu in by_cli]),
    ):
        for percent in (50, 99):
            click.echo(f"{name}_p{percent} {percentile(times_ms, percent):.1f} ms")
        click.echo(f"{name}_samples {len(times_ms)} jobs")


@contextlib.contextmanager
def _platform(listen: str) -> Iterator[str]:
    """A platform of its own on this machine; its address."""
    folder = tempfile.mkdtemp(prefix="mumian-bench-")
    where = ("--state-dir", folder)
    try:
        _mumian("up", "--listen", listen, *where)
        yield listen
    finally:
        _mumian("down", *where)
        shutil.rmtree(folder, ignore_errors=True)


def run_one(client: mumian.Client) -> tuple[float, float]:
    """Submit one job; ms until it was acknowledged, and until it ran. It is gone when this returns."""
    begun_s = time.perf_counter()
    job = client.submit(mumian.job("bench", _TASK))
    acknowledged_s = time.perf_counter()
    for seen in client.watch(job.id, timeout_s=_WITHIN_S):
        if seen.state == job_pb2.JOB_STATE_RUNNING:
            break
    else:
        raise click.ClickException(f"job {job.id} ended without having run: {seen.state_message}")
    running_s = time.perf_counter()
    _end(client, job.id)
    return 1000 * (acknowledged_s - begun_s), 1000 * (running_s - begun_s)


def _run_one_by_cli(client: mumian.Client, address: str) -> tuple[float, float]:
    """The same by `mumian submit`; ms from the start of its process to its end, and of processor time."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bench.yaml"
        path.write_text(_SPEC_YAML)
        begun_s, cpu_begun_s = time.perf_counter(), _cpu_of_children_s()
        _mumian("submit", str(path), "--coordinator", address)
        ended_s, cpu_ended_s = time.perf_counter(), _cpu_of_children_s()
    job = next(client.list([job_pb2.JOB_STATE_RUNNING]))
    _end(client, job.id)
    return 1000 * (ended_s - begun_s), 1000 * (cpu_ended_s - cpu_begun_s)


def _cpu_of_children_s() -> float:
    """Processor time of all processes that were started here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _end(client: mumian.Client, job_id: str) -> None:
    client.cancel(job_id)
    client.wait(job_id, timeout_s=_WITHIN_S)


def _mumian(*argv: str) -> None:
    command = [str(Path(sys.executable).parent / "mumian"), *argv]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise click.ClickException(done.stderr.strip() or done.stdout.strip())


def percentile(values: list[float], percent: int) -> float:
    """The smallest value that at least so many percent of all are not above."""
    return sorted(values)[max(0, -(-len(values) * percent // 100) - 1)]
