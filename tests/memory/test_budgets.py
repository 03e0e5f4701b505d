"""Budgets are never overspent, whatever races, fails or stops. In virtual time."""

from __future__ import annotations

import asyncio

import pytest
from mumian.api.v1 import job_pb2
from mumian_orchestrator.adapters.memory.key_value import MemoryCluster
from mumian_orchestrator.adapters.memory.virtual_time import VirtualClock
from mumian_orchestrator.domain.errors import RequestRefusedError
from mumian_orchestrator.domain.money.holds import FOR_EVER_MS
from mumian_orchestrator.domain.money.ledger_audit import audit_of
from mumian_orchestrator.domain.periods import month_of
from mumian_orchestrator.services.money.ledger_book import BudgetLimits, LedgerBook

from tests.memory.leader import leading
from tests.memory.money import (
    CANCELLED,
    CNY,
    HOUR_S,
    HOURLY,
    MOMENT_S,
    OWNERS,
    POLICY,
    RUNNING,
    SUCCEEDED,
    audited,
    created,
    fund,
    joined,
    stored,
    timed,
)
from tests.memory.site import CLOCK, Site, status_of
from tests.orchestrator.tenant import spec_of

EGRESS_PRICE = """
kind: offers
operator: op
prices: [{what: egress, cny_per_gib: 3, from: 2026-01-01, until: 2026-12-31}]
"""


