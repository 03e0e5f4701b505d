"""What an allocation has used and what it comes to; that it is stored once, with the terminal state."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mumian.agent.v1.agent_pb2 import AllocationStatus
from mumian.api.v1 import job_pb2
from mumian.api.v1.explanation_pb2 import CostBreakdown
from mumian.api.v1.fleet_pb2 import FIGURE_SOURCE_DECLARED, Forecast, HourForecast, Prices, Pue, Site
from mumian.api.v1.job_pb2 import Allocation
from mumian.api.v1.resources_pb2 import DeviceShare, Resources
from mumian_orchestrator.domain.receipt import Rates, rates_over, receipt_of

from tests.orchestrator.conftest import Coordinator
from tests.orchestrator.scripted_agent import ScriptedAgent, timestamp
from tests.orchestrator.tenant import Tenant, spec_of

HOUR_S, HOUR_MS = 3600, 3_600_000


def site(*hours: tuple[int, int]) -> Site:
    """CNY 0.60 and 500 g a kWh, but for the hours given from 10 h on."""
    made = Site(
        prices=Prices(energy_kwh_microcny=600_000),
        carbon_g_per_kwh=500,
        pue=Pue(average_permille=1400, marginal_permille=1200, source=FIGURE_SOURCE_DECLARED),
    )
    if hours:
        each = [HourForecast(energy_kwh_microcny=price, carbon_g_per_kwh=carbon) for price, carbon in hours]
        made.forecast.CopyFrom(Forecast(first_hour_unix_s=10 * HOUR_S, hours=each))
    return made


def allocation(
    start_s: int = 0, end_s: int = 2 * HOUR_S, it_energy_uj: int = 3_600_000_000_000
) -> Allocation:
    """Two cores, 4 GiB and half a device."""
    made = Allocation(
        resources=Resources(cpu_milli=2000, memory_mib=4096),
        devices=[DeviceShare(device_index=3, milli=500)],
        it_energy_uj=it_energy_uj,
        cost=CostBreakdown(rent_microcny_per_hour=1_000_000, egress_microcny_per_hour=100_000),
    )
    made.start_time.FromSeconds(start_s)
    made.end_time.FromSeconds(end_s)
    return made


def test_a_receipt_worked_by_hand() -> None:
    made = receipt_of(allocation(), site(), carbon_kg_microcny=80_000)
    assert (made.held_ms, made.core_ms, made.accelerator_ms) == (2 * HOUR_MS, 4 * HOUR_MS, HOUR_MS)
    assert made.memory_mib_s == 4096 * 2 * HOUR_S
    # 1 kWh at the IT side is 1.2 kWh at the meter: CNY 0.72 and 0.6 kg of CO2, which costs CNY 0.048.
    assert (made.it_energy_uj, made.facility_energy_uj) == (3_600_000_000_000, 4_320_000_000_000)
    assert (made.carbon_mg, made.carbon_microcny) == (600_000, 48_000)
    assert (made.rent_microcny, made.energy_microcny) == (2_000_000, 720_000)
    assert made.egress_microcny == 200_000
    assert made.total_microcny == 2_968_000
    assert (made.pue_marginal_permille, made.pue_source) == (1200, FIGURE_SOURCE_DECLARED)


def test_rates_are_means_over_the_time_held_and_flat_where_no_forecast_reaches() -> None:
    dear = site((900_000, 300), (1_500_000, 100))
    half_past = 10 * HOUR_MS + HOUR_MS // 2
    assert rates_over(dear, half_past, half_past + HOUR_MS) == Rates(1_200_000, 200_000)
    assert rates_over(dear, 9 * HOUR_MS, 11 * HOUR_MS) == Rates(750_000, 400_000)
    assert rates_over(dear, 11 * HOUR_MS, 13 * HOUR_MS) == Rates(1_050_000, 300_000)
    assert rates_over(dear, 20 * HOUR_MS, 21 * HOUR_MS) == Rates(600_000, 500_000)


@given(st.integers(0, 15 * HOUR_MS), st.integers(1, 6 * HOUR_MS), st.lists(st.integers(0, 10**7), max_size=4))
def test_rates_equal_those_summed_minute_by_minute(start_ms: int, length_ms: int, prices: list[int]) -> None:
    start_ms, length_ms = start_ms // 60_000 * 60_000, (length_ms // 60_000 + 1) * 60_000
    at = site(*((price, price // 10_000) for price in prices))
    minutes = range(start_ms, start_ms + length_ms, 60_000)
    hours = [minute // HOUR_MS - 10 for minute in minutes]
    by_minute = [prices[hour] if 0 <= hour < len(prices) else 600_000 for hour in hours]
    assert rates_over(at, start_ms, start_ms + length_ms)[0] == sum(by_minute) // len(by_minute)


def test_a_clock_that_was_set_back_makes_nothing_negative() -> None:
    made = receipt_of(allocation(start_s=100, end_s=40), site(), 80_000)
    assert (made.held_ms, made.core_ms, made.rent_microcny) == (0, 0, 0)
    assert made.total_microcny == 720_000 + 48_000


@pytest.mark.etcd
async def test_a_receipt_is_stored_with_the_end_and_repeated_reports_count_nothing_twice(
    coordinator: Coordinator, tenant: Tenant, agent: ScriptedAgent
) -> None:
    job = await tenant.create(spec_of())
    run = await agent.run_of(job.id)
    ended = AllocationStatus(
        allocation_id=run.allocation.id,
        attempt=1,
        state=job_pb2.ALLOCATION_STATE_SUCCEEDED,
        exit_code=0,
        it_energy_uj=7_200_000_000,
        start_time=timestamp(-10),
        end_time=timestamp(),
    )
    agent.report(ended)
    first = (await tenant.until(job.id, job_pb2.JOB_STATE_SUCCEEDED)).allocations[0].receipt
    assert 9_990 <= first.held_ms <= 10_010
    assert (first.it_energy_uj, first.facility_energy_uj) == (7_200_000_000, 9_000_000_000)
    ended.it_energy_uj = 14_400_000_000
    agent.report(ended)
    await agent.until(lambda: len([c for c in agent.commands if c.HasField("status_stored")]) >= 2)
    coordinator.running.kill()
    coordinator.start()
    assert (await tenant.get(job.id)).allocations[0].receipt == first


@pytest.mark.etcd
async def test_what_never_started_gets_no_receipt(tenant: Tenant, agent: ScriptedAgent) -> None:
    job = await tenant.create(spec_of())
    run = await agent.run_of(job.id)
    agent.status(run.allocation.id, job_pb2.ALLOCATION_STATE_FAILED, exit_code=127)
    assert not (await tenant.until(job.id, job_pb2.JOB_STATE_FAILED)).allocations[0].HasField("receipt")
