"""Who probes whom."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from mumian_orchestrator.services.probe_plan import PEERS_MAX, ProbePlan

ZONES = {"tianhe": "10.0.0.1:9001", "unmeasured": ""}


def plan_of(site_ids: list[str]) -> ProbePlan:
    plan = ProbePlan(ZONES)
    for site_id in site_ids:
        plan.join(site_id, f"{site_id}:9001")
    return plan


def test_all_probe_all_and_the_zones_while_they_are_few() -> None:
    site_ids = [f"s{number}" for number in range(PEERS_MAX + 1)]
    plan = plan_of(site_ids)
    for site_id in site_ids:
        others = {other: f"{other}:9001" for other in site_ids if other != site_id}
        assert plan.targets(site_id) == {"tianhe": ZONES["tianhe"], **others}


@given(st.permutations([f"s{number}" for number in range(3 * PEERS_MAX)]))
def test_of_many_each_probes_some_whatever_the_order_in_which_they_joined(site_ids: list[str]) -> None:
    plan, sorted_plan = plan_of(site_ids), plan_of(sorted(site_ids))
    for site_id in site_ids[:5]:
        targets = plan.targets(site_id)
        assert targets == sorted_plan.targets(site_id)
        assert len(targets.keys() - ZONES.keys()) == PEERS_MAX
        assert site_id not in targets


def test_exactly_those_that_probe_a_newcomer_have_other_targets_than_before() -> None:
    site_ids = [f"s{number}" for number in range(3 * PEERS_MAX)]
    plan = plan_of(site_ids)
    before = {site_id: plan.targets(site_id) for site_id in site_ids}
    plan.join("new", "new:9001")
    changed = {site_id for site_id in site_ids if plan.targets(site_id) != before[site_id]}
    assert changed == set(plan.probing("new"))
    assert 0 < len(changed) < 2 * PEERS_MAX


def test_who_answers_no_probes_is_not_probed_until_it_does() -> None:
    plan = plan_of(["a", "b"])
    plan.join("b", "")
    assert "b" not in plan.targets("a")
    plan.join("b", "10.0.0.2:9001")
    assert plan.targets("a")["b"] == "10.0.0.2:9001"
