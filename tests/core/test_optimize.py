"""The global optimiser and what-if across the border."""

from __future__ import annotations

import random
import threading

import pytest
from mumian.api.v1.fleet_pb2 import HEALTH_DRAINING, HEALTH_READY, Node, Prices, Site
from mumian.api.v1.job_pb2 import JobSpec, TaskGroup
from mumian.api.v1.resources_pb2 import Resources
from mumian_core import CancelToken, CoreError, Engine, Snapshot, solve_assignment
from mumian_core.v1.assess_pb2 import AssessRequest, AssessResponse
from mumian_core.v1.engine_pb2 import Delta, PendingJob, PlaceRequest, Plan, Policy, UsedResources
from mumian_core.v1.optimize_pb2 import (
    STOP_REASON_CANCELLED,
    STOP_REASON_ROUNDS,
    AssignmentRequest,
    AssignmentResponse,
    OptimizeRequest,
    OptimizeResponse,
    RunningTask,
    Stop,
)

CORE_CNY_MICRO = {"dear": 900, "cheap": 100}


def site(site_id: str) -> Site:
    """A site whose cores have the price of its name."""
    return Site(
        id=site_id, health=HEALTH_READY, prices=Prices(cpu_core_hour_microcny=CORE_CNY_MICRO[site_id])
    )


def engine_of_two_sites(cheap_cpu_milli: int = 4000) -> Engine:
    """Sites `dear` and `cheap`, one node each."""
    nodes = [
        Node(id=f"{s}/n1", site_id=s, health=HEALTH_READY, cpu_milli=cpu, memory_mib=8192)
        for s, cpu in (("dear", 4000), ("cheap", cheap_cpu_milli))
    ]
    engine = Engine()
    engine.apply(Delta(reset=True, sites=[site(s) for s in CORE_CNY_MICRO], nodes=nodes).SerializeToString())
    return engine


def job(job_id: str, count: int, cpu_milli: int) -> PendingJob:
    """A batch of equal tasks."""
    group = TaskGroup(name="main", count=count, resources=Resources(cpu_milli=cpu_milli, memory_mib=64))
    return PendingJob(job_id=job_id, spec=JobSpec(name=job_id, task_groups=[group]))


def optimize(snapshot: Snapshot, request: OptimizeRequest) -> OptimizeResponse:
    """The answer as a message."""
    return OptimizeResponse.FromString(snapshot.optimize(request.SerializeToString()))


def test_jobs_placed_jointly_cost_less_than_one_by_one_and_the_bound_proves_how_good_that_is() -> None:
    # One by one the small task takes the cheap room that only it leaves half empty.
    jobs = [job("small", 1, 1000), job("large", 1, 4000)]
    request = OptimizeRequest(evaluation_id="e", jobs=jobs, stop=Stop(rounds_max=20, threads=1))
    answer = optimize(engine_of_two_sites().snapshot(), request)
    where = {p.job_id: p.site_id for p in answer.plan.placements}
    assert where == {"small": "dear", "large": "cheap"}
    assert answer.found.cost_microcny_per_hour == 900 + 400
    assert answer.start.cost_microcny_per_hour == 100 + 3600
    assert answer.bound_microcny_per_hour <= 1300


def test_a_price_tells_what_one_more_core_at_a_full_site_saves() -> None:
    request = OptimizeRequest(
        evaluation_id="e", jobs=[job("j", 6, 1000)], stop=Stop(rounds_max=20, threads=1)
    )
    costs = [
        optimize(engine_of_two_sites(cheap_cpu_milli=cpu).snapshot(), request).found.cost_microcny_per_hour
        for cpu in (4000, 5000)
    ]
    answer = optimize(engine_of_two_sites().snapshot(), request)
    price = next(p for p in answer.prices if (p.site_id, p.resource) == ("cheap", "cpu"))
    assert price.microcny_per_hour == pytest.approx(costs[0] - costs[1], rel=0.05)
    assert not [p for p in answer.prices if p.site_id == "dear"], (
        "where there is room, more of it saves nothing"
    )