async def test_an_hour_is_reserved_then_posted_by_what_was_used_and_the_rest_goes_back() -> None:
    cluster = MemoryCluster()
    async with leading(cluster, HOURLY) as services:
        site = await joined(services)
        await services.treasury.set_budget("acme", 5 * CNY, None)
        job = await created(services, timed(), "a")
        whole = -(-CNY * 3_610_000 // 3_600_000)
        assert fund(services) == {"available": 5 * CNY - whole, "reserved": whole, "spent": 0}
        start, [allocation] = CLOCK.now(), job.allocations
        site.status(allocation.id, RUNNING, start_time=start)
        await asyncio.sleep(HOUR_S / 2)
        site.status(allocation.id, SUCCEEDED, start_time=start, end_time=CLOCK.now())
        await asyncio.sleep(MOMENT_S)
        receipt = services.admission.get("acme", job.id).allocations[0].receipt
        assert receipt.tenant_microcny == receipt.total_microcny == CNY // 2
        assert fund(services) == {"available": 5 * CNY - CNY // 2, "reserved": 0, "spent": CNY // 2}
        statement = await services.treasury.tenant_statement("acme", "2026-01")
        assert statement.total.tenant_microcny == CNY // 2
        assert [line.ledger_sequence for line in statement.lines] == [receipt.ledger_sequence]
    assert (await audited(cluster)).receipts == 1


async def test_what_leaves_the_site_is_reserved_and_paid_and_no_voucher_pays_it() -> None:
    """800 kbit/s are 0.3353 GiB an hour: at CNY 3 a GiB about as much as the core."""
    cluster = MemoryCluster()
    async with leading(cluster, HOURLY) as services:
        site = await joined(services)
        for document in (EGRESS_PRICE, POLICY, OWNERS):
            await services.treasury.apply(document)
        await services.treasury.set_budget("acme", 5 * CNY, None)
        spec = timed()
        spec.task_groups[0].zone_traffic.add(zone_id="users", bandwidth_kbps=800)
        job = await created(services, spec, "a")
        start, [allocation] = CLOCK.now(), job.allocations
        egress = 800 * 450_000 * 3 * CNY // 2**30
        assert allocation.cost.egress_microcny_per_hour == egress
        reserved = fund(services)["reserved"]
        rent, other = (-(-hourly * 3_610_000 // 3_600_000) for hourly in (CNY, egress))
        assert reserved == rent - rent // 2 + other
        await asyncio.sleep(HOUR_S)
        site.status(allocation.id, SUCCEEDED, start_time=start, end_time=CLOCK.now())
        await asyncio.sleep(MOMENT_S)
        receipt = services.admission.get("acme", job.id).allocations[0].receipt
        assert receipt.egress_microcny == egress * receipt.held_ms // 3_600_000
        assert receipt.voucher_microcny == receipt.rent_microcny // 2
        assert receipt.tenant_microcny == receipt.total_microcny - receipt.voucher_microcny
        earned = (await services.treasury.operator_statement("op", "2026")).total
        assert earned.egress_microcny == receipt.egress_microcny
    await audited(cluster)


async def test_a_job_without_money_waits_says_so_and_starts_after_the_top_up_that_it_names() -> None:
    async with leading(MemoryCluster(), HOURLY) as services:
        site = await joined(services)
        await services.treasury.set_budget("acme", 0, None)
        job = await created(services, timed(), "a")
        assert job.state == job_pb2.JOB_STATE_PENDING
        assert not site.runs()
        top_up = job.shortage.month_top_up_microcny
        assert top_up == job.shortage.needed_microcny > CNY
        assert "1 task waits for money" in job.state_message
        assert "CNY 1.002778 more for 2026-01 would do" in job.state_message
        await services.treasury.set_budget("acme", top_up - 1, None)
        await asyncio.sleep(MOMENT_S)
        assert not site.runs()
        await services.treasury.set_budget("acme", top_up, None)
        await asyncio.sleep(MOMENT_S)
        assert len(site.runs()) == 1
        assert not services.admission.get("acme", job.id).HasField("shortage")


async def test_200_racing_submits_and_a_leader_kill_reserve_no_more_than_there_is() -> None:
    cluster = MemoryCluster()
    whole = -(-CNY * 3_610_000 // 3_600_000)
    async with leading(cluster, HOURLY) as services:
        await joined(services)
        await services.treasury.set_budget("acme", 50 * whole + whole // 2, 10**12)
        creating = [services.admission.create("acme", f"r{n}", timed()) for n in range(200)]
        racing = asyncio.gather(*creating, return_exceptions=True)
        await asyncio.sleep(0)  # some are accepted, none has been answered
    await asyncio.wait({racing}, timeout=60)
    await audited(cluster)
    async with leading(cluster, HOURLY) as services:
        site = await joined(services)
        jobs = [await services.admission.create("acme", f"r{n}", timed()) for n in range(200)]
        await asyncio.sleep(10)
        placed = [job.id for job in jobs if services.admission.get("acme", job.id).allocations]
        assert len(placed) == len(set(site.runs())) == 50
        assert fund(services)["available"] == whole // 2
    await audited(cluster)


async def test_a_gang_is_paid_whole_or_not_at_all_and_what_it_cannot_pay_others_get() -> None:
    async with leading(MemoryCluster(), HOURLY) as services:
        site = await joined(services, cpu_milli=3000)
        await services.treasury.set_budget("acme", 2 * CNY, None)
        gang = timed(count=3, kind=job_pb2.JOB_KIND_GANG, priority=90)
        poor = await services.admission.create("acme", "gang", gang)
        rich = await services.admission.create("globex", "rich", timed(count=3))
        await asyncio.sleep(MOMENT_S)
        assert not services.admission.get("acme", poor.id).allocations
        assert services.admission.get("acme", poor.id).shortage.task_count == 3
        assert len(services.admission.get("globex", rich.id).allocations) == 3
        assert len(site.runs()) == 3


async def test_a_window_is_renewed_at_its_half_and_never_beyond_the_budget() -> None:
    cluster = MemoryCluster()
    service = spec_of(kind=job_pb2.JOB_KIND_SERVICE)
    async with leading(cluster, HOURLY) as services:
        site = await joined(services)
        await services.treasury.set_budget("acme", 3 * CNY, None)
        job = await created(services, service, "a")
        [allocation] = job.allocations
        assert allocation.funding.funded_ms == HOUR_S * 1000
        site.status(allocation.id, RUNNING, start_time=CLOCK.now())
        begun_s = CLOCK.monotonic_s()
        await asyncio.sleep(HOUR_S / 2 + 5)
        extended = [c.extend_funding.funded_ms for c in site.commands if c.HasField("extend_funding")]
        assert extended == [2 * HOUR_S * 1000]
        await asyncio.sleep(1.5 * HOUR_S)
        extended = [c.extend_funding.funded_ms for c in site.commands if c.HasField("extend_funding")]
        assert extended == [2 * HOUR_S * 1000, 3 * HOUR_S * 1000]
        await asyncio.sleep(HOUR_S / 2)
        shown = services.admission.get("acme", job.id)
        assert "stops when the time that is paid for is over" in shown.state_message
        assert shown.shortage.month_top_up_microcny == CNY
        # The site ends it by itself at the end of what is paid.
        await asyncio.sleep(begun_s + 3 * HOUR_S - CLOCK.monotonic_s())
        start = services.admission.get("acme", job.id).allocations[0].start_time
        site.status(allocation.id, CANCELLED, start_time=start, end_time=CLOCK.now(), unfunded=True)
        await asyncio.sleep(MOMENT_S)
        waiting = services.admission.get("acme", job.id)
        assert waiting.state == job_pb2.JOB_STATE_PENDING
        assert len(waiting.allocations) == 1
        assert fund(services)["spent"] <= 3 * CNY
        await services.treasury.set_budget("acme", 5 * CNY, None)
        await asyncio.sleep(MOMENT_S)
        assert len(services.admission.get("acme", job.id).allocations) == 2
    await audited(cluster)


async def test_without_a_coordinator_nothing_is_renewed_and_what_was_reserved_is_all_that_is_charged() -> (
    None
):
    cluster = MemoryCluster()
    async with leading(cluster, HOURLY) as services:
        site = await joined(services)
        await services.treasury.set_budget("acme", 10 * CNY, None)
        job = await created(services, spec_of(kind=job_pb2.JOB_KIND_SERVICE), "a")
        [allocation], start = job.allocations, CLOCK.now()
        site.status(allocation.id, RUNNING, start_time=start)
        await asyncio.sleep(MOMENT_S)
    await asyncio.sleep(2 * HOUR_S)
    # A site whose clock is wrong claims two hours: it bears what is above the hour that was paid.
    async with leading(cluster, HOURLY) as services:
        site = Site(services)
        site.site.prices.cpu_core_hour_microcny = CNY
        await site.connect(
            status_of(allocation.id, CANCELLED, start_time=start, end_time=CLOCK.now(), unfunded=True)
        )
        await asyncio.sleep(MOMENT_S)
        receipt = services.admission.get("acme", job.id).allocations[0].receipt
        assert receipt.tenant_microcny == CNY
        assert receipt.forgone_microcny == receipt.total_microcny - CNY >= CNY
    await audited(cluster)


async def test_a_new_month_has_new_money_and_a_clock_that_is_set_back_reopens_no_old_one() -> None:
    clock = VirtualClock()
    book = LedgerBook(clock)
    limits = BudgetLimits(month=5, year=7)
    writes = book.set_limits("acme", limits)
    clock.offset_s = 40 * 24 * HOUR_S
    writes += book.set_limits("acme", limits)
    assert month_of(book.now_ms()) == "2026-02"
    clock.offset_s = -400 * 24 * HOUR_S  # into another year
    assert month_of(book.now_ms()) == "2026-02"
    newer = LedgerBook(clock)
    newer.load({write.key: write.value or b"" for write in writes})
    assert month_of(newer.now_ms()) == "2026-02"
    assert [(fund.period, fund.available_microcny) for fund in newer.funds("budget/acme")] == [
        ("2026-02", 5),
        ("2026", 7),
        ("2026-01", 5),
    ]
    audit_of({write.key: write.value or b"" for write in writes})


async def test_a_tenant_without_a_budget_reserves_nothing_and_is_posted_all_the_same() -> None:
    cluster = MemoryCluster()
    async with leading(cluster, HOURLY) as services:
        site = await joined(services)
        job = await created(services, timed(), "a")
        [allocation] = job.allocations
        assert not allocation.HasField("funding")
        assert not [key for key in await stored(cluster) if "ledger" in key]
        start = CLOCK.now()
        await asyncio.sleep(HOUR_S)
        site.status(allocation.id, SUCCEEDED, start_time=start, end_time=CLOCK.now())
        await asyncio.sleep(MOMENT_S)
        assert (await services.treasury.operator_statement("op", "2026")).total.rent_microcny == CNY
    assert (await audited(cluster)).posted_microcny == CNY


async def test_what_was_not_charged_is_not_given_back() -> None:
    async with leading(MemoryCluster(), HOURLY) as services:
        site = await joined(services)
        await services.treasury.set_budget("acme", 2 * CNY, None)
        job = await created(services, timed(), "a")
        [allocation], start = job.allocations, CLOCK.now()
        with pytest.raises(RequestRefusedError, match="has not been charged"):
            await services.treasury.correct("acme", allocation.id, 0, "no", "r1", clawback=False)
        await asyncio.sleep(HOUR_S)
        site.status(allocation.id, SUCCEEDED, start_time=start, end_time=CLOCK.now())
        await asyncio.sleep(MOMENT_S)
        line = await services.treasury.correct(
            "acme", allocation.id, CNY // 4, "slow disk", "r1", clawback=False
        )
        assert line.tenant_microcny == -CNY // 4
        again = await services.treasury.correct(
            "acme", allocation.id, CNY // 4, "slow disk", "r1", clawback=False
        )
        assert again.ledger_sequence == line.ledger_sequence
        with pytest.raises(RequestRefusedError, match=r"CNY 0.75 of it is left to give back"):
            await services.treasury.correct("acme", allocation.id, CNY, "more", "r2", clawback=False)
        assert fund(services)["spent"] == CNY - CNY // 4
        total = (await services.treasury.tenant_statement("acme", "2026-01")).total
        assert total.tenant_microcny == CNY - CNY // 4


async def test_a_limit_below_what_is_used_lets_nothing_new_start_and_takes_nothing_back() -> None:
    cluster = MemoryCluster()
    whole = -(-CNY * 3_610_000 // 3_600_000)
    async with leading(cluster, HOURLY) as services:
        site = await joined(services)
        await services.treasury.set_budget("acme", 5 * CNY, None)
        [allocation] = (await created(services, timed(), "a")).allocations
        await services.treasury.set_budget("acme", CNY // 2, None)
        assert fund(services) == {"available": 0, "reserved": whole, "spent": 0}
        waiting = await created(services, timed(), "b")
        assert waiting.shortage.month_top_up_microcny == whole + (whole - CNY // 2)
        start = CLOCK.now()
        site.status(allocation.id, RUNNING, start_time=start)
        await asyncio.sleep(HOUR_S / 4)
        site.status(allocation.id, SUCCEEDED, start_time=start, end_time=CLOCK.now())
        await asyncio.sleep(MOMENT_S)
        # What came back is under the new limit only as far as that goes.
        assert fund(services) == {"available": CNY // 4, "reserved": 0, "spent": CNY // 4}
        still = services.admission.get("acme", waiting.id)
        assert still.shortage.month_top_up_microcny == whole - CNY // 4
        top_up = still.shortage.month_top_up_microcny
        await services.treasury.set_budget("acme", CNY // 2 + top_up, None)
        await asyncio.sleep(MOMENT_S)
        assert services.admission.get("acme", waiting.id).allocations
    await audited(cluster)


async def test_without_its_budget_work_runs_on_for_ever_and_is_charged_as_it_is_metered() -> None:
    cluster = MemoryCluster()
    service = spec_of(kind=job_pb2.JOB_KIND_SERVICE)
    async with leading(cluster, HOURLY) as services:
        site = await joined(services)
        await services.treasury.set_budget("acme", CNY, CNY)
        [allocation] = (await created(services, service, "a")).allocations
        start = CLOCK.now()
        site.status(allocation.id, RUNNING, start_time=start)
        await asyncio.sleep(0.6 * HOUR_S)
        waiting = await created(services, timed(), "b")
        assert services.admission.get("acme", allocation.job_id).HasField("shortage")
        await services.treasury.remove_budget("acme", month=True, year=False)
        assert waiting.shortage.year_top_up_microcny == waiting.shortage.month_top_up_microcny > 0
        await asyncio.sleep(MOMENT_S)
        left = services.admission.get("acme", waiting.id).shortage
        assert left.year_top_up_microcny > 0 == left.month_top_up_microcny
        # The leader dies once the removal is stored, and before any site is told of it.
        await services.treasury.remove_budget("acme", month=False, year=True)
    async with leading(cluster, HOURLY) as services:
        site = await joined(services, services.admission.get("acme", allocation.job_id).allocations[0])
        await asyncio.sleep(5)
        assert not services.treasury.budget("acme").HasField("year_microcny")
        assert services.admission.get("acme", waiting.id).allocations
        told = [c.extend_funding.funded_ms for c in site.commands if c.HasField("extend_funding")]
        assert told == [FOR_EVER_MS]
        assert not services.admission.get("acme", allocation.job_id).HasField("shortage")
        await asyncio.sleep(3 * HOUR_S)
        # Another budget is for what is committed from now on.
        await services.treasury.set_budget("acme", 0, None)
        await asyncio.sleep(HOUR_S)
        assert not services.admission.get("acme", allocation.job_id).HasField("shortage")
        site.status(allocation.id, SUCCEEDED, start_time=start, end_time=CLOCK.now())
        await asyncio.sleep(MOMENT_S)
        receipt = services.admission.get("acme", allocation.job_id).allocations[0].receipt
        assert receipt.forgone_microcny == 0
        assert receipt.tenant_microcny == receipt.total_microcny > 4 * CNY
        assert fund(services, "2026")["spent"] == CNY
    await audited(cluster)


async def test_a_budget_that_is_set_later_is_not_for_what_vouchers_have_renewed_without_it() -> None:
    """The site would not end it at the end of a window, and its operator would bear all that is above."""
    cluster = MemoryCluster()
    async with leading(cluster, HOURLY) as services:
        site = await joined(services)
        for document in (POLICY, OWNERS):
            await services.treasury.apply(document)
        job = await created(services, spec_of(kind=job_pb2.JOB_KIND_SERVICE), "a")
        [allocation], start = job.allocations, CLOCK.now()
        assert allocation.funding.covered_ms and not allocation.funding.funded_ms
        site.status(allocation.id, RUNNING, start_time=start)
        await services.treasury.set_budget("acme", CNY, None)
        await asyncio.sleep(4 * HOUR_S)
        assert not services.admission.get("acme", job.id).HasField("shortage")
        site.status(allocation.id, SUCCEEDED, start_time=start, end_time=CLOCK.now())
        await asyncio.sleep(MOMENT_S)
        receipt = services.admission.get("acme", job.id).allocations[0].receipt
        assert receipt.forgone_microcny == 0 < receipt.voucher_microcny
        assert fund(services) == {"available": CNY, "reserved": 0, "spent": 0}
    await audited(cluster)
