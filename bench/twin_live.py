"""The twin beside a live run of the same small scenario on this machine.

    python -m bench.twin_live

Starts the whole platform (etcd, coordinator, agent, Ray) and submits the scenario's tasks at the scenario's
times. Each keeps a quarter of a core busy for as long as the scenario says. What came of it is compared with
what the twin says: the share of task-seconds inside the SLO, energy, waiting. The twin is asked before the
run, told how long a start took for some tasks that came beforehand. Then the live run is imported and
replayed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from mumian.api.v1.job_pb2 import JobSpec, TaskGroup
from mumian.api.v1.resources_pb2 import Resources
from mumian.client import Client
from mumian_orchestrator.bench.sim.arrivals import arrivals
from mumian_orchestrator.bench.sim.importing import scenario_of
from mumian_orchestrator.bench.sim.recording import from_coordinator
from mumian_orchestrator.bench.sim.report.figures import figures
from mumian_orchestrator.bench.sim.runner import Run
from mumian_orchestrator.bench.sim.scenario import Scenario, read

_CPU_MILLI, _BUDGET_MS = 250, 20
_CALIBRATED = 5  # tasks that tell how long a start takes
# A quarter of a core, by the clock of the CPU: a crowded machine is no excuse to do less.
_BURN = """
import sys, time
end, begin = time.monotonic() + float(sys.argv[1]), time.monotonic()
while time.monotonic() < end:
    while time.process_time() < 0.25 * (time.monotonic() - begin) and time.monotonic() < end:
        sum(range(2000))
    time.sleep(0.03)
"""


def scenario(cores: int, minutes: float, share: float, start_s: float = 0.0) -> Scenario:
    """One site of one machine, as `mumian up` makes it, asked for a share of what it has.

    Args:
        start_s: how long a task takes from its place to its first second of work.
    """
    run_s = 20
    per_hour = share * cores * 1000 / _CPU_MILLI / run_s * 3600
    return read(
        {
            "name": "live",
            "seed": 1,
            "duration_h": minutes / 60,
            "tick_s": 1,
            "rtt": {"fixed_us": 500, "us_per_km": 0, "p99_factor": 2},
            "zones": [{"id": "here", "latitude": 0, "longitude": 0}],
            "sites": [
                {
                    "id": "local", "operator": "self", "latitude": 0, "longitude": 0, "pue_permille": 1000,
                    "energy_kwh_cny": 0.7, "carbon_g_per_kwh": 450, "cpu_core_hour_microcny": 200_000,
                    "memory_gib_hour_microcny": 20_000,
                    "nodes": [{"count": 1, "cores": cores, "memory_gib": 8, "core_active_power_mw": 5000}],
                }
            ],
            "jobs": [
                {
                    "name": "burn", "tenant": "default", "cpu_milli": _CPU_MILLI, "memory_mib": 64,
                    "arrivals": {"per_hour": per_hour}, "run_time_s": run_s, "run_time_fixed": 1,
                    "slo_budget_ms": _BUDGET_MS, "start_s": round(start_s, 3),
                }
            ],
            "sources": [{"fields": ["*"], "kind": "assumed", "because": "the platform's own defaults"}],
        }
    )  # fmt: skip


def main() -> None:
    """Measure once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--cores", type=int, default=2, help="Of this machine, as its agent counts them.")
    parser.add_argument("--share", type=float, default=0.25, help="Of the cores, that the tasks ask for.")
    parser.add_argument("--listen", default="127.0.0.1:7470")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mumian-live-") as folder:
        mumian = [str(Path(sys.executable).with_name("mumian"))]
        subprocess.run([*mumian, "up", "--state-dir", folder, "--listen", options.listen], check=True)
        try:
            with Client(options.listen) as client:
                # The first task starts the platform's workers; the twin knows warm ones.
                client.wait(client.submit(_job(1.0)).id, timeout_s=120)
                starts_s = [_start_s(client) for _ in range(_CALIBRATED)]
            start_s = sum(starts_s) / len(starts_s)
            asked = scenario(options.cores, options.minutes, options.share, start_s)
            expected = figures(Run(asked, readings=0).simulate(asked.seed))
            print(f"calibrated_start {start_s:.3f} s")
            _live(asked, expected, options.listen)
        finally:
            subprocess.run([*mumian, "down", "--state-dir", folder], check=True)


