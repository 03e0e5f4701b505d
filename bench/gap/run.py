"""The generalized assignment instances in data/gap through the optimiser (`make bench-gap`).

The file of results keeps, for each instance and time limit, the cost, the bound and how they came together.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict
from statistics import mean

from mumian_orchestrator.bench.gap.best_known import best_known_of
from mumian_orchestrator.bench.gap.orlib import read_instances
from mumian_orchestrator.bench.gap.solve import GapResult, solve

from bench.report import ROOT, Report

FOLDER = ROOT / "data/gap"


def report_mean(report: Report, name: str, results: list[GapResult]) -> None:
    """Over the hard types, D and E, together: the figures that we aim at."""
    hard = [result for result in results if result.instance[0] in "de"]
    for of, gaps in {
        "to_best_known": [r.gap_to_best_known_percent for r in hard],
        "to_bound": [r.gap_to_bound_percent for r in hard],
    }.items():
        known = [gap for gap in gaps if gap is not None]
        if len(known) == len(hard):
            report.line(f"{name}_types_d_e_gap_{of}_mean", mean(known), "%")
            report.line(f"{name}_types_d_e_gap_{of}_worst", max(known), "%")


def main() -> None:
    """Print one line a figure. All values go to bench/results/gap.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, nargs="+", default=[1, 10])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    best_known = best_known_of(FOLDER)
    instances = [instance for name in best_known for instance in read_instances(FOLDER / name)]
    report = Report("gap")
    raw = []
    for seconds in args.seconds:
        results = []
        for instance in instances:
            result = solve(instance, best_known[instance.name], seconds, args.threads, args.seed)
            for name, value, unit in result.figures():
                report.line(f"gap_{seconds:g}s_{instance.name}_{name}", value, unit)
            results.append(result)
        report_mean(report, f"gap_{seconds:g}s", results)
        raw += [asdict(result) for result in results]
    report.write(raw)


if __name__ == "__main__":
    main()
