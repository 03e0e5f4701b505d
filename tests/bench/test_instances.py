"""Generated placement problems: the same each time, solvable, and in the engine's own numbers."""

from __future__ import annotations

import pytest
from mumian_core import Engine, Snapshot
from mumian_core.v1.engine_pb2 import PlaceRequest, Plan

from bench.global_placement.instance import POLICY, Instance, Size, generate
from bench.global_placement.pairs import ask_engine
from bench.global_placement.plans import places_all, plan_of

SIZES = [Size(40, 12), Size(300, 40)]


def snapshot_of(instance: Instance) -> Snapshot:
    engine = Engine()
    engine.apply(instance.delta.SerializeToString())
    return engine.snapshot()


def bytes_of(instance: Instance) -> bytes:
    # Maps have no order of their own in a message's bytes unless one asks for it.
    messages = [instance.delta, *instance.jobs]
    return b"".join(message.SerializeToString(deterministic=True) for message in messages)


def planted_counts(instance: Instance) -> list[tuple[int, int, int]]:
    """Job, node and number of tasks of the solution that came with the instance."""
    return [(job, node, 1) for job, nodes in enumerate(instance.planted) for node in nodes]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_seed_gives_the_same_bytes_each_time_and_another_seed_gives_others(size: Size) -> None:
    assert bytes_of(generate(size, 1)) == bytes_of(generate(size, 1))
    assert bytes_of(generate(size, 1)) != bytes_of(generate(size, 2))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_planted_solution_places_every_task_and_the_engine_accepts_it(size: Size, seed: int) -> None:
    instance = generate(size, seed)
    assert sum(map(len, instance.planted)) == size.tasks
    assert places_all(instance, snapshot_of(instance), plan_of(instance, planted_counts(instance)))


def test_a_plan_that_leaves_out_a_task_or_overloads_a_node_does_not_pass() -> None:
    instance = generate(SIZES[0], 0)
    snapshot = snapshot_of(instance)
    counts = planted_counts(instance)
    assert not places_all(instance, snapshot, plan_of(instance, counts[1:]))
    onto_one = [(job, 0, count) for job, _, count in counts]
    assert not places_all(instance, snapshot, plan_of(instance, onto_one))


@pytest.mark.parametrize("size", [Size(300, 40), Size(2000, 200)], ids=str)
def test_the_load_is_about_85_percent_of_four_resources(size: Size) -> None:
    loads = generate(size, 0).loads()
    assert sorted(loads) == ["Ascend-910B", "H100", "cpu", "memory"]
    assert all(0.75 <= load <= 0.95 for load in loads.values()), loads


@pytest.mark.parametrize("seed", range(3))
def test_the_table_of_pairs_is_what_the_engine_charges_and_admits_on_the_whole_cluster(seed: int) -> None:
    instance = generate(SIZES[1], seed)
    table = ask_engine(instance)
    node_of = {node.id: number for number, node in enumerate(instance.delta.nodes)}
    job_of = {job.job_id: number for number, job in enumerate(instance.jobs)}
    request = PlaceRequest(evaluation_id="e", jobs=instance.jobs, policy=POLICY)
    plan = Plan.FromString(snapshot_of(instance).place(request.SerializeToString()))
    assert len(plan.placements) > 0.8 * SIZES[1].tasks
    for placement in plan.placements:
        node_class = table.node_classes[node_of[placement.node_id]]
        cost = table.costs[job_of[placement.job_id]][node_class]
        assert cost == placement.cost.total_microcny_per_hour
    for job, nodes in enumerate(instance.planted):
        assert all(table.costs[job][table.node_classes[node]] is not None for node in nodes)
    assert any(cost is None for row in table.costs for cost in row)