def test_a_running_task_moves_when_its_site_drains_and_the_view_it_was_asked_on_stays_as_it_was() -> None:
    engine = engine_of_two_sites()
    running = job("j", 1, 1000)
    group = running.spec.task_groups[0]
    allocation = UsedResources(
        allocation_id="a", node_id="cheap/n1", resources=group.resources, job_id="j", task_group="main"
    )
    engine.apply(Delta(base_generation=engine.generation(), allocations=[allocation]).SerializeToString())
    view = engine.snapshot()
    draining = site("cheap")
    draining.health = HEALTH_DRAINING
    drained = view.what_if(Delta(base_generation=engine.generation(), sites=[draining]).SerializeToString())
    request = OptimizeRequest(
        evaluation_id="e",
        jobs=[running],
        running=[RunningTask(allocation_id="a", job_id="j", task_group="main")],
        stop=Stop(rounds_max=20, threads=1),
    )
    assert [m.to_node_id for m in optimize(drained, request).moves] == ["dear/n1"]
    assert not optimize(view, request).moves
    assert not optimize(engine.snapshot(), request).moves


@pytest.mark.parametrize(("migration_microcny", "moves"), [(0, 1), (7900, 1), (8000, 0)])
def test_a_move_that_costs_as_much_as_it_saves_is_not_made(migration_microcny: int, moves: int) -> None:
    engine = engine_of_two_sites()
    running = job("j", 1, 1000)
    allocation = UsedResources(
        allocation_id="a",
        node_id="dear/n1",
        resources=running.spec.task_groups[0].resources,
        job_id="j",
        task_group="main",
    )
    engine.apply(Delta(base_generation=engine.generation(), allocations=[allocation]).SerializeToString())
    request = OptimizeRequest(
        evaluation_id="e",
        jobs=[running],
        running=[RunningTask(allocation_id="a", job_id="j", task_group="main")],
        policy=Policy(migration_microcny=migration_microcny, migration_horizon_h=10),
        stop=Stop(rounds_max=20, threads=1),
    )
    answer = optimize(engine.snapshot(), request)
    assert len(answer.moves) == moves
    for placement in answer.plan.placements:
        assert placement.cost.migration_microcny_per_hour == migration_microcny // 10
        assert answer.found.cost_microcny_per_hour == placement.cost.total_microcny_per_hour + (
            migration_microcny == 0
        )


def test_a_what_if_whose_base_is_not_the_view_is_refused() -> None:
    with pytest.raises(CoreError) as refusal:
        engine_of_two_sites().snapshot().what_if(Delta(base_generation=99).SerializeToString())
    assert refusal.value.args[0] == "RESYNC_NEEDED"


def test_the_same_request_gives_the_same_bytes_on_any_number_of_threads() -> None:
    snapshot = engine_of_two_sites().snapshot()
    jobs = [job(f"j{i}", 2, 300 * (1 + i % 3)) for i in range(6)]
    answers = {
        snapshot.optimize(
            OptimizeRequest(
                evaluation_id="e", jobs=jobs, stop=Stop(rounds_max=15, threads=threads)
            ).SerializeToString()
        )
        for threads in (1, 2, 3)
    }
    # Only the clock may differ.
    told = {OptimizeResponse.FromString(a).plan.SerializeToString(deterministic=True) for a in answers}
    assert len(told) == 1


