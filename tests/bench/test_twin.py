"""The twin: scenarios, determinism, both modes, accounts, policies, and the committed ranges."""

from __future__ import annotations

import copy
import csv
import dataclasses
import json
import re
import tomllib
import xml.etree.ElementTree
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from mumian.api.v1.fleet_pb2 import Node, Site
from mumian_orchestrator.bench.cli import main
from mumian_orchestrator.bench.sim.fields import ScenarioError
from mumian_orchestrator.bench.sim.forms import scaled, short_form, window
from mumian_orchestrator.bench.sim.planning import Nodes, Planner, Worth, demand
from mumian_orchestrator.bench.sim.policies import POLICIES, Room, Task
from mumian_orchestrator.bench.sim.policies.fgd import FragmentationGradientDescent, fragment_milli
from mumian_orchestrator.bench.sim.record import machine
from mumian_orchestrator.bench.sim.report.figures import figures
from mumian_orchestrator.bench.sim.runner import Run
from mumian_orchestrator.bench.sim.scenario import Scenario, load, read
from mumian_orchestrator.bench.sim.simulation import Simulation

SCENARIOS = Path(__file__).parents[2] / "bench/scenarios"
SMALL = SCENARIOS / "small.yaml"
RANGES = tomllib.loads((SCENARIOS / "ranges.toml").read_text())


def run_on_core(scenario: Scenario, seed: int, name: str = "ours", readings: int = 0) -> Simulation:
    """One run of the engine in batches, without looks at the bound unless they are asked for."""
    return Run(scenario, name, readings=readings).simulate(seed, keeps_placements=True)


def small(**changed: Any) -> dict[str, Any]:
    """The small scenario's mapping, changed."""
    return {**copy.deepcopy(yaml.safe_load(SMALL.read_text())), **changed}


def one_task() -> dict[str, Any]:
    """One task of 2 cores for an hour, on a hub of 4 W a core; nothing else."""
    raw = small(events=[], duration_h=2)
    raw["sites"] = [site for site in raw["sites"] if site["id"] == "hub"]
    raw["jobs"] = [raw["jobs"][1]]
    raw["jobs"][0].update(arrivals={"at_s": [0]}, run_time_s=3600, run_time_fixed=1)
    return raw


@pytest.mark.parametrize("seed", [1, 2])
def test_the_engine_in_batches_and_all_services_place_every_task_alike(seed: int) -> None:
    scenario = dataclasses.replace(load(SMALL), duration_s=3 * 3600)
    by_core = run_on_core(scenario, seed, readings=2)
    by_services = Run(scenario, mode="services", readings=2).simulate(seed, keeps_placements=True)
    assert len(by_core.placements) > 100
    assert sorted(by_core.placements) == sorted(by_services.placements)
    assert figures(by_core) == figures(by_services)


def test_a_seed_gives_the_same_bytes_and_another_seed_gives_others() -> None:
    def output(seed: int) -> str:
        command = ["sim", str(SMALL), "--hours", "2", "--seed", str(seed), "--output", "json"]
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 0, result.output
        [run] = json.loads(result.stdout)["runs"]
        del run["clock"]
        return json.dumps(run)

    assert output(5) == output(5)
    assert json.loads(output(5)) | {"seed": 6} != json.loads(output(6))


def test_energy_and_money_of_one_task_are_those_computed_by_hand() -> None:
    found = figures(run_on_core(read(one_task()), 1, "ours"))
    # 2 cores x 4 W x 1 h = 8 Wh; x PUE 1.2 = 9.6 Wh; x 0.3 kg; x 0.5 CNY; rent 2 x 0.05 CNY.
    assert (found["it_kwh"], found["meter_kwh"], found["carbon_kg"]) == (0.008, 0.0096, 0.00288)
    assert (found["rent_cny"], found["energy_cny"]) == (0.1, 0.0)
    assert (found["sites"]["hub"]["meter_kwh"], found["sites"]["hub"]["pue"]) == (0.0096, 1.2)  # type: ignore[index]


