"""bound <= optimum <= found, through the border, against trying everything and against CP-SAT."""

from __future__ import annotations

from itertools import product
from random import Random

import pytest
from mumian_core import Engine
from mumian_orchestrator.bench.gap.orlib import GapInstance
from mumian_orchestrator.bench.gap.solve import solve

from bench.global_placement.instance import Size, generate
from bench.global_placement.ours import optimize, run_ours
from bench.global_placement.pairs import ask_engine
from bench.global_placement.peers import PYTHON, model_of, run_peer
from bench.global_placement.trace import Run
from bench.peers.model import Model
from tests.bench.exhaustive import optimum

SECONDS = 2.0


def ours_on(size: Size, seed: int) -> Run:
    instance = generate(size, seed)
    engine = Engine()
    engine.apply(instance.delta.SerializeToString())
    snapshot = engine.snapshot()
    answer, took = optimize(instance, snapshot, SECONDS, threads=1)
    return run_ours(instance, snapshot, answer, took)


@pytest.mark.parametrize("seed", range(6))
def test_on_tiny_cities_the_optimum_by_trying_everything_lies_between_bound_and_found(seed: int) -> None:
    instance = generate(Size(8, 4), seed)
    least = optimum(Model.of(model_of(instance, ask_engine(instance))))
    run = ours_on(Size(8, 4), seed)
    assert run.accepted
    assert least is not None and run.bound is not None and run.objective is not None
    assert run.bound <= least <= run.objective


@pytest.mark.skipif(not PYTHON.exists(), reason="the solvers are installed by `make peers`")
@pytest.mark.parametrize("seed", range(3))
def test_on_small_cities_the_optimum_of_cp_sat_lies_between_bound_and_found(seed: int) -> None:
    instance = generate(Size(40, 12), seed)
    engine = Engine()
    engine.apply(instance.delta.SerializeToString())
    peer = run_peer("cp-sat", instance, ask_engine(instance), engine.snapshot(), seconds=60, threads=2)
    assert peer.status == "optimal"
    run = ours_on(Size(40, 12), seed)
    assert run.accepted
    assert peer.objective is not None and run.bound is not None and run.objective is not None
    assert run.bound <= peer.objective <= run.objective


def random_assignment(seed: int) -> GapInstance:
    """Six jobs for three agents, tight or not solvable at all."""
    rng = Random(seed)
    pairs = range(18)
    return GapInstance(
        name=f"random-{seed}",
        agents=3,
        jobs=6,
        cost=[rng.randint(10, 50) for _ in pairs],
        weight=[rng.randint(5, 25) for _ in pairs],
        capacity=[rng.randint(20, 40) for _ in range(3)],
    )


def least_cost(instance: GapInstance) -> int | None:
    """Over every way to give each job an agent."""
    costs = []
    for agents in product(range(instance.agents), repeat=instance.jobs):
        loads = [0] * instance.agents
        for job, agent in enumerate(agents):
            loads[agent] += instance.weight[agent * instance.jobs + job]
        if all(load <= has for load, has in zip(loads, instance.capacity, strict=True)):
            costs.append(sum(instance.cost[a * instance.jobs + j] for j, a in enumerate(agents)))
    return min(costs, default=None)


@pytest.mark.parametrize("seed", range(20))
def test_on_tiny_assignment_tables_the_optimum_lies_between_bound_and_found(seed: int) -> None:
    instance = random_assignment(seed)
    least = least_cost(instance)
    result = solve(instance, best_known=least, seconds=SECONDS, threads=1, seed=seed)
    if least is None:
        assert result.unassigned_jobs > 0
        assert result.gap_to_bound_percent is None
        return
    assert result.bound <= least
    if result.unassigned_jobs == 0:
        assert least <= result.cost
