"""The online placer against scans and NumPy, side by side (`make bench-online`).

For each fleet of 100 sites and each seed, the same instance goes through the core's placer, a
first-fit and a best-fit scan in the same Rust, and a NumPy placer. Each uses one core. The scans
and NumPy are stopped after two seconds and judged by what they have placed until then, on the
emptier fleet, which favours them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mumian_core.v1 import engine_pb2

from bench.online.numpy_placer import NumpyPlacer
from bench.report import ROOT, Report, machine

LIMIT_S = 2.0


def bench_online(*args: str) -> str:
    """Run the measuring program; what it printed."""
    command = [str(ROOT / "target/release/bench_online"), *args]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed ({done.returncode}):\n{done.stderr}")
    return done.stdout


def instance(nodes: int, seed: int) -> tuple[engine_pb2.Delta, engine_pb2.PlaceRequest]:
    """A generated fleet with its pending jobs."""
    with tempfile.TemporaryDirectory() as folder:
        bench_online("instance", str(nodes), str(seed), folder)
        fleet = engine_pb2.Delta.FromString((Path(folder) / "fleet.pb").read_bytes())
        request = engine_pb2.PlaceRequest.FromString((Path(folder) / "request.pb").read_bytes())
    return fleet, request


def measure(nodes: int, seed: int) -> dict[str, Any]:
    """One instance through all placers."""
    figures: dict[str, Any] = json.loads(bench_online("measure", str(nodes), str(seed)))
    fleet, request = instance(nodes, seed)
    figures["scans"]["numpy"] = asdict(NumpyPlacer(fleet, request.policy).run(request, LIMIT_S))
    return figures | {"load": machine()["load_1m_5m_15m"]}


def report_size(report: Report, nodes: int, runs: list[dict[str, Any]]) -> None:
    """The lines of one fleet size."""
    at = f"online_{nodes}_nodes"
    report.line(f"{at}_bulk", [r["placed"] / r["bulk_cold_seconds"] for r in runs], "tasks/s")
    report.line(f"{at}_bulk_cpu", [r["placed"] / r["bulk_cold_cpu_seconds"] for r in runs], "tasks/cpu-s")
    report.line(f"{at}_bulk_again", [r["placed"] / r["bulk_warm_seconds"] for r in runs], "tasks/s")
    for scan in ("first_fit", "best_fit", "numpy"):
        outcomes = [r["scans"][scan] for r in runs]
        report.line(f"{at}_bulk_{scan}", [o["placed"] / o["seconds"] for o in outcomes], "tasks/s")
    for what in ("decision", "delta", "decision_beside_links", "delta_beside_links"):
        for percentile in ("p50", "p99"):
            values = [r[f"{what}_ns"][percentile] / 1000 for r in runs]
            report.line(f"{at}_{what}_{percentile}", values, "us")
    report.line(f"{at}_tasks", [r["tasks"] for r in runs], "tasks")
    report.line(f"{at}_placed", [100 * r["placed"] / r["tasks"] for r in runs], "%")
    report.line(f"{at}_decisions_placed", [100 * r["decisions_placed"] / r["decisions"] for r in runs], "%")


def main() -> None:
    """Print one line a figure: the median over the seeds. All values go to bench/results/online.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--seeds", type=int, default=10)
    args = parser.parse_args()
    report = Report("online")
    raw = []
    for nodes in args.nodes:
        runs = [measure(nodes, seed) for seed in range(args.seeds)]
        raw += runs
        report_size(report, nodes, runs)
    report.write(raw)


if __name__ == "__main__":
    main()