def test_a_task_that_starts_slowly_holds_its_room_and_is_outside_its_promise_until_it_is_up() -> None:
    raw = one_task()
    raw["jobs"][0].update(start_s=605, slo_budget_ms=100)
    scenario = read(raw)
    run = run_on_core(scenario, 1)
    found = figures(run)
    assert (found["it_kwh"], found["wait_mean_s"]) == (0.008, 605)
    assert found["inside_slo"] == pytest.approx(3600 / 4205, abs=1e-6)
    raw["jobs"][0]["arrivals"]["at_s"] = [0] * 40  # room for 32 at once
    crowded = figures(run_on_core(read(raw), 1))
    assert crowded["starts"] == 32 + 8, "those that wait start when the first have ended, start and all"
    assert crowded["wait_p99_s"] == pytest.approx(4205 + 605, abs=60)


def test_whoever_owns_the_sites_pays_energy_and_no_rent() -> None:
    found = figures(run_on_core(read(one_task() | {"rent_counts": 0}), 1))
    assert (found["rent_cny"], found["meter_kwh"]) == (0, 0.0096)


def test_heat_raises_the_pue_and_nothing_else() -> None:
    raw = one_task()
    raw["sites"][0].update(pue_permille_per_c=10, temperature_c=20)
    raw["events"] = [{"kind": "heat", "site": "hub", "at_h": 0, "for_h": 2, "extra_c": 5}]
    found = figures(run_on_core(read(raw), 1, "ours"))
    assert (found["sites"]["hub"]["meter_kwh"], found["pue"]) == (0.0104, 1.3)  # type: ignore[index]  # 1.2 + 0.010 x (25 - 15)
    assert found["it_kwh"] == 0.008


def test_a_cut_link_breaks_the_promise_of_what_runs_for_as_long_as_it_is_cut() -> None:
    raw = small(duration_h=4)
    raw["sites"] = [site for site in raw["sites"] if site["id"] == "gz-tianhe"]
    raw["jobs"] = [raw["jobs"][0]]
    raw["jobs"][0].update(arrivals={"at_s": [0]}, run_time_s=3600 * 4, run_time_fixed=1, zones=["tianhe"])
    raw["events"] = [{"kind": "link_cut", "zone": "tianhe", "site": "gz-tianhe", "at_h": 1, "for_h": 1}]
    assert figures(run_on_core(read(raw), 1, "ours"))["inside_slo"] == 0.75


@pytest.mark.parametrize("name", ["ours", "least-allocated"])
def test_tasks_of_a_lost_site_start_again_elsewhere_and_none_vanishes(name: str) -> None:
    raw = small(events=[{"kind": "site_loss", "site": "hub", "at_h": 1, "for_h": 1}])
    raw["jobs"] = [raw["jobs"][1]]
    run = run_on_core(read(raw), 1, name)
    found = figures(run)
    assert run.account.lost > 0
    assert found["starts"] == found["arrived"] + run.account.lost - found["waiting_at_end"]  # type: ignore[operator]


def test_with_all_services_a_lost_site_is_found_out_and_its_tasks_start_again_elsewhere() -> None:
    raw = small(events=[{"kind": "site_loss", "site": "hub", "at_h": 1, "for_h": 1}], duration_h=3)
    raw["jobs"] = [raw["jobs"][1]]
    scenario = read(raw)
    run = Run(scenario, mode="services", readings=0).simulate(1, keeps_placements=True)
    found = figures(run)
    assert run.account.lost > 0
    assert found["starts"] == found["arrived"] + run.account.lost - found["waiting_at_end"]  # type: ignore[operator]
    # The coordinator hears of it by silence only, so tasks wait longer than in the mode that is told.
    told = figures(run_on_core(scenario, 1))
    assert (found["arrived"], run.account.lost) == (told["arrived"], told["lost_with_a_site"])
    assert found["wait_p99_s"] > told["wait_p99_s"]  # type: ignore[operator]
    assert any(p.site_id == "hub" for p in run.placements[-5:]), "it is used again once it is back"


@pytest.mark.parametrize("name", POLICIES)
def test_the_verifier_accepts_all_that_a_policy_places_and_every_task_is_accounted_for(name: str) -> None:
    scenario = dataclasses.replace(load(SMALL), duration_s=2 * 3600)
    found = figures(run_on_core(scenario, 3, name))
    assert found["starts"] == found["arrived"] - found["waiting_at_end"]  # type: ignore[operator]