def test_a_cancelled_run_answers_with_what_it_has() -> None:
    # What is cheap is heavy, as in the instances of type D: far from solved when the wish comes.
    agents, count = 20, 400
    numbers = random.Random(1)
    weight = [numbers.randint(1, 100) for _ in range(agents * count)]
    cost = [111 - each + numbers.randint(-10, 10) for each in weight]
    capacity = [sum(weight) * 8 // (10 * agents * agents)] * agents
    request = AssignmentRequest(agents=agents, tasks=count, cost=cost, weight=weight, capacity=capacity)
    token = CancelToken()
    threading.Timer(0.2, token.cancel).start()
    answer = AssignmentResponse.FromString(solve_assignment(request.SerializeToString(), token))
    assert answer.stop_reason == STOP_REASON_CANCELLED
    assert len(answer.agent) == count


def test_rounds_end_a_run() -> None:
    request = AssignmentRequest(
        agents=2, tasks=3, cost=[3, 1, 2, 2, 3, 1], weight=[1] * 6, capacity=[2, 2], stop=Stop(rounds_max=5)
    )
    answer = AssignmentResponse.FromString(solve_assignment(request.SerializeToString()))
    assert (answer.cost, answer.unplaced_task_count, list(answer.agent)) == (4, 0, [1, 0, 1])
    assert answer.bound <= 4
    assert answer.stop_reason in (STOP_REASON_ROUNDS, 4)


def test_bytes_that_are_no_message_are_refused() -> None:
    with pytest.raises(CoreError) as refusal:
        solve_assignment(b"\xff\xff\xff")
    assert refusal.value.args[0] == "INVALID_MESSAGE"


def test_placing_on_a_what_if_does_not_disturb_the_engine_that_it_came_from() -> None:
    engine = engine_of_two_sites()
    request = PlaceRequest(evaluation_id="e", jobs=[job("j", 1, 4000)]).SerializeToString()
    view = engine.snapshot()
    before = Plan.FromString(view.place(request))
    lost = view.what_if(
        Delta(base_generation=engine.generation(), removed_site_ids=["cheap"]).SerializeToString()
    )
    assert [p.site_id for p in Plan.FromString(lost.place(request)).placements] == ["dear"]
    # The engine goes on to the generation that the what-if has, with another change.
    dearer = site("cheap")
    dearer.prices.cpu_core_hour_microcny = 200
    engine.apply(Delta(base_generation=engine.generation(), sites=[dearer]).SerializeToString())
    assert [p.site_id for p in Plan.FromString(engine.snapshot().place(request)).placements] == ["cheap"]
    assert Plan.FromString(view.place(request)) == before


def test_tasks_are_assessed_and_arranged_at_the_prices_of_the_hour_that_is_named() -> None:
    engine = engine_of_two_sites()
    sites = [
        Site(id=name, health=HEALTH_READY, prices=Prices(energy_kwh_microcny=100)) for name in CORE_CNY_MICRO
    ]
    for each, by_hour in zip(sites, ([100, 900], [500, 500]), strict=True):
        each.pue.average_permille = each.pue.marginal_permille = 1000
        each.forecast.first_hour_unix_s = 3600
        for price in by_hour:
            each.forecast.hours.add(energy_kwh_microcny=price * 1000)
    nodes = [Node(id=f"{s.id}/n1", site_id=s.id, health=HEALTH_READY, cpu_milli=4000, memory_mib=8192,
                  core_active_power_mw=1_000_000) for s in sites]  # fmt: skip
    used = UsedResources(allocation_id="a", node_id="dear/n1", job_id="j", task_group="main",
                         resources=Resources(cpu_milli=1000, memory_mib=64))  # fmt: skip
    engine.apply(Delta(reset=True, sites=sites, nodes=nodes, allocations=[used]).SerializeToString())
    running = [RunningTask(allocation_id="a", job_id="j", task_group="main")]
    found = []
    for now_unix_s in (0, 3600, 2 * 3600):
        asked = AssessRequest(jobs=[job("j", 1, 1000)], running=running, now_unix_s=now_unix_s)
        [assessed] = AssessResponse.FromString(
            engine.snapshot().assess(asked.SerializeToString())
        ).assessments
        request = OptimizeRequest(evaluation_id="e", jobs=asked.jobs, running=running, now_unix_s=now_unix_s,
                                  stop=Stop(rounds_max=5, threads=1))  # fmt: skip
        moves = optimize(engine.snapshot(), request).moves
        found.append((assessed.cost.energy_microcny_per_hour, [move.to_node_id for move in moves]))
    # 1 kW: no time means the flat price of 100 micro-CNY; then 0.1 and 0.9 CNY here, 0.5 CNY elsewhere.
    assert found == [(100, []), (100_000, []), (900_000, ["cheap/n1"])]
