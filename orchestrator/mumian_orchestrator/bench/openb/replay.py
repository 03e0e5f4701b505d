"""Replays a trace through the engine, by the method of Weng et al. (USENIX ATC 2023).

Tasks arrive one after the other until they ask for 130 % of the cluster's GPUs. Each is placed as
the cluster is then, or never; none leaves and none is moved.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import accumulate

from mumian_core import Engine
from mumian_core.v1 import engine_pb2

from mumian_orchestrator.bench.openb.messages import (
    Objective,
    allocation_of,
    cluster_of,
    job_of,
    policy_of,
)
from mumian_orchestrator.bench.openb.trace import WHOLE_GPU_MILLI, TraceNode, TraceTask

END_PERCENT = 130
MOST_ARRIVALS = 2_000_000


class ReplayError(Exception):
    """A trace that cannot be replayed: what and advice."""


class Arrivals(Enum):
    """Where the arriving tasks come from."""

    DRAWN = "drawn"
    """Each drawn from the list, with replacement."""
    LISTED = "listed"
    """The whole list once, shuffled, and then drawn: what the authors' simulator does."""


@dataclass(frozen=True)
class Duration:
    """Time on the clock, and of one core."""

    seconds: float = 0.0
    core_seconds: float = 0.0

    def __add__(self, other: Duration) -> Duration:
        return Duration(self.seconds + other.seconds, self.core_seconds + other.core_seconds)


@dataclass(frozen=True)
class Replay:
    """One run.

    Args:
        allocated_percent: of the cluster's GPUs, by percent of arrived demand.
        placing: inside `Snapshot.place`, from the request's bytes to the plan's.
    """

    seed: int
    arrived: int
    placed: int
    allocated_percent: dict[int, float]
    placing: Duration

    @property
    def placements_per_second(self) -> float:
        """Of one core inside the engine, whatever else the machine does meanwhile."""
        return self.placed / self.placing.core_seconds


def arrivals(
    nodes: Sequence[TraceNode], tasks: Sequence[TraceTask], seed: int, order: Arrivals
) -> list[TraceTask]:
    """The tasks of one run in order of arrival: the first that reaches 130 % is the last.

    Raises:
        ReplayError: there would be too many.
    """
    demand_milli = END_PERCENT * capacity_milli(nodes) // 100
    mean_milli = sum(task.gpu_milli for task in tasks) / len(tasks)
    if demand_milli / mean_milli > MOST_ARRIVALS:
        raise ReplayError(
            f"about {demand_milli / mean_milli:.0f} tasks would arrive, at most {MOST_ARRIVALS} may; "
            "give fewer nodes, or fewer tasks without GPU"
        )
    arrived = []
    for task in _endless(tasks, random.Random(seed), order):
        arrived.append(task)
        demand_milli -= task.gpu_milli
        if demand_milli <= 0:
            break
    return arrived


def _endless(tasks: Sequence[TraceTask], rng: random.Random, order: Arrivals) -> Iterator[TraceTask]:
    if order is Arrivals.LISTED:
        yield from rng.sample(tasks, len(tasks))
    while True:
        yield rng.choice(tasks)


def capacity_milli(nodes: Sequence[TraceNode]) -> int:
    """All GPUs, in thousandths of one."""
    return sum(node.gpus for node in nodes) * WHOLE_GPU_MILLI


def replay(
    nodes: Sequence[TraceNode],
    tasks: Sequence[TraceTask],
    objective: Objective,
    seed: int,
    order: Arrivals = Arrivals.DRAWN,
    *,
    one_by_one: bool = False,
) -> Replay:
    """Place the arrivals of one seed on the empty cluster, by an engine that starts cold.

    Args:
        tasks: the list, which is also the workload that PACK expects.
        one_by_one: a request and a delta for each task. Otherwise all arrivals are jobs of one
            request, in which each sees those before it; the placements are the same.

    Raises:
        ReplayError: there would be too many arrivals.
    """
    arriving = arrivals(nodes, tasks, seed, order)
    placements, placing = place_all(nodes, tasks, arriving, objective, seed, one_by_one=one_by_one)
    placed = [placement is not None for placement in placements]
    allocated_milli = list(
        accumulate(task.gpu_milli * is_placed for task, is_placed in zip(arriving, placed, strict=True))
    )
    percent = allocated_percent(arriving, allocated_milli, capacity_milli(nodes))
    return Replay(seed, len(arriving), sum(placed), percent, placing)


