"""What-if on a scenario: each change does what it says, and nothing else."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from mumian_orchestrator.bench.cli import main
from mumian_orchestrator.bench.sim.fields import ScenarioError
from mumian_orchestrator.bench.sim.report.figures import figures
from mumian_orchestrator.bench.sim.runner import Run
from mumian_orchestrator.bench.sim.scenario import load
from mumian_orchestrator.bench.sim.what_if import CHANGES, changed

SMALL = Path(__file__).parents[2] / "bench/scenarios/small.yaml"
NEW_SITE = """
{id: new, operator: op-c, latitude: 23.1, longitude: 113.4, pue_permille: 1100, energy_kwh_cny: 0.1,
 carbon_g_per_kwh: 0, cpu_core_hour_microcny: 10000,
 nodes: [{count: 8, cores: 16, memory_gib: 64, core_active_power_mw: 5000}]}
"""


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("lose", "hub@1.5"), ("drain", "gz-nansha"), ("add-nodes", "hub=2"), ("pue", "hub=1.5"),
        ("price", "hub.energy=2"), ("price", "hub.cpu=0.2"), ("price", "hub.memory=0.1"),
        ("rtt", "tianhe:hub=3"), ("slo", "render=30"), ("demand", "render=2"),
    ],
)  # fmt: skip
def test_every_change_makes_a_difference(kind: str, text: str) -> None:
    before = dataclasses.replace(load(SMALL), duration_s=3 * 3600)
    after = changed(before, kind, text)
    assert figures(Run(after, readings=0).simulate(1)) != figures(Run(before, readings=0).simulate(1))


def test_a_drained_site_takes_nothing_more_and_loses_nothing() -> None:
    scenario = changed(dataclasses.replace(load(SMALL), duration_s=3 * 3600, events=()), "drain", "hub@1")
    run = Run(scenario, readings=0).simulate(1, keeps_placements=True)
    at_hub = [placed for placed in run.placements if placed.site_id == "hub"]
    undrained = Run(dataclasses.replace(scenario, events=()), readings=0).simulate(1, keeps_placements=True)
    assert 0 < len(at_hub) < sum(placed.site_id == "hub" for placed in undrained.placements)
    assert run.account.lost == 0


def test_a_new_site_is_used_and_the_table_says_what_it_saves(tmp_path: Path) -> None:
    file = tmp_path / "new.yaml"
    file.write_text(NEW_SITE)
    command = ["what-if", str(SMALL), "--hours", "2", "--seeds", "2", "--add-site", str(file)]
    answer = json.loads(CliRunner().invoke(main, [*command, "--output", "json"]).stdout)
    assert answer["after"]["cny"] < 0.5 * answer["before"]["cny"]
    assert answer["after"]["arrived"] == answer["before"]["arrived"], "the same arrivals"
    table = CliRunner().invoke(main, command, env={"COLUMNS": "160"}).stdout
    assert "difference" in table
    assert "CNY per core-hour" in table


@pytest.mark.parametrize(
    ("kind", "text", "told"),
    [
        ("lose", "hubb", "did you mean hub?"),
        ("pue", "hub", "must be SITE=PUE"),
        ("pue", "hub=0.9", "at least 1"),
        ("price", "hub.H100=3", "no price of hub"),
        ("rtt", "tianhee:hub=3", "did you mean tianhe?"),
        ("slo", "report=30", "promises no latency"),
        ("add-nodes", "hub/3=1", "has 1 classes"),
        ("add-site", "/nowhere.yaml", "cannot be read"),
    ],
)
def test_a_change_that_cannot_be_is_refused(kind: str, text: str, told: str) -> None:
    with pytest.raises(ScenarioError) as refused:
        changed(load(SMALL), kind, text)
    assert told in str(refused.value)


def test_without_a_change_the_command_names_all_of_them() -> None:
    result = CliRunner().invoke(main, ["what-if", str(SMALL)])
    assert result.exit_code == 2
    assert all(f"--{name}" in result.output for name in CHANGES)


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["sim", "--hours", "0.01"], "less than a tick of 60 s"),
        (["sim", "--file", "/nowhere/report.txt"], "there is no folder /nowhere"),
        (["sim", "--output", "html", "--file", "/"], "it is a folder"),
        (["compare", "--policies", ", "], "names none"),
        (["compare", str(SMALL)], "scenario small is there twice"),
        (["what-if"], "no change is given"),
        (["what-if", "--lose", "hub@7"], "--lose (hub@7) is after the end; the run has 6 hours"),
        (["what-if", "--drain", "hub@7"], "--drain (hub@7) is after the end"),
        (["what-if", "--add-nodes", "hub=0"], "adds none"),
        (["what-if", "--slo", "render=0"], "leaves no time at all"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_runs(command: list[str], told: str) -> None:
    result = CliRunner().invoke(main, [command[0], str(SMALL), *command[1:]])
    assert (result.exit_code, told in result.output) == (2, True), result.output


def test_a_table_can_be_written_to_a_file(tmp_path: Path) -> None:
    file = tmp_path / "table.txt"
    policies = "ours,ours,first-fit"
    command = ["compare", str(SMALL), "--hours", "0.1", "--seeds", "1", "--policies", policies]
    assert CliRunner().invoke(main, [*command, "--processes", "1", "--file", str(file)]).exit_code == 0
    assert file.read_text().count("first-fit") == file.read_text().count("ours") > 0
