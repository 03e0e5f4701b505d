"""The allocation that Weng et al. published, and where the trace lies that they measured."""

from __future__ import annotations

import csv
from pathlib import Path

from mumian_orchestrator.bench.openb.trace import TraceFileError

DATA = Path(__file__).resolve().parents[4] / "data/openb"
"""In a checkout of the repository; no wheel carries it."""
NODES = DATA / "openb_node_list_gpu_node.csv"
TASKS = DATA / "openb_pod_list_default.csv"
PUBLISHED = DATA / "published_allocation.csv"
PERCENTS = (80, 90, 100, 110, 120, 130)
"""Arrived demand at which they tell the allocation."""
_PREFIX = "openb_pod_list_"


def workloads() -> list[Path]:
    """Every task list of the trace, the default first.

    Raises:
        TraceFileError: the trace is not there.
    """
    lists = sorted(DATA.glob(f"{_PREFIX}*.csv"), key=lambda path: (path != TASKS, path))
    if not lists:
        raise TraceFileError(f"{DATA}: no trace; run it in a checkout of the repository")
    return lists


def workload_of(tasks: Path) -> str:
    """The name of a task list in the published table, and in figures."""
    return tasks.stem.removeprefix(_PREFIX)


def published_allocation(workload: str) -> dict[str, dict[int, float]]:
    """By policy, the percent of GPUs allocated by percent of arrived demand; empty for a workload
    that they did not publish, or without the table.

    Raises:
        TraceFileError: the table is there and cannot be used.
    """
    if not PUBLISHED.exists():
        return {}
    with PUBLISHED.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["workload"] == workload]
    try:
        return {
            row["policy"]: {at: float(row[f"gpu_alloc_pct_at_arrived_{at}"]) for at in PERCENTS}
            for row in rows
        }
    except (KeyError, ValueError) as error:
        raise TraceFileError(f"{PUBLISHED}: {error}; restore the file from the repository") from error