def place_all(
    nodes: Sequence[TraceNode],
    tasks: Sequence[TraceTask],
    arriving: Sequence[TraceTask],
    objective: Objective,
    seed: int,
    *,
    one_by_one: bool,
) -> tuple[Sequence[engine_pb2.Placement | None], Duration]:
    """Where each arrival goes, with unset for those that find no place; see `replay`."""
    engine = Engine()
    engine.apply(cluster_of(nodes).SerializeToString())
    way = _one_by_one if one_by_one else _in_one_request
    return way(engine, arriving, policy_of(objective, tasks), f"openb-{seed}")


def allocated_percent(
    arriving: Sequence[TraceTask], allocated_milli: Sequence[int], capacity: int
) -> dict[int, float]:
    """GPU allocation by arrived demand, both in percent of the capacity (in milli).

    Args:
        allocated_milli: after each arrival.

    The figure at N is, as in the authors' analysis, the mean over the arrivals after which the
    arrived demand rounds to N; where there is none, as it was at the last arrival before.
    """
    sums: Counter[int] = Counter()
    counts: Counter[int] = Counter()
    arrived = 0
    newest = {0: 0}
    for task, allocated in zip(arriving, allocated_milli, strict=True):
        arrived += task.gpu_milli
        at = round(100 * arrived / capacity)
        sums[at] += allocated
        counts[at] += 1
        newest[at] = allocated
    percent = {}
    last = 0.0
    for at in range(END_PERCENT + 1):
        mean = sums[at] / counts[at] if counts[at] else last
        last = newest.get(at, last)
        percent[at] = 100 * mean / capacity
    return percent


def _in_one_request(
    engine: Engine, arriving: Sequence[TraceTask], policy: engine_pb2.Policy, evaluation_id: str
) -> tuple[list[engine_pb2.Placement | None], Duration]:
    jobs = [job_of(number, task) for number, task in enumerate(arriving)]
    plan, placing = place(engine, jobs, policy, evaluation_id)
    by_job = {placement.job_id: placement for placement in plan.placements}
    return [by_job.get(job.job_id) for job in jobs], placing


def _one_by_one(
    engine: Engine, arriving: Sequence[TraceTask], policy: engine_pb2.Policy, evaluation_id: str
) -> tuple[list[engine_pb2.Placement | None], Duration]:
    placements: list[engine_pb2.Placement | None] = []
    all_placing = Duration()
    for number, task in enumerate(arriving):
        plan, placing = place(engine, [job_of(number, task)], policy, evaluation_id)
        all_placing += placing
        placement = plan.placements[0] if plan.placements else None
        placements.append(placement)
        if placement is not None:
            delta = engine_pb2.Delta(
                base_generation=plan.base_generation, allocations=[allocation_of(placement, task)]
            )
            engine.apply(delta.SerializeToString())
    return placements, all_placing


def place(
    engine: Engine, jobs: Sequence[engine_pb2.PendingJob], policy: engine_pb2.Policy, evaluation_id: str
) -> tuple[engine_pb2.Plan, Duration]:
    """The plan for these jobs on the engine's state, each seeing those before it."""
    request = engine_pb2.PlaceRequest(evaluation_id=evaluation_id, jobs=jobs, policy=policy)
    sent = request.SerializeToString()
    snapshot = engine.snapshot()
    start, core_start = time.perf_counter(), time.thread_time()  # the engine works on this thread
    answer = snapshot.place(sent)
    placing = Duration(time.perf_counter() - start, time.thread_time() - core_start)
    return engine_pb2.Plan.FromString(answer), placing
