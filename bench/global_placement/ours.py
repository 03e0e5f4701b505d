"""Runs the engine's own optimiser on an instance."""

from __future__ import annotations

import time
from importlib.metadata import version

from mumian_core import Snapshot
from mumian_core.v1.optimize_pb2 import OptimizeRequest, OptimizeResponse, Stop, StopReason

from bench.global_placement.instance import POLICY, Instance
from bench.global_placement.plans import places_all
from bench.global_placement.trace import Run


def optimize(
    instance: Instance, snapshot: Snapshot, seconds: float, threads: int
) -> tuple[OptimizeResponse, float]:
    """Place all jobs of the instance.

    Returns:
        The answer, and the seconds that the engine took.
    """
    request = OptimizeRequest(
        evaluation_id=f"{instance.size}/{instance.seed}",
        jobs=instance.jobs,
        policy=POLICY,
        stop=Stop(time_limit_ms=round(seconds * 1000), threads=threads),
    ).SerializeToString()
    started = time.perf_counter()
    answer = snapshot.optimize(request)
    took = time.perf_counter() - started
    return OptimizeResponse.FromString(answer), took


def run_ours(instance: Instance, snapshot: Snapshot, answer: OptimizeResponse, seconds: float) -> Run:
    """What the answer is worth; the engine's verifier is asked of every placement."""
    complete = answer.found.unplaced_task_count == 0
    cost = sum(p.cost.total_microcny_per_hour for p in answer.plan.placements)
    if cost != answer.found.cost_microcny_per_hour:
        raise AssertionError(f"the placements cost {cost}, the account says {answer.found}")
    return Run(
        solver="mumian",
        version=version("mumian-core"),
        status=StopReason.Name(answer.stop_reason).removeprefix("STOP_REASON_").lower(),
        seconds=seconds,
        build_seconds=0.0,
        placed_tasks=answer.found.placed_task_count,
        objective=cost if complete else None,
        bound=answer.bound_microcny_per_hour,
        points=[
            (p.elapsed_ms / 1000, p.objective_microcny_per_hour)
            for p in answer.progress
            if p.unplaced_task_count == 0
        ],
        accepted=complete and places_all(instance, snapshot, answer.plan),
    )
