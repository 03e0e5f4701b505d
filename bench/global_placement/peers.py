"""Runs another solver on the same instance, in a process and an environment of its own."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from mumian_core import Snapshot

from bench.global_placement.instance import Instance
from bench.global_placement.pairs import PairTable
from bench.global_placement.plans import places_all, plan_of
from bench.global_placement.trace import Run
from bench.report import ROOT

SOLVERS = ("cp-sat", "highs")
PYTHON = ROOT / "bench/peers/.venv/bin/python"
# Building its model and reading the result are not limited; a solver that hangs is.
PATIENCE_SECONDS = 600


class PeerError(Exception):
    """A solver that is not there or did not answer."""


def model_of(instance: Instance, table: PairTable) -> dict[str, Any]:
    """The instance as `bench/peers/model.py` reads it: cores, memory and whole devices; a job is a kind."""
    demands, capacities = [], []
    for job in instance.jobs:
        resources = job.spec.task_groups[0].resources
        demands.append([resources.cpu_milli, resources.memory_mib, resources.accelerators.milli // 1000])
    for node in instance.delta.nodes:
        devices = sum(accelerator.count for accelerator in node.accelerators)
        capacities.append([node.cpu_milli, node.memory_mib, devices])
    return {
        "kind_counts": [len(nodes) for nodes in instance.planted],
        "kind_demands": demands,
        "node_capacities": capacities,
        "node_classes": table.node_classes,
        "costs": table.costs,
    }


def run_peer(
    solver: str, instance: Instance, table: PairTable, snapshot: Snapshot, seconds: float, threads: int
) -> Run:
    """Solve the instance and check the answer with the engine.

    Args:
        snapshot: of an engine that holds the instance's cluster and nothing else.

    Raises:
        PeerError: the solver is not installed, or failed.
    """
    if not PYTHON.exists():
        raise PeerError(f"{PYTHON} is not there; install the solvers with `make peers`")
    with tempfile.TemporaryDirectory(prefix="mumian-bench-") as folder:
        model, answer = Path(folder, "model.json"), Path(folder, "answer.json")
        model.write_text(json.dumps(model_of(instance, table)))
        limits = [f"--seconds={seconds}", f"--threads={threads}", f"--seed={instance.seed}"]
        done = subprocess.run(
            [PYTHON, "-m", "bench.peers.solve", solver, model, answer, *limits],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=seconds + PATIENCE_SECONDS,
            check=False,
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise PeerError(f"{solver} ended with {done.returncode} on {instance.size}: {last}")
        found = json.loads(answer.read_text())
    plan = plan_of(instance, found["placed"])
    return Run(
        solver=solver,
        version=found["version"],
        status=found["status"],
        seconds=found["solve_seconds"],
        build_seconds=found["build_seconds"],
        placed_tasks=len(plan.placements),
        objective=found["objective"],
        bound=None if found["bound"] is None else round(found["bound"]),
        points=[(seconds, cost) for seconds, cost in found["trace"]],
        accepted=bool(plan.placements) and places_all(instance, snapshot, plan),
    )
