"""The twin: services that the coordinator moves, by its own drift and re-optimisation, in both modes."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from mumian_orchestrator.bench.sim.fields import ScenarioError
from mumian_orchestrator.bench.sim.report.figures import figures
from mumian_orchestrator.bench.sim.runner import Run
from mumian_orchestrator.bench.sim.scenario import Scenario, read
from mumian_orchestrator.bench.sim.simulation import Simulation
from mumian_orchestrator.services import drift

SMALL = yaml.safe_load((Path(__file__).parents[2] / "bench/scenarios/small.yaml").read_text())


def one_session(**more: Any) -> dict[str, Any]:
    """A session of two hours for users in Nansha, whose link to the site there is cut for the second hour.
    The site in Tianhe is near enough too.
    """
    raw: dict[str, Any] = copy.deepcopy(SMALL)
    raw["duration_h"] = 3
    raw["jobs"] = [
        {
            **raw["jobs"][0],
            "arrivals": {"at_s": [0]},
            "run_time_s": 7200,
            "run_time_fixed": 1,
            "zones": ["nansha"],
            **more,
        }
    ]
    raw["events"] = [{"kind": "link_cut", "zone": "nansha", "site": "gz-nansha", "at_h": 1, "for_h": 1}]
    return raw


def run(scenario: Scenario, policy: str = "ours", mode: str = "core") -> Simulation:
    """One run."""
    return Run(scenario, policy, mode, readings=0).simulate(1, keeps_placements=True)


def in_both_modes(scenario: Scenario, policy: str = "ours") -> Simulation:
    """The run of the engine in batches, which is that of all services."""
    by_core, by_services = run(scenario, policy), run(scenario, policy, "services")
    assert sorted(by_core.placements) == sorted(by_services.placements)
    assert figures(by_core) == figures(by_services)
    return by_core


def test_a_session_whose_promise_breaks_moves_after_its_patience_and_only_then() -> None:
    made = in_both_modes(read(one_session()))
    assert [p.site_id for p in made.placements] == ["gz-nansha", "gz-tianhe"]
    found = figures(made)
    assert (found["moves"], found["starts"]) == (1, 1)
    assert found["inside_slo"] == pytest.approx((7200 - 60) / 7200, abs=1e-6), "a minute of patience"


def test_a_copy_that_starts_slowly_holds_its_room_and_takes_over_when_it_is_up() -> None:
    raw = one_session(start_s=150)
    made = in_both_modes(read(raw))
    assert figures(made)["inside_slo"] == pytest.approx((7200 - 60 - 150) / (7200 + 150), abs=1e-6)
    # A task that needs the whole machine waits as long as the copy is there, and no longer.
    raw["sites"][0]["nodes"][0]["count"] = 1
    raw["jobs"].append(
        {"name": "whole", "tenant": "bank", "cpu_milli": 14000, "memory_mib": 1024, "run_time_s": 60,
         "run_time_fixed": 1, "arrivals": {"at_s": [3730]}}
    )  # fmt: skip
    for site in raw["sites"]:
        site["nodes"][0]["count"] = 1
    del raw["sites"][2]
    crowded = in_both_modes(read(raw))
    [whole] = [p for p in crowded.placements if p.task_id.startswith("c1")]
    assert whole.site_id == "gz-nansha"
    assert figures(crowded)["tenants"]["bank"]["wait_mean_s"] == 3840 - 3730  # type: ignore[index]


def test_a_copy_at_a_site_that_is_lost_takes_nobody_with_it_and_one_elsewhere_goes_on() -> None:
    raw = one_session(start_s=600)
    raw["events"].append({"kind": "site_loss", "site": "gz-tianhe", "at_h": 1.1, "for_h": 1})
    found = figures(run(read(raw)))
    assert (found["moves"], found["lost_with_a_site"], found["starts"]) == (0, 0, 1)
    raw["events"][1]["site"] = "gz-nansha"
    found = figures(run(read(raw)))
    assert (found["moves"], found["lost_with_a_site"], found["starts"]) == (0, 1, 2)


def test_batch_work_and_what_other_policies_place_stay_where_they_are() -> None:
    assert figures(run(read(one_session(movable=0))))["moves"] == 0
    for policy in ("ours-unmoved", "nearest"):
        found = figures(run(read(one_session()), policy))
        assert (found["moves"], found["inside_slo"]) == (0, 0.5), policy


def test_a_price_that_changes_for_good_takes_services_to_where_they_cost_less() -> None:
    raw = one_session(slo_budget_ms=100)
    raw["events"] = []
    raw["sites"][2]["energy_kwh_cny"] = [9.0, *([0.5] * 23)]
    raw["rent_counts"] = 0
    for mode in ("core", "services"):  # which of its nodes is a draw by the engine's generation
        made = run(read(raw), mode=mode)
        assert [p.site_id for p in made.placements] == ["gz-nansha", "hub"], mode
    raw["sites"][2]["energy_kwh_cny"] = 9.0
    assert figures(in_both_modes(read(raw)))["moves"] == 0


@pytest.mark.parametrize("at_once", [1, 4])
def test_what_moves_does_not_depend_on_how_many_are_looked_at_at_once(
    monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    scenario = read(one_session(arrivals={"at_s": [0, 0, 30, 60, 60, 90, 600, 1800, 3000, 3700]}))
    expected = in_both_modes(scenario)
    assert int(str(figures(expected)["moves"])) > 4
    monkeypatch.setattr(drift, "_ASSESSED_AT_ONCE", at_once)
    found = in_both_modes(scenario)
    assert (found.placements, figures(found)) == (expected.placements, figures(expected))


def test_gangs_are_not_movable() -> None:
    with pytest.raises(ScenarioError, match=r"jobs\[0\]\.movable \(1\) is not for gangs"):
        read(one_session(kind="gang", count=2, movable=1))
