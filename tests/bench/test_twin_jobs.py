"""The twin: jobs of several tasks, limits between them, congested links, idle power, room at sites."""

from __future__ import annotations

import copy
import dataclasses
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from mumian_core import Engine
from mumian_core.v1 import engine_pb2
from mumian_orchestrator.bench.sim import world
from mumian_orchestrator.bench.sim.arrivals import Arrival
from mumian_orchestrator.bench.sim.fields import ScenarioError
from mumian_orchestrator.bench.sim.forms import scaled, short_form
from mumian_orchestrator.bench.sim.links import link_messages, links_at
from mumian_orchestrator.bench.sim.planning import Nodes, Planner, demand
from mumian_orchestrator.bench.sim.policies import POLICIES, Room, Task
from mumian_orchestrator.bench.sim.policies.solver import cost_microcny_per_hour
from mumian_orchestrator.bench.sim.report.figures import figures
from mumian_orchestrator.bench.sim.runner import Run
from mumian_orchestrator.bench.sim.scenario import Scenario, load, read
from mumian_orchestrator.bench.sim.simulation import Simulation

SCENARIOS = Path(__file__).parents[2] / "bench/scenarios"
# A party: renderers near the headsets and near their world; training within one site; copies at many sites.
JOBS = """
- name: party
  tenant: game
  priority: 70
  kind: gang
  arrivals: {per_hour: 10}
  run_time_s: 1800
  groups:
    - {name: renderer, count: 3, cpu_milli: 2000, memory_mib: 2048, slo_budget_ms: 20, compute_ms: 6,
       client_ms: 9, spreads: [{topology: node, max_tasks: 2}], near: [{group: world, budget_ms: 12}]}
    - {name: world, cpu_milli: 4000, memory_mib: 4096, compute_ms: 3,
       apart_from: [{topology: node, group: renderer}]}
- {name: training, tenant: lab, kind: gang, count: 3, cpu_milli: 12000, memory_mib: 16384,
   arrivals: {per_hour: 1}, run_time_s: 1800, near: [{group: main, budget_ms: 1}]}
- {name: copies, tenant: bank, count: 3, cpu_milli: 2000, memory_mib: 1024, arrivals: {per_hour: 6},
   run_time_s: 86400, run_time_fixed: 1,
   spreads: [{topology: operator, max_tasks: 2}, {topology: site, max_tasks: 1}]}
"""


def small(**changed: Any) -> dict[str, Any]:
    """The small scenario's mapping without events, changed."""
    raw = yaml.safe_load((SCENARIOS / "small.yaml").read_text())
    return {**raw, "events": [], **copy.deepcopy(changed)}


def with_groups(hours: float) -> Scenario:
    """Jobs of several tasks on the small fleet."""
    return read(small(jobs=yaml.safe_load(JOBS), duration_h=hours))


def run(scenario: Scenario, policy: str = "ours", mode: str = "core", readings: int = 0) -> Simulation:
    """One run."""
    return Run(scenario, policy, mode, readings=readings).simulate(1, keeps_placements=True)


def test_jobs_of_several_tasks_are_placed_alike_by_the_engine_and_by_all_services() -> None:
    scenario = with_groups(3)
    by_core, by_services = run(scenario, readings=2), run(scenario, mode="services", readings=2)
    assert len({p.task_id for p in by_core.placements if "." in p.task_id}) > 50
    assert sorted(by_core.placements) == sorted(by_services.placements)
    assert figures(by_core) == figures(by_services)


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_places_gangs_whole_and_keeps_the_limits_between_tasks(policy: str) -> None:
    made = run(with_groups(2), policy, readings=2)
    found = figures(made)
    assert found["starts"] == found["arrived"] - found["waiting_at_end"]  # type: ignore[operator]
    of_job: defaultdict[str, dict[str, tuple[str, str]]] = defaultdict(dict)
    for placed in made.placements:
        of_job[placed.task_id.partition(".")[0]][placed.task_id] = (placed.site_id, placed.node_id)
    assert len(of_job) > 15
    for job_id, places in of_job.items():
        sites, nodes = [site for site, _ in places.values()], [node for _, node in places.values()]
        match job_id[:2]:
            case "c0":
                assert len(places) == 4, "a gang starts whole"
                assert nodes.count(places[f"{job_id}.1.0"][1]) == 1, "the world is alone on its node"
                assert max(Counter(nodes).values()) <= 2
            case "c1":
                assert (len(places), len(set(sites))) == (3, 1)
            case _:
                assert len(set(sites)) == len(sites)
                operators = Counter({"gz-tianhe": "op-a"}.get(site, "op-b") for site in sites)
                assert max(operators.values()) <= 2


def test_a_group_that_is_near_nobody_is_refused_by_its_name() -> None:
    raw = small(jobs=yaml.safe_load(JOBS))
    raw["jobs"][0]["groups"][0]["near"][0]["group"] = "wrld"
    with pytest.raises(ScenarioError, match=r"near \('wrld'\) is unknown; did you mean world"):
        read(raw)


def one_task(**more: Any) -> dict[str, Any]:
    """A task of 2 cores for an hour and nothing else, on a hub of 4 machines."""
    raw = small(duration_h=2)
    raw["sites"] = [site for site in raw["sites"] if site["id"] == "hub"]
    raw["jobs"] = [
        {**raw["jobs"][1], "arrivals": {"at_s": [0]}, "run_time_s": 3600, "run_time_fixed": 1, **more}
    ]
    return raw