def _start_s(client: Client) -> float:
    """From a task's place to its first second of work, of one that has the machine for itself."""
    [allocation] = client.wait(client.submit(_job(1.0)).id, timeout_s=120).allocations
    return (allocation.start_time.ToNanoseconds() - allocation.create_time.ToNanoseconds()) / 1e9


def _live(asked: Scenario, expected: dict[str, object], address: str) -> None:
    with Client(address) as client:
        begin, begin_unix_s = time.monotonic(), time.time()
        ids = []
        for task in arrivals(asked, asked.seed):
            time.sleep(max(0.0, begin + task.at_s - time.monotonic()))
            ids.append(client.submit(_job(task.run_time_s)).id)
        time.sleep(max(0.0, begin + asked.duration_s - time.monotonic()))
        end_unix_s = time.time()
        recording = from_coordinator(address, ["default"], end_unix_s)
        jobs = [client.wait(job_id, timeout_s=300) for job_id in ids]
    promised_s = kept_s = it_uj = waited_s = held_s = started_s = 0.0
    for job in jobs:
        [allocation] = job.allocations
        created, started, ended = (
            stamp.ToNanoseconds() / 1e9
            for stamp in (job.create_time, allocation.start_time, allocation.end_time)
        )
        # As in the twin: what is under way at the end counts up to the end.
        begun = min(started, end_unix_s)
        promised_s += min(ended, end_unix_s) - created
        kept_s += min(ended, end_unix_s) - begun
        waited_s += begun - created
        held_s += ended - started
        started_s += started - allocation.create_time.ToNanoseconds() / 1e9
        it_uj += allocation.receipt.it_energy_uj * (min(ended, end_unix_s) - begun) / (ended - started)
    live = {
        "inside_slo": kept_s / promised_s,
        "it_wh": it_uj / 3_600_000_000,
        "wait_mean_s": waited_s / len(jobs),
    }
    imported = scenario_of(recording, "replay", 1, begin_unix_s)
    replayed = figures(Run(read(yaml.safe_load(yaml.safe_dump(imported.raw))), readings=0).simulate(0))
    print(f"tasks {len(jobs)} count")
    print(f"held_mean {held_s / len(jobs):.3f} s")
    print(f"start_mean {started_s / len(jobs):.3f} s")
    for name, found in (("twin", _of(expected)), ("live", live), ("replay", _of(replayed))):
        print(f"{name}_inside_slo {found['inside_slo']:.4f} share")
        print(f"{name}_it_energy {found['it_wh']:.4f} Wh")
        print(f"{name}_wait_mean {found['wait_mean_s']:.3f} s")
    twin = _of(expected)
    print(f"error_inside_slo {100 * (twin['inside_slo'] - live['inside_slo']):.2f} points")
    print(f"error_it_energy {100 * (twin['it_wh'] / live['it_wh'] - 1):.2f} %")


def _of(found: dict[str, object]) -> dict[str, float]:
    return {
        "inside_slo": float(str(found["inside_slo"])),
        "it_wh": 1000 * float(str(found["it_kwh"])),
        "wait_mean_s": float(str(found["wait_mean_s"])),
    }


def _job(run_time_s: float) -> JobSpec:
    group = TaskGroup(name="main", count=1, resources=Resources(cpu_milli=_CPU_MILLI, memory_mib=64))
    group.command.argv.extend([sys.executable, "-c", _BURN, str(run_time_s)])
    group.latency_slo.zone_ids.append("here")
    group.latency_slo.budget_us = 1000 * _BUDGET_MS
    return JobSpec(name="burn", task_groups=[group])


if __name__ == "__main__":
    main()
