"""The optimiser against CP-SAT and HiGHS on the same instances (`make bench-global`).

Every solver gets the same feasible pairs, costs and capacities, the same cores and the same time;
they run one after the other. The peers' model counts the tasks of a job on a node, so that it has
a variable for each job and node and not for each task and node.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
from collections.abc import Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from mumian_core import Engine

from bench.global_placement.instance import Size, generate
from bench.global_placement.ours import optimize, run_ours
from bench.global_placement.pairs import ask_engine
from bench.global_placement.peers import SOLVERS, PeerError, run_peer
from bench.global_placement.trace import Run, best_bound, gap_percent
from bench.report import Report, machine

# A solution is said to be within so many percent of the best bound that any solver proved.
STEPS_PERCENT = (5, 1)
DEFAULT_CASES = ("100x20:10", "1000x100:20", "10000x1000:60")


def measure(size: Size, seed: int, seconds: float, threads: int, peers: Sequence[str]) -> dict[str, Any]:
    """One instance through all solvers."""
    instance = generate(size, seed)
    engine = Engine()
    engine.apply(instance.delta.SerializeToString())
    snapshot = engine.snapshot()
    answer, took = optimize(instance, snapshot, seconds, threads)
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    runs = [run_ours(instance, snapshot, answer, took)]
    del answer
    if peers:
        table = ask_engine(instance)
        runs += [run_peer(peer, instance, table, snapshot, seconds, threads) for peer in peers]
    for run in runs:
        if run.objective is not None and not run.accepted:
            raise SystemExit(f"{size}, seed {seed}: the engine's verifier refuses what {run.solver} found")
    bound = best_bound(runs)
    return {
        "size": str(size),
        "seed": seed,
        "time_limit_seconds": seconds,
        "threads": threads,
        "jobs": len(instance.jobs),
        "loads": instance.loads(),
        "best_bound": bound,
        "peak_memory_mib": peak_mib,
        "load": machine()["load_1m_5m_15m"],
        "runs": {run.solver: _judged(run, bound) for run in runs},
    }


def _judged(run: Run, bound: int | None) -> dict[str, Any]:
    """The run with its distance from the best bound and from its own, and the seconds to each step."""
    within = {
        f"to_{step}_percent_seconds": None if bound is None else run.seconds_to(bound * (1 + step / 100))
        for step in STEPS_PERCENT
    }
    return {
        **asdict(run),
        "gap_percent": gap_percent(run.objective, bound),
        "own_gap_percent": gap_percent(run.objective, run.bound),
        "first_feasible_seconds": run.points[0][0] if run.points else None,
        **within,
    }


def report_size(report: Report, size: Size, records: Sequence[dict[str, Any]]) -> None:
    """The lines of one size: medians over the seeds, where more than half of them got there."""
    for solver in records[0]["runs"]:
        runs = [record["runs"][solver] for record in records]
        steps = [(f"to_{step}_percent", f"to_{step}_percent_seconds") for step in STEPS_PERCENT]
        for name, key in [("first_feasible", "first_feasible_seconds"), *steps]:
            values = [run[key] for run in runs]
            reached = [value for value in values if value is not None]
            report.line(f"global_{size}_{solver}_{name}_reached", 100 * len(reached) / len(runs), "%")
            if 2 * len(reached) > len(runs):
                report.line(f"global_{size}_{solver}_{name}", _median(values), "s")
        placed = [100 * run["placed_tasks"] / size.tasks for run in runs]
        report.line(f"global_{size}_{solver}_placed", placed, "%")
        report.line(f"global_{size}_{solver}_seconds", [run["seconds"] for run in runs], "s")
        for name in ("gap", "own_gap"):
            gaps = [run[f"{name}_percent"] for run in runs if run[f"{name}_percent"] is not None]
            if gaps:
                report.line(f"global_{size}_{solver}_{name}", gaps, "%")
    # The peak of this process, generator and messages included; it never goes down from size to size.
    report.line(f"global_{size}_peak_memory", max(record["peak_memory_mib"] for record in records), "MiB")


def _median(values: Sequence[float | None]) -> float:
    """Those that never got there count as later than all others."""
    return median(float("inf") if value is None else value for value in values)


def _case(text: str) -> tuple[Size, float]:
    """`1000x100:20`: the size and the seconds for each solver."""
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*):(\d+(?:\.\d+)?)", text)
    if found is None or int(found[2]) < 4:
        raise argparse.ArgumentTypeError(f"{text!r} is no case; give TASKSxNODES:SECONDS, four nodes or more")
    return Size(int(found[1]), int(found[2])), float(found[3])


def main() -> None:
    """Print one line a figure. All values go to bench/results/NAME.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "cases",
        nargs="*",
        metavar="TASKSxNODES:SECONDS",
        type=_case,
        default=[_case(c) for c in DEFAULT_CASES],
    )
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--peer", choices=[*SOLVERS, "none"], action="append", help="only these; default: all"
    )
    parser.add_argument("--name", default="global", help="of the file of results")
    args = parser.parse_args()
    peers = [peer for peer in args.peer or SOLVERS if peer != "none"]
    report = Report(args.name)
    raw = []
    for size, seconds in args.cases:
        try:
            records = [measure(size, seed, seconds, args.threads, peers) for seed in range(args.seeds)]
        except PeerError as error:
            raise SystemExit(str(error)) from error
        raw += records
        report_size(report, size, records)
    report.write(raw)


if __name__ == "__main__":
    main()
