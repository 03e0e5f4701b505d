"""Every workload of Alibaba's GPU trace beside the published table (`make bench-openb`)."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict

from mumian_orchestrator.bench.openb.messages import Objective
from mumian_orchestrator.bench.openb.published import NODES, published_allocation, workload_of, workloads
from mumian_orchestrator.bench.openb.reoptimised import ReoptimisedReplay, replay_reoptimised
from mumian_orchestrator.bench.openb.replay import Arrivals, replay
from mumian_orchestrator.bench.openb.result import Outcome
from mumian_orchestrator.bench.openb.trace import read_nodes, read_tasks

from bench.report import Report

SHOWN_PERCENTS = (80, 100, 130)


def report_workload(
    report: Report,
    name: str,
    outcomes: Sequence[Outcome],
    reoptimised: Sequence[ReoptimisedReplay],
    published: dict[str, dict[int, float]],
) -> None:
    """The lines of one workload."""
    for at in SHOWN_PERCENTS:
        for outcome in outcomes:
            report.mean_line(
                f"openb_{name}_allocated_at_{at}_mumian_{outcome.name}", outcome.allocated(at), "%"
            )
        if reoptimised:
            values = [run.allocated_percent[at] for run in reoptimised]
            report.mean_line(f"openb_{name}_allocated_at_{at}_mumian_pack_reoptimised", values, "%")
        for policy, allocated in published.items():
            report.mean_line(
                f"openb_{name}_allocated_at_{at}_published_{policy.lower()}", [allocated[at]], "%"
            )
    for outcome in outcomes:
        speeds = [r.placements_per_second for r in outcome.replays]
        report.line(f"openb_{name}_mumian_{outcome.name}_speed", speeds, "placements/s")
    if reoptimised:
        report.line(f"openb_{name}_reoptimised_moves", [run.moves for run in reoptimised], "tasks")
        seconds = [run.seconds / max(run.optimisations, 1) for run in reoptimised]
        report.line(f"openb_{name}_reoptimised_seconds_each", seconds, "s")


def main() -> None:
    """Print one line a figure: the mean over the seeds, of speeds the median. All values go to
    bench/results/openb.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--arrivals", choices=[a.value for a in Arrivals], default=Arrivals.DRAWN.value)
    parser.add_argument(
        "--reoptimise-every", type=int, default=1000, help="arrivals between optimisations; 0: none"
    )
    args = parser.parse_args()
    order = Arrivals(args.arrivals)
    report = Report("openb" if order is Arrivals.DRAWN else f"openb-{order.value}")
    nodes = read_nodes(NODES)
    raw = []
    for path in workloads():
        tasks, name = read_tasks(path), workload_of(path)
        outcomes = [
            Outcome(objective, [replay(nodes, tasks, objective, seed, order) for seed in range(args.seeds)])
            for objective in Objective
        ]
        reoptimised = [
            replay_reoptimised(nodes, tasks, seed, order, every=args.reoptimise_every)
            for seed in range(args.seeds if args.reoptimise_every else 0)
        ]
        published = published_allocation(name)
        report_workload(report, name, outcomes, reoptimised, published)
        raw.append(
            {
                "workload": name,
                "arrivals": order.value,
                "reoptimised_every": args.reoptimise_every,
                "reoptimised": [asdict(run) for run in reoptimised],
                "outcomes": [outcome.to_json() for outcome in outcomes],
                "published_gpu_allocated_percent": published,
            }
        )
    report.write(raw)


if __name__ == "__main__":
    main()
