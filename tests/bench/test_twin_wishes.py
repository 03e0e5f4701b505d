"""The twin: what jobs ask of sites and nodes: jurisdictions, operators, PUE, labels, soft promises."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from mumian_core import Engine
from mumian_core.v1 import engine_pb2
from mumian_orchestrator.bench.sim import world
from mumian_orchestrator.bench.sim.arrivals import Arrival
from mumian_orchestrator.bench.sim.fields import ScenarioError
from mumian_orchestrator.bench.sim.links import Links, link_messages, links_at
from mumian_orchestrator.bench.sim.policies import POLICIES, Cluster, Room
from mumian_orchestrator.bench.sim.policies.solver import cost_microcny_per_hour
from mumian_orchestrator.bench.sim.policies.wishes import task_of
from mumian_orchestrator.bench.sim.report.figures import figures
from mumian_orchestrator.bench.sim.runner import Run
from mumian_orchestrator.bench.sim.scenario import Scenario, read
from mumian_orchestrator.bench.sim.simulation import Simulation

SMALL = yaml.safe_load((Path(__file__).parents[2] / "bench/scenarios/small.yaml").read_text())
JOBS = """
- {name: records, tenant: clinic, jurisdictions: [CN-GD], arrivals: {per_hour: 20}}
- {name: public, tenant: city, operators_denied: [op-a], pue_max_permille: 1240, arrivals: {per_hour: 20}}
- {name: native, tenant: lab, archs: [arm64], arrivals: {per_hour: 10}}
- {name: scratch, tenant: lab, labels: {disk: nvme}, arrivals: {per_hour: 10}}
- {name: inference, tenant: lab, accelerator_milli: 500, accelerator_models: [Ascend-910B], slo_budget_ms: 14,
   compute_ms: 20, compute_ms_by_model: {Ascend-910B: 4}, zones: [nansha], arrivals: {per_hour: 10}}
- {name: calls, tenant: shop, slo_budget_ms: 12, compute_ms: 6, compute_ms_by_arch: {arm64: 9},
   soft_cny_per_ms_hour: 0.02, arrivals: {per_hour: 20}}