def test_a_policy_in_a_file_is_used_and_one_that_breaks_the_rules_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "packed.py"
    file.write_text(
        "from mumian_orchestrator.bench.sim.policies import MostAllocated\nPOLICY = MostAllocated('packed')\n"
    )
    scenario = dataclasses.replace(load(SMALL), duration_s=3600)
    assert figures(run_on_core(scenario, 1, str(file))) == figures(run_on_core(scenario, 1, "most-allocated"))
    file.write_text(
        "from mumian_core.v1.engine_pb2 import Plan\n"
        "from mumian_orchestrator.bench.sim.policies import Policy\n"
        "class Wrong(Policy):\n"
        "    def place(self, cluster, request):\n"
        "        plan = Plan()\n"
        "        for job in request.jobs:\n"
        "            plan.placements.add(job_id=job.job_id, task_group='main', site_id='hub',"
        " node_id='hub/n0-00000')\n"
        "        return plan\n"
        "POLICY = Wrong('wrong')\n"
    )
    with pytest.raises(ScenarioError, match=r"policy wrong put .* where it may not be"):
        run_on_core(load(SMALL), 1, str(file))
    file.write_text(file.read_text().replace("job_id=job.job_id", "job_id='nobody'"))
    with pytest.raises(ScenarioError, match=r"policy wrong placed nobody"):
        run_on_core(load(SMALL), 1, str(file))
    file.write_text("POLICY = 3\n")
    with pytest.raises(ScenarioError, match=r"has no POLICY"):
        run_on_core(load(SMALL), 1, str(file))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"duration_h": "long"}, "duration_h ('long') must be a number"),
        ({"tick_s": 7}, "tick_s (7) must divide an hour"),
        ({"zoness": []}, "zoness is unknown; did you mean zones?"),
        ({"events": [{"kind": "quake"}]}, "events[0].kind ('quake') is unknown"),
        (
            {"events": [{"kind": "heat", "site": "hubb", "at_h": 0, "for_h": 1, "extra_c": 1}]},
            "events[0].site ('hubb') is unknown; did you mean hub?",
        ),
        ({"sites": []}, "sites must be a list of at least 1"),
        ({"rtt": {"fixed_us": 1}}, "rtt.us_per_km is missing"),
        ({"rtt": None}, "rtt (None) must be a mapping"),
    ],
)
def test_a_wrong_scenario_is_refused_by_the_name_of_its_field(change: dict[str, Any], told: str) -> None:
    with pytest.raises(ScenarioError) as refused:
        read(small(**change))
    assert told in str(refused.value)


