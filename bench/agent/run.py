"""What an agent costs, and how fast it is: `make bench-agent`.

The whole platform runs on this machine, once with each number of probe targets. Processor time and
memory are those of the agent's process alone, by the kernel's account, while nothing runs but its own reports
and probes: Ray's processes and the coordinator are not in it. Packets are counted where they arrive. How well
network coordinates know the round trips that nobody measures is replayed from a measured matrix, beside the
result that was published for the method.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from pathlib import Path
from typing import NamedTuple

import click
import mumian
from mumian_agent.domain.probe_packet import PACKET_BYTES
from mumian_orchestrator.bench.rtt.command import PUBLISHED
from mumian_orchestrator.bench.rtt.matrix import read_matrix
from mumian_orchestrator.bench.rtt.replay import replay
from mumian_orchestrator.bench.submit import WARM_UP_JOBS, percentile, run_one

from bench.agent.platform import Platform, platform
from bench.report import ROOT, Report

_MIB = 1024 * 1024
_UDP_AND_IP_BYTES = 28
# The first burst of probes is over by then, whatever the number of targets.
_SETTLED_AFTER_S = 20.0
_MATRIX, _NEIGHBOURS, _SAMPLES, _SEEDS = "planetlab_490_1.tsv.gz", 32, (32, 128), (1, 2, 3)
_TARGETS = {"cpu_milli": 40, "rss_mib": 100, "start_p50_ms": 50, "start_p99_ms": 150}


class Overhead(NamedTuple):
    """Of an agent with nothing to do."""

    cpu_milli: float
    rss_mib: float
    unique_mib: float  # of that, what no other process of the machine shares
    packets_per_s: float

    @property
    def bytes_per_s(self) -> float:
        """One way, with the headers of UDP and IP."""
        return self.packets_per_s * (PACKET_BYTES + _UDP_AND_IP_BYTES)


@click.command()
@click.option("--targets", type=click.IntRange(1, 1000), multiple=True, default=(10, 100), show_default=True)
@click.option("--seconds", type=click.FloatRange(1, 600), default=30.0, show_default=True)
@click.option("--jobs", type=click.IntRange(10, 10_000), default=100, show_default=True)
@click.option(
    "--agent",
    "agent_script",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=Path(sys.executable).with_name("mumian-agent"),
    help="Of an environment that has nothing but the agent; default: the one beside this Python.",
)
def agent(targets: tuple[int, ...], seconds: float, jobs: int, agent_script: Path) -> None:
    """Start latency, overhead, probe traffic and error of coordinates: lines, and a table at the end."""
    report, raw, rows = Report("agent"), {}, []
    click.echo(f"load_at_start {os.getloadavg()[0]:.1f}")
    for count in targets:
        with platform(count, agent_script.absolute()) as up:
            overhead = _overhead(up, seconds)
            starts_ms = _starts_ms(up, jobs)
        p50_ms, p99_ms = percentile(starts_ms, 50), percentile(starts_ms, 99)
        name = f"agent_{count}_targets"
        report.line(f"{name}_cpu", overhead.cpu_milli, "milli-CPU")
        report.line(f"{name}_rss", overhead.rss_mib, "MiB")
        report.line(f"{name}_unique", overhead.unique_mib, "MiB")
        report.line(f"{name}_probes", overhead.packets_per_s, "packets/s")
        report.line(f"{name}_probe_traffic", overhead.bytes_per_s, "B/s")
        report.line(f"{name}_submit_running_p50", p50_ms, "ms")
        report.line(f"{name}_submit_running_p99", p99_ms, "ms")
        raw[name] = {**overhead._asdict(), "starts_ms": starts_ms}
        cells = (
            f"{count}",
            f"{p50_ms:.0f} ms",
            f"{p99_ms:.0f} ms",
            f"{overhead.cpu_milli:.0f} milli-CPU",
            f"{overhead.rss_mib:.0f} MiB",
            f"{overhead.unique_mib:.0f} MiB",
            f"{overhead.packets_per_s:.0f}/s",
            f"{overhead.bytes_per_s:.0f} B/s",
        )
        rows.append(f"| {' | '.join(cells)} |")
    errors = _coordinate_errors(report)
    click.echo(f"load_at_end {os.getloadavg()[0]:.1f}")
    report.write(raw)
    click.echo(_table(rows, errors))


def _overhead(up: Platform, seconds: float) -> Overhead:
    time.sleep(_SETTLED_AFTER_S)
    before, packets, begun_s = up.agent.cpu_times(), up.reflector.packets, time.monotonic()
    time.sleep(seconds)
    after, took_s = up.agent.cpu_times(), time.monotonic() - begun_s
    used_s = after.user - before.user + after.system - before.system
    per_second = (up.reflector.packets - packets) / took_s
    memory = up.agent.memory_full_info()
    return Overhead(1000 * used_s / took_s, memory.rss / _MIB, memory.uss / _MIB, per_second)


def _starts_ms(up: Platform, jobs: int) -> list[float]:
    """From a tenant's submit of a small job to its being seen running."""
    with mumian.Client(up.address) as client:
        for _ in range(WARM_UP_JOBS):
            run_one(client)
        return [running_ms for _, running_ms in (run_one(client) for _ in range(jobs))]


def _coordinate_errors(report: Report) -> dict[int, float]:
    """The median relative error after so many samples by each node, medians of the seeds."""
    matrix_us = read_matrix(ROOT / "data/rtt" / _MATRIX, 1000)
    runs = [run for seed in _SEEDS for run in replay(matrix_us, _SAMPLES, _NEIGHBOURS, seed)]
    errors = {}
    for samples in _SAMPLES:
        of_it = [run.median_relative_error for run in runs if run.samples_per_node == samples]
        errors[samples] = statistics.median(of_it)
        report.line(f"coordinates_{samples}_samples_median_relative_error", of_it, "ratio")
    report.line("coordinates_published_vivaldi_median_relative_error", _published(), "ratio")
    return errors


def _published() -> float:
    error = PUBLISHED["median_relative_error"]
    assert isinstance(error, float)
    return error


def _table(rows: list[str], errors: dict[int, float]) -> str:
    ours = ", ".join(f"{100 * error:.1f} % after {samples} samples" for samples, error in errors.items())
    wanted = _TARGETS
    return "\n".join(
        (
            "",
            "| probe targets | start p50 | start p99 | agent | resident | of it its own | probes | one way |",
            "|---|---|---|---|---|---|---|---|",
            *rows,
            f"| to be met | {wanted['start_p50_ms']} ms | {wanted['start_p99_ms']} ms | "
            f"{wanted['cpu_milli']} milli-CPU | {wanted['rss_mib']} MiB | | | |",
            "",
            f"coordinates, median relative error: {ours} (PlanetLab, 490 nodes); "
            f"published for Vivaldi: {100 * _published():.0f} % (King, 1,740 hosts)",
        )
    )


if __name__ == "__main__":
    agent()