"""


def scenario(hours: float = 2, **changed: Any) -> Scenario:
    """The small fleet with a rack of Ascend beside arm64 in Nansha, and jobs that ask for much."""
    raw = copy.deepcopy(SMALL)
    for site, jurisdiction in zip(raw["sites"], ("CN-GD-GZ", "CN-GD-GZ", "CN-GZ"), strict=True):
        site["jurisdiction"] = jurisdiction
    raw["sites"][1]["nodes"].append(
        {"count": 6, "arch": "arm64", "cores": 16, "memory_gib": 64, "core_active_power_mw": 3000,
         "labels": {"disk": "nvme"}, "accelerator_kind": "npu", "accelerator_model": "Ascend-910B",
         "accelerator_count": 2, "accelerator_active_power_mw": 310000, "accelerator_hour_microcny": 5000000}
    )  # fmt: skip
    raw["sites"][2]["nodes"][0]["labels"] = {"disk": "sata"}
    raw["jobs"] = [
        {"cpu_milli": 2000, "memory_mib": 2048, "run_time_s": 1800, **job} for job in yaml.safe_load(JOBS)
    ]
    return read({**raw, "duration_h": hours, "events": [], **changed})


def run(made_of: Scenario, policy: str = "ours", mode: str = "core") -> Simulation:
    """One run."""
    return Run(made_of, policy, mode, readings=0).simulate(1, keeps_placements=True)


def test_wishes_are_kept_alike_by_the_engine_and_by_all_services() -> None:
    by_core, by_services = run(scenario()), run(scenario(), mode="services")
    assert len(by_core.placements) > 100
    # Tenants take turns in the coordinator, so which of two alike nodes a task gets may differ.
    where = [sorted((p.task_id, p.site_id) for p in made.placements) for made in (by_core, by_services)]
    assert where[0] == where[1]
    assert figures(by_core) == figures(by_services)


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_keeps_what_jobs_ask_of_sites_and_nodes(policy: str) -> None:
    made = run(scenario(), policy)
    by_class: dict[str, set[str]] = {}
    for placed in made.placements:
        by_class.setdefault(placed.task_id.partition("-")[0], set()).add(placed.node_id.partition("-")[0])
        by_class[placed.task_id.partition("-")[0]].add(placed.node_id.rpartition("-")[0])
    kinds = {
        name: {node for node in nodes if "/" in node}
        for name, nodes in ((f"c{n}", by_class[f"c{n}"]) for n in range(6))
    }
    assert kinds["c0"] <= {"gz-tianhe/n0", "gz-nansha/n0", "gz-nansha/n1"}, "its data stays in Guangdong"
    assert kinds["c1"] == {"hub/n0"}, "only there is the PUE low enough"
    assert kinds["c2"] == kinds["c3"] == kinds["c4"] == {"gz-nansha/n1"}


def test_a_soft_promise_is_broken_where_that_is_cheaper_and_counted_beside_the_hard_ones() -> None:
    dear, cheap = figures(run(scenario())), figures(run(scenario(), "nearest"))
    assert dear["inside_soft_slo"] < cheap["inside_soft_slo"] <= 1  # type: ignore[operator]
    assert dear["cny"] < cheap["cny"]  # type: ignore[operator]
    assert dear["inside_slo"] > 0.9  # type: ignore[operator]


def test_the_engine_and_the_solvers_count_the_same_for_a_soft_promise() -> None:
    made_of = scenario()
    specs, sites = world.Specs(made_of), [world.site_message(s, 3, s.pue_at(0)) for s in made_of.sites]
    nodes = [node for site in made_of.sites for node in world.node_messages(site)]
    links: Links = links_at(made_of, 0, [], {})
    engine = Engine()
    messages = link_messages(links, made_of.rtt_p99_factor)
    engine.apply(engine_pb2.Delta(reset=True, sites=sites, nodes=nodes, links=messages).SerializeToString())
    calls = Arrival(0.0, 5, 0, "tianhe", 60.0)
    request = engine_pb2.PlaceRequest(
        evaluation_id="e", jobs=specs.pending([calls]), now_unix_s=world.EPOCH_UNIX_S
    )
    request.policy.carbon_kg_microcny = made_of.carbon_kg_microcny
    [placed] = engine_pb2.Plan.FromString(engine.snapshot().place(request.SerializeToString())).placements
    assert placed.cost.latency_microcny_per_hour > 0
    rooms = {node.id: Room.empty(node, next(s for s in sites if s.id == node.site_id)) for node in nodes}
    cluster = Cluster(
        engine.snapshot(), nodes, {s.id: s for s in sites}, links, made_of.carbon_kg_microcny, [], 0
    )
    task = task_of(specs.of(calls), specs.group_of(calls), cluster, {room.kind for room in rooms.values()})
    ours = cost_microcny_per_hour(task, rooms[placed.node_id], made_of.carbon_kg_microcny)
    assert ours == pytest.approx(placed.cost.total_microcny_per_hour, abs=3)


@pytest.mark.parametrize(
    ("job", "told"),
    [
        ({"jurisdictions": ["CN-SH"]}, "jobs[0].jurisdictions ('CN-SH') is unknown; did you mean CN-GZ"),
        ({"operators_allowed": ["op-c"]}, "jobs[0].operators_allowed ('op-c') is unknown; did you mean"),
        ({"labels": {"dsk": "nvme"}}, "jobs[0].labels ('dsk') is unknown; did you mean disk?"),
        ({"labels": {"disk": 3}}, "jobs[0].labels.disk (3) must be a text; put it in quotes"),
        ({"labels": ["disk"]}, "jobs[0].labels (['disk']) must be a mapping of names"),
        ({"archs": ["amd64"]}, "jobs[0].archs ('amd64') is unknown; did you mean arm64?"),
        ({"compute_ms_by_arch": {"arm": 3}}, "compute_ms_by_arch ('arm') is unknown; did you mean arm64?"),
        ({"compute_ms_by_model": {"L4": -1}}, "compute_ms_by_model.L4 (-1) must be a number of at least 0"),
        ({"accelerator_milli": 100, "accelerator_models": ["Ascend-910C"]}, "did you mean Ascend-910B?"),
        ({"pue_max_permille": 1}, "jobs[0].pue_max_permille (1) is below 1000"),
        ({"soft_cny_per_ms_hour": 1}, "jobs[0].soft_cny_per_ms_hour needs slo_budget_ms"),
        ({"patience_s": 5}, "jobs[0].patience_s is for hard latency promises"),
    ],
)
def test_a_wrong_wish_is_refused_by_the_name_of_its_field(job: dict[str, Any], told: str) -> None:
    raw = {"name": "a", "tenant": "a", "cpu_milli": 1, "memory_mib": 1, "run_time_s": 60,
           "arrivals": {"per_hour": 1}, **job}  # fmt: skip
    with pytest.raises(ScenarioError) as refused:
        scenario(jobs=[raw])
    assert told in str(refused.value)


def test_patience_says_when_a_service_moves() -> None:
    raw = copy.deepcopy(SMALL)
    raw["jobs"] = [{**raw["jobs"][0], "arrivals": {"at_s": [0]}, "run_time_s": 7200, "run_time_fixed": 1,
                    "zones": ["nansha"], "patience_s": 600}]  # fmt: skip
    raw["events"] = [{"kind": "link_cut", "zone": "nansha", "site": "gz-nansha", "at_h": 1, "for_h": 1}]
    found = figures(run(read(raw | {"duration_h": 3})))
    assert (found["moves"], found["inside_slo"]) == (1, pytest.approx((7200 - 600) / 7200, abs=1e-6))