def test_the_command_answers_a_wrong_file_with_code_2_and_one_line(tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text("name: [")
    result = CliRunner().invoke(main, ["sim", str(file)])
    assert result.exit_code == 2
    assert "cannot be read" in result.output


@pytest.mark.parametrize("file", sorted(SCENARIOS.glob("*.yaml")), ids=lambda file: file.stem)
def test_every_scenario_of_the_folder_can_be_read(file: Path) -> None:
    assert load(file).name == file.stem


@pytest.mark.parametrize("name", RANGES)
def test_the_short_form_of_a_scenario_stays_within_its_committed_ranges(name: str) -> None:
    short = RANGES[name]
    scenario = short_form(load(SCENARIOS / f"{name}.yaml"))
    found = figures(run_on_core(scenario, scenario.seed, readings=4))
    for figure, (least, most) in short.items():
        assert least <= found[figure] <= most, figure


def test_a_figure_without_a_source_is_refused_by_its_name() -> None:
    raw = small(sources=[{"fields": ["rtt.*", "zones.*", "jobs.*"], "kind": "assumed", "because": "a test"}])
    with pytest.raises(ScenarioError, match=r"sites\.gz-tianhe\.latitude has no source"):
        read(raw)
    raw["sources"].append({"fields": ["*"], "kind": "published", "text": "somewhere"})
    with pytest.raises(ScenarioError, match=r"sources\[1\]\.address"):
        read(raw)
    raw["sources"][1] |= {"address": "https://example.org"}
    assert read(raw).sources[1].address == "https://example.org"


def test_a_window_has_the_arrivals_and_events_of_its_hours_and_a_scale_a_share_of_them() -> None:
    scenario = load(SCENARIOS / "cable-cut.yaml")
    evening = window(scenario, 18, 3)
    assert [(e.at_s, e.end_s) for e in evening.events] == [(3600, 10800)] * 2
    assert evening.jobs[0].per_hour[0] == scenario.jobs[0].per_hour[18]
    assert evening.sites[0].energy_kwh_cny[1] == scenario.sites[0].energy_kwh_cny[19]
    tenth = scaled(scenario, 0.1)
    assert tenth.node_count == scenario.node_count // 10
    assert tenth.jobs[0].per_hour[20] == pytest.approx(scenario.jobs[0].per_hour[20] / 10)


def test_reoptimisation_moves_sessions_only_and_what_runs_then_costs_less() -> None:
    scenario = dataclasses.replace(load(SMALL), duration_s=6 * 3600)
    online = figures(run_on_core(scenario, 1, "ours", readings=24))
    run = run_on_core(scenario, 1, "ours-reoptimised", readings=24)
    found = figures(run)
    movable = {f"c{index}" for index, job in enumerate(scenario.jobs) if job.is_movable}
    placed = [placement.task_id for placement in run.placements]
    again = {task_id.partition("-")[0] for task_id in placed if placed.count(task_id) > 1}
    assert run.account.moves > 0
    assert again <= movable
    assert found["starts"] == found["arrived"] - found["waiting_at_end"]  # type: ignore[operator]
    assert found["gap_to_bound"] < online["gap_to_bound"]  # type: ignore[operator]


def test_no_policy_costs_less_than_the_bound() -> None:
    scenario = dataclasses.replace(load(SMALL), duration_s=2 * 3600)
    for name in ("ours", "random", "best-fit"):
        for reading in run_on_core(scenario, 2, name, readings=8).readings:
            assert reading.cost_microcny_per_hour >= reading.bound_microcny_per_hour > 0


def test_fragments_are_what_the_workload_cannot_use() -> None:
    half, whole = Task(1000, 1024, 500), Task(1000, 1024, 1000)
    workload = [(half, 0.5), (whole, 0.5)]
    assert fragment_milli(4000, 4096, [1000, 400], ("T4", "T4"), workload) == 400
    # A whole device is of no use to the second kind once half of it is gone.
    assert fragment_milli(4000, 4096, [500, 400], ("T4", "T4"), workload) == 0.5 * 400 + 0.5 * 900
    assert fragment_milli(500, 4096, [1000, 400], ("T4", "T4"), workload) == 1400, "no core, no use"


def test_fgd_takes_the_device_that_is_broken_already() -> None:
    raw = small(events=[], duration_h=1, sites=small()["sites"][2:])
    raw["sites"][0]["nodes"] = [{"count": 2, "cores": 16, "memory_gib": 64, "core_active_power_mw": 5000,
        "accelerator_model": "T4", "accelerator_count": 2, "accelerator_active_power_mw": 70000,
        "accelerator_hour_microcny": 2000000}]  # fmt: skip
    raw["jobs"] = [
        {"name": "half", "tenant": "a", "cpu_milli": 1000, "memory_mib": 1024, "accelerator_milli": 500,
         "arrivals": {"at_s": [0, 0]}, "run_time_s": 3600, "run_time_fixed": 1},
        {"name": "two", "tenant": "a", "cpu_milli": 1000, "memory_mib": 1024, "accelerator_milli": 2000,
         "arrivals": {"at_s": [60]}, "run_time_s": 3600, "run_time_fixed": 1},
    ]  # fmt: skip
    halves = run_on_core(read(raw), 1, "fgd").placements
    assert halves[0].node_id == halves[1].node_id != halves[2].node_id
    assert halves[0].devices_milli == halves[1].devices_milli == ((0, 500),)


def test_a_score_of_fgd_is_that_of_its_authors_simulator() -> None:
    fgd = FragmentationGradientDescent("fgd")
    fgd._workload = [(Task(0, 0, 1000), 1.0)]
    node = Node(id="n", cpu_milli=8000, memory_mib=8192)
    node.accelerators.add(model="T4", count=2)
    room = Room.empty(node, Site())
    # A whole device turns into half a one that no task of the workload can use: 100 x sigmoid(-0.5) = 37.75.
    assert fgd.score(room, Task(0, 0, 500)) == -37
    room.devices_milli = [500, 1000]
    # The broken device takes it: half a device less is in fragments.
    assert fgd.score(room, Task(0, 0, 500)) == -62
    assert fgd.devices(room, Task(0, 0, 500)) == [0]


def test_round_robin_takes_the_sites_in_turn() -> None:
    raw = small(events=[], duration_h=1)
    raw["jobs"] = [raw["jobs"][1]]
    raw["jobs"][0].update(arrivals={"at_s": [0, 0, 0, 0]})
    placed = run_on_core(read(raw), 1, "round-robin").placements
    assert [p.site_id for p in placed] == ["gz-tianhe", "gz-nansha", "hub", "gz-tianhe"]
    assert placed[0].node_id != placed[3].node_id


def test_the_page_is_whole_in_itself_and_names_seeds_machine_and_sources(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    command = ["compare", str(SMALL), "--hours", "1", "--policies", "ours,random", "--seeds", "2",
               "--processes", "1", "--output", "html", "--file", str(file)]  # fmt: skip
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    text = file.read_text()
    xml.etree.ElementTree.fromstring(
        re.sub(r"<!doctype html>|<meta[^>]*>|<style>.*?</style>", "", text, flags=re.S)
    )
    assert not re.search(r"<script|<link|<img|src=|@import|url\(", text)
    for told in ("2 seeds (1 to 2)", machine(), "made up for tests", "Against random", "<svg"):
        assert told in text, told


def test_csv_has_a_line_for_each_run_and_processes_give_the_same_figures(tmp_path: Path) -> None:
    def lines(processes: int) -> list[dict[str, str]]:
        command = ["compare", str(SMALL), "--hours", "0.5", "--policies", "ours,first-fit", "--seeds", "2",
                   "--processes", str(processes), "--output", "csv"]  # fmt: skip
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 0, result.output
        rows = list(csv.DictReader(result.stdout.splitlines()))
        return [{k: v for k, v in row.items() if k not in ("decision_us", "wall_s")} for row in rows]

    alone = lines(1)
    assert [(row["policy"], row["seed"]) for row in alone] == [
        ("ours", "1"), ("ours", "2"), ("first-fit", "1"), ("first-fit", "2")
    ]  # fmt: skip
    assert lines(2) == alone


def test_what_a_planner_is_promised_for_a_node_and_a_link_comes_true() -> None:
    answer = json.loads(CliRunner().invoke(main, ["plan-capacity", str(SMALL), "--output", "json"]).stdout)
    for entry in answer["proposals"]:
        if entry["kind"] == "rack":
            assert entry["realised_cny_per_hour"] <= entry["predicted_cny_per_hour"] * 1.02
        else:
            assert entry["realised_cny_per_hour"] == pytest.approx(entry["predicted_cny_per_hour"], rel=0.05)
            assert entry["over_the_run"]["cny"] < 0
    assert {entry["kind"] for entry in answer["proposals"]} == {"node", "rack", "link"}


def test_the_nodes_that_new_demand_takes_are_enough_and_one_less_is_not() -> None:
    scenario = load(SMALL)
    planner = Planner(scenario, 1, demand(scenario, "render=40@tianhe"))
    short = planner.moment.best.found.unplaced_task_count
    found = planner.least_nodes("gz-nansha", 0)
    assert found is not None
    count, _ = found
    left = {n: planner.check(Worth(Nodes("gz-nansha", 0, n), 0, 0.0)).placed_more for n in (count - 1, count)}
    assert left[count] == short > left[count - 1]


@pytest.mark.parametrize("text", ["render", "render=0", "render=x", "rendr=3", "render=3@hub"])
def test_a_demand_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ScenarioError, match="--demand"):
        demand(load(SMALL), text)


def test_the_data_sets_are_read_whole() -> None:
    melbourne, openb = load(SCENARIOS / "melbourne.yaml"), load(SCENARIOS / "alibaba-openb.yaml")
    assert (len(melbourne.sites), sum(zone.users for zone in melbourne.zones)) == (125 + 1, 816)
    assert openb.node_count == 9
    assert sum(len(job.trace_s) for job in openb.jobs) > 1900
    assert all(len(job.trace_s) == len(job.trace_run_times_s) for job in openb.jobs)


@pytest.mark.ray
def test_a_sweep_on_ray_gives_the_figures_of_one_in_this_process() -> None:
    def runs(*more: str) -> list[dict[str, Any]]:
        command = ["compare", str(SMALL), "--hours", "0.5", "--policies", "ours,random", "--seeds", "2"]
        result = CliRunner().invoke(main, [*command, "--output", "json", *more])
        assert result.exit_code == 0, result.output
        found = json.loads(result.stdout)["runs"]
        for run in found:
            del run["clock"]
        return list(found)

    assert runs("--ray") == runs("--processes", "1")
