"""The demo's workloads do the work that they are named after, and its tables are computed, not told."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from mumian.api.v1 import fleet_pb2, job_pb2
from mumian.api.v1.explanation_pb2 import CostBreakdown, Explanation, LatencyBreakdown, SiteVerdict
from mumian.api.v1.resources_pb2 import Resources

from examples.demo import account, baselines, zone_client
from examples.demo.jobs import training, var_pricing, vr_renderer
from examples.demo.jobs.http_service import BadRequestError


def test_the_risk_of_one_share_is_that_of_its_distribution() -> None:
    zeros = np.zeros(var_pricing.SPOTS.size)
    one = zeros.copy()
    one[0] = 1000
    portfolio = var_pricing.Portfolio(one, zeros, zeros + 1)
    random = np.random.default_rng(3)
    found = np.mean([var_pricing.value_at_risk(portfolio, random, 2500).value_at_risk for _ in range(30)])
    # Student's t with 6 degrees of freedom, scaled to variance 1: the 1 % quantile is -3.143 / sqrt(6 / 4).
    sigma = var_pricing.VOLATILITIES[0] * np.sqrt(var_pricing.HORIZON_YEARS)
    expected = 1000 * var_pricing.SPOTS[0] * (1 - np.exp(-3.143 / np.sqrt(1.5) * sigma - sigma**2 / 2))
    assert found == pytest.approx(expected, rel=0.03)


def test_calls_are_worth_what_black_and_scholes_say() -> None:
    zeros = np.zeros(var_pricing.SPOTS.size)
    calls = zeros.copy()
    calls[2] = 1  # spot 140.2, volatility 0.28, at the money, a quarter of a year, 2 %
    risk = var_pricing.value_at_risk(
        var_pricing.Portfolio(zeros, calls, zeros + 1), np.random.default_rng(1), 2500
    )
    deviation = 0.28 * math.sqrt(0.25)
    d1 = 0.02 * 0.25 / deviation + deviation / 2
    normal = NormalDist().cdf
    expected = 140.2 * (normal(d1) - math.exp(-0.02 * 0.25) * normal(d1 - deviation))
    assert risk.value == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"shares": [1], "calls": [1], "strike_ratios": [1]}'])
def test_what_is_no_portfolio_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequestError):
        var_pricing.Portfolio.parse(body)


def test_a_frame_short_of_time_shows_the_same_picture_less_sharp() -> None:
    hasty, share = vr_renderer.render(0.1, 0.0, 0.004)
    whole, all_of_it = vr_renderer.render(0.1, 0.0, 10.0)
    assert all_of_it == 1
    assert 0 <= share < 1
    assert whole.shape == (vr_renderer.HEIGHT, vr_renderer.WIDTH, 3)
    assert whole.std() > 20
    assert np.abs(whole.astype(int) - hasty).mean() < 20


def test_the_view_turns_with_the_head() -> None:
    ahead, _ = vr_renderer.render(0.0, 0.0, 10.0)
    aside, _ = vr_renderer.render(0.3, 0.0, 10.0)
    assert np.abs(ahead.astype(int) - aside).mean() > 5


def test_training_learns() -> None:
    samples, labels = training.generated(seed=1)
    steps = list(training.descend(samples[:2000], labels[:2000], steps=800))
    assert steps[0][0] == pytest.approx(np.log(2))
    assert steps[-1][0] < 0.4
    assert training.accuracy(steps[-1][1], samples[2000:], labels[2000:]) > 0.8


def test_percentiles_are_by_nearest_rank() -> None:
    measurement = zone_client.Measurement([float(n) for n in range(1, 101)], [1.0, 3.0], b"", {})
    assert (measurement.p(50), measurement.p(99)) == (50, 99)
    assert measurement.share_within(90) == 0.9


def test_the_account_counts_energy_at_the_meter() -> None:
    site = fleet_pb2.Site(id="hub", carbon_g_per_kwh=400)
    site.pue.marginal_permille = 1250
    site.prices.energy_kwh_microcny = 500_000
    allocation = job_pb2.Allocation(
        site_id="hub",
        it_energy_uj=2_880_000_000_000,
        start_time=Timestamp(seconds=100),
        end_time=Timestamp(seconds=1900),
        cost=CostBreakdown(rent_microcny_per_hour=200_000),
    )
    job = job_pb2.Job(allocations=[allocation])
    usage = account.usage_of(job, {"hub": site})
    assert (usage.held_s, usage.meter_j, usage.pue) == (1800, 3_600_000, 1.25)
    assert usage.rent_cny == pytest.approx(0.1)
    assert (usage.energy_cny, usage.carbon_g) == (0.5, 400)


def test_placements_that_know_no_promises_are_judged_by_them() -> None:
    ready = fleet_pb2.HEALTH_READY
    rents = {"near": 300_000, "far": 100_000}
    rtts_us = {"near": 2_000, "far": 14_000}
    sites = [fleet_pb2.Site(id=name, health=ready) for name in rents]
    for site in sites:
        site.prices.cpu_core_hour_microcny = rents[site.id]
    nodes = [
        fleet_pb2.Node(id=f"{n}/n1", site_id=n, health=ready, cpu_milli=4000, memory_mib=4096) for n in rents
    ]
    latencies = {
        name: LatencyBreakdown(zone_id="zone", rtt_p99_us=rtts_us[name], link_known=True) for name in rents
    }
    decided = Explanation(sites=[SiteVerdict(site_id=name, latency=latencies[name]) for name in rents])
    tight, loose = (
        job_pb2.TaskGroup(name="main", count=1, resources=Resources(cpu_milli=1000)) for _ in range(2)
    )
    tight.latency_slo.zone_ids.append("zone")
    tight.latency_slo.budget_us = 10_000
    jobs = {
        "service": job_pb2.JobSpec(name="service", task_groups=[tight]),
        "batch": job_pb2.JobSpec(name="batch", task_groups=[loose]),
    }
    comparison = baselines.Comparison(sites, nodes, [decided], jobs, dict.fromkeys(jobs, "zone"), 0)
    ours, nearest, rent, draws = comparison.outcomes()
    assert (ours.sites, ours.promises_kept, ours.cny_per_hour) == (["near", "far"], 1, 0.4)
    assert (nearest.sites, nearest.promises_kept, nearest.cny_per_hour) == (["near", "near"], 1, 0.6)
    assert (rent.sites, rent.promises_kept, rent.cny_per_hour) == (["far", "far"], 0, 0.2)
    assert rent.broken == ["service: 14 ms > 10 ms, 4 over: network"]
    assert 0.3 < draws.promises_kept < 0.7
