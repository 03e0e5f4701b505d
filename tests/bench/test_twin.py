"""The twin: scenarios, determinism, both modes, accounts, policies, and the committed ranges."""

from __future__ import annotations

import copy
import dataclasses
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from mumian_orchestrator.bench.cli import main
from mumian_orchestrator.bench.sim.fields import ScenarioError
from mumian_orchestrator.bench.sim.policies import policy
from mumian_orchestrator.bench.sim.report import figures
from mumian_orchestrator.bench.sim.runner import run_on_core, run_on_services
from mumian_orchestrator.bench.sim.scenario import load, read

SCENARIOS = Path(__file__).parents[2] / "bench/scenarios"
SMALL = SCENARIOS / "small.yaml"
RANGES = tomllib.loads((SCENARIOS / "ranges.toml").read_text())


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
    by_core = run_on_core(scenario, seed, policy("ours"), keeps_placements=True)
    by_services = run_on_services(scenario, seed, keeps_placements=True)
    assert len(by_core.placements) > 100
    assert sorted(by_core.placements) == sorted(by_services.placements)
    assert figures(by_core) == figures(by_services)


def test_a_seed_gives_the_same_bytes_and_another_seed_gives_others() -> None:
    def output(seed: int) -> str:
        command = ["sim", str(SMALL), "--seed", str(seed), "--output", "json"]
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 0, result.output
        return result.output

    assert output(5) == output(5)
    assert json.loads(output(5)) | {"seed": 6} != json.loads(output(6))


def test_energy_and_money_of_one_task_are_those_computed_by_hand() -> None:
    found = figures(run_on_core(read(one_task()), 1, policy("ours")))
    # 2 cores x 4 W x 1 h = 8 Wh; x PUE 1.2 = 9.6 Wh; x 0.3 kg; x 0.5 CNY; rent 2 x 0.05 CNY.
    assert (found["it_kwh"], found["meter_kwh"], found["carbon_kg"]) == (0.008, 0.01, 0.003)
    assert (found["rent_cny"], found["energy_cny"]) == (0.1, 0.0)
    assert found["sites"] == {"hub": {"meter_kwh": 0.01, "pue": 1.2}}


def test_heat_raises_the_pue_and_nothing_else() -> None:
    raw = one_task()
    raw["sites"][0].update(pue_permille_per_c=10, temperature_c=20)
    raw["events"] = [{"kind": "heat", "site": "hub", "at_h": 0, "for_h": 2, "extra_c": 5}]
    found = figures(run_on_core(read(raw), 1, policy("ours")))
    assert found["sites"] == {"hub": {"meter_kwh": 0.01, "pue": 1.3}}  # 1.2 + 0.010 x (25 - 15)
    assert found["it_kwh"] == 0.008


def test_a_cut_link_breaks_the_promise_of_what_runs_for_as_long_as_it_is_cut() -> None:
    raw = small(duration_h=4)
    raw["sites"] = [site for site in raw["sites"] if site["id"] == "gz-tianhe"]
    raw["jobs"] = [raw["jobs"][0]]
    raw["jobs"][0].update(arrivals={"at_s": [0]}, run_time_s=3600 * 4, run_time_fixed=1, zones=["tianhe"])
    raw["events"] = [{"kind": "link_cut", "zone": "tianhe", "site": "gz-tianhe", "at_h": 1, "for_h": 1}]
    assert figures(run_on_core(read(raw), 1, policy("ours")))["inside_slo"] == 0.75


@pytest.mark.parametrize("name", ["ours", "least-allocated"])
def test_tasks_of_a_lost_site_start_again_elsewhere_and_none_vanishes(name: str) -> None:
    raw = small(events=[{"kind": "site_loss", "site": "hub", "at_h": 1, "for_h": 1}])
    raw["jobs"] = [raw["jobs"][1]]
    run = run_on_core(read(raw), 1, policy(name), keeps_placements=True)
    found = figures(run)
    assert run.account.lost > 0
    assert found["starts"] == found["arrived"] + run.account.lost - found["waiting_at_end"]  # type: ignore[operator]


@pytest.mark.parametrize("name", ["nearest", "cheapest", "greenest", "random", "first-fit", "best-fit",
                                  "least-allocated", "most-allocated"])  # fmt: skip
def test_the_verifier_accepts_all_that_a_policy_places_and_every_task_is_accounted_for(name: str) -> None:
    scenario = dataclasses.replace(load(SMALL), duration_s=2 * 3600)
    found = figures(run_on_core(scenario, 3, policy(name)))
    assert found["starts"] == found["arrived"] - found["waiting_at_end"]  # type: ignore[operator]


def test_a_policy_in_a_file_is_used_and_one_that_breaks_the_rules_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "packed.py"
    file.write_text(
        "from mumian_orchestrator.bench.sim.policies import MostAllocated\nPOLICY = MostAllocated('packed')\n"
    )
    scenario = dataclasses.replace(load(SMALL), duration_s=3600)
    assert figures(run_on_core(scenario, 1, policy(str(file)))) == figures(
        run_on_core(scenario, 1, policy("most-allocated"))
    )
    file.write_text(
        "from mumian_core.v1.engine_pb2 import Plan\n"
        "class Wrong:\n"
        "    name, looks_at_rooms = 'wrong', False\n"
        "    def place(self, cluster, request):\n"
        "        plan = Plan()\n"
        "        for job in request.jobs:\n"
        "            plan.placements.add(job_id=job.job_id, task_group='main', site_id='hub',"
        " node_id='hub/n0-00000')\n"
        "        return plan\n"
        "POLICY = Wrong()\n"
    )
    with pytest.raises(ScenarioError, match=r"policy wrong put .* where it may not be"):
        run_on_core(load(SMALL), 1, policy(str(file)))


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
    scenario = load(SCENARIOS / f"{name}.yaml")
    scenario = dataclasses.replace(scenario, duration_s=round(3600 * short["hours"]))
    found = figures(run_on_core(scenario, scenario.seed, policy("ours")))
    for figure, (least, most) in short["ranges"].items():
        assert least <= found[figure] <= most, figure