def test_idle_power_is_counted_beside_the_tasks_and_machines_that_sleep_take_none() -> None:
    raw = one_task()
    raw["sites"][0]["nodes"][0]["idle_power_mw"] = 50_000
    found = figures(run(read(raw)))
    # 4 machines x 50 W x 2 h x PUE 1.2 = 480 Wh; x 0.3 kg; x 0.5 CNY.
    assert (found["idle_kwh"], found["idle_carbon_kg"], found["idle_cny"]) == (0.48, 0.144, 0.24)
    assert (found["meter_kwh"], found["it_kwh"]) == (0.0096, 0.008), "as without it"
    raw["sites"][0]["nodes"][0]["sleeps"] = 1
    assert figures(run(read(raw)))["idle_kwh"] == 0.06, "one machine for one hour"
    raw["events"] = [{"kind": "site_loss", "site": "hub", "at_h": 0.5, "for_h": 0.25}]
    assert figures(run(read(raw)))["idle_kwh"] == 0.09, "half an hour, and the whole hour again"


def test_load_makes_round_trips_longer_and_breaks_promises() -> None:
    raw = one_task(mbps=50, slo_budget_ms=10, zones=["nansha"])
    raw["rtt"] = {"fixed_us": 1000, "us_per_km": 0, "p99_factor": 2, "queue_us": 2000}
    raw["sites"][0].update(link_mbps=200, link_others=0.25)
    # Alone: 2 ms + 2 x 0.5 / 0.5 = 4 ms. With others on three quarters of it: 2 + 2 x 0.95 / 0.05 = 40 ms.
    assert figures(run(read(raw)))["inside_slo"] == 1
    raw["events"] = [{"kind": "congestion", "site": "hub", "at_h": 0.5, "for_h": 0.25, "extra_share": 0.5}]
    assert figures(run(read(raw)))["inside_slo"] == 0.75


@pytest.mark.parametrize("policy", ["ours", "nearest", "first-fit", "round-robin"])
def test_no_policy_reserves_more_of_a_link_than_there_is(policy: str) -> None:
    raw = one_task(mbps=50, zones=["nansha"], arrivals={"at_s": [0] * 8})
    raw["sites"][0].update(link_mbps=200, link_others=0.25)
    found = figures(run(read(raw), policy))
    # 200 x (0.8 - 0.25) = 110 Mbit/s: two at a time, so two after one hour and two after the next.
    assert (found["running_at_end"], found["waiting_at_end"]) == (2, 2)


def test_the_solvers_count_the_same_money_as_the_engine() -> None:
    scenario = scaled(short_form(load(SCENARIOS / "guangzhou.yaml")), 0.02)
    specs, sites = world.Specs(scenario), [world.site_message(s, 3, s.pue_at(0)) for s in scenario.sites]
    nodes = [node for site in scenario.sites for node in world.node_messages(site)]
    links = link_messages(links_at(scenario, 0, [], {}), scenario.rtt_p99_factor)
    engine = Engine()
    engine.apply(engine_pb2.Delta(reset=True, sites=sites, nodes=nodes, links=links).SerializeToString())
    tasks = [Arrival(0.0, number, 0, job.zones[0], 60.0) for number, job in enumerate(scenario.jobs)]
    request = engine_pb2.PlaceRequest(
        evaluation_id="e", jobs=specs.pending(tasks), now_unix_s=world.EPOCH_UNIX_S
    )
    request.policy.carbon_kg_microcny = scenario.carbon_kg_microcny
    plan = engine_pb2.Plan.FromString(engine.snapshot().place(request.SerializeToString()))
    assert len(plan.placements) == len(tasks)
    by_job = {task.job_id: Task.of(specs.group_of(task)) for task in tasks}
    rooms = {node.id: Room.empty(node, next(s for s in sites if s.id == node.site_id)) for node in nodes}
    for placed in plan.placements:
        ours = cost_microcny_per_hour(
            by_job[placed.job_id], rooms[placed.node_id], scenario.carbon_kg_microcny
        )
        assert ours == pytest.approx(placed.cost.total_microcny_per_hour, abs=3), placed.job_id


def test_new_demand_is_served_with_the_room_that_sites_have() -> None:
    raw = small()
    for site, most in zip(raw["sites"], (0, 3, 2), strict=True):
        site["more_nodes_max"] = most
    scenario = read(raw)
    planner = Planner(scenario, 1, [*demand(scenario, "render=12@tianhe"), *demand(scenario, "report=20")])
    assert planner.full_sites() == ["gz-tianhe"]
    racks = [worth.addition for worth in planner.nodes(16)]
    assert sorted(map(str, racks)) == ["2 nodes of class 0 at hub", "3 nodes of class 0 at gz-nansha"]
    assert planner.least_nodes("gz-nansha", 0) is None, "three are not enough"
    mixed = planner.mix(planner.nodes(1))
    assert mixed is not None
    assert all(nodes.count <= {"gz-nansha": 3, "hub": 2}[nodes.site_id] for nodes in mixed[0])
    assert planner.best_with(mixed[0]).found.unplaced_task_count == 0
    fewer = [*mixed[0][:-1], Nodes(mixed[0][-1].site_id, 0, mixed[0][-1].count - 1)]
    assert planner.best_with(fewer).found.unplaced_task_count > 0
    short = Planner(dataclasses.replace(scenario, duration_s=3600), 1, demand(scenario, "render=300"))
    assert short.mix(short.nodes(1)) is None
