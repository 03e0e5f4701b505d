"""Budgets are never overspent, whatever races, fails or stops; and every account adds up. In virtual time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mumian.api.v1 import job_pb2
from mumian.api.v1.job_pb2 import Job, JobSpec
from mumian_orchestrator.adapters.memory.key_value import MemoryCluster, MemoryKeyValue
from mumian_orchestrator.adapters.memory.virtual_time import VirtualClock, VirtualTimeLoop
from mumian_orchestrator.domain.errors import RequestRefusedError
from mumian_orchestrator.domain.money.ledger import LedgerError
from mumian_orchestrator.domain.money.ledger_audit import Audit, audit_of
from mumian_orchestrator.domain.money.periods import month_of
from mumian_orchestrator.main.composition import Services
from mumian_orchestrator.main.config import Config
from mumian_orchestrator.services.money.ledger_book import BudgetLimits, LedgerBook
from mumian_orchestrator.services.store.reader import read_whole

from tests.memory.leader import KEY_PREFIX, leading
from tests.memory.site import CLOCK, Site, status_of
from tests.orchestrator.tenant import spec_of

RUNNING, SUCCEEDED = job_pb2.ALLOCATION_STATE_RUNNING, job_pb2.ALLOCATION_STATE_SUCCEEDED
CANCELLED = job_pb2.ALLOCATION_STATE_CANCELLED
MOMENT_S, HOUR_S = 0.5, 3600
CNY = 10**6
# A core costs CNY 1 an hour, and there is no energy that anybody pays for.
EXAMPLES = [file.read_text() for file in sorted(Path("examples/money").glob("*.yaml"))]
HOURLY = Config(unreachable_after_ms=10**9)


async def stored(cluster: MemoryCluster) -> dict[str, bytes]:
    return await read_whole(MemoryKeyValue(cluster), KEY_PREFIX)


async def audited(cluster: MemoryCluster) -> Audit:
    return audit_of(await stored(cluster))


async def joined(services: Services, *running: job_pb2.Allocation, cpu_milli: int = 400_000) -> Site:
    site = Site(services, cpu_milli=cpu_milli)
    site.site.prices.cpu_core_hour_microcny = CNY
    told = [status_of(a.id, a.state, start_time=a.start_time) for a in running]
    await site.connect(*told)
    return site


def timed(hours: float = 1.0, **job: object) -> JobSpec:
    """One task of one core with a time limit: all of it is reserved, and 10 s to end."""
    spec = spec_of(**job)  # type: ignore[arg-type]
    spec.task_groups[0].time_limit_ms = int(hours * HOUR_S * 1000)
    return spec


def fund(services: Services, period: str = "2026-01") -> Mapping[str, int]:
    [found] = [each for each in services.treasury.budget("acme").funds if each.period == period]
    assert found.granted_microcny == (
        found.available_microcny + found.reserved_microcny + found.spent_microcny
    )
    return {
        "available": found.available_microcny,
        "reserved": found.reserved_microcny,
        "spent": found.spent_microcny,
    }


async def created(services: Services, spec: JobSpec, request_id: str) -> Job:
    job = await services.admission.create("acme", request_id, spec)
    await asyncio.sleep(MOMENT_S)
    return services.admission.get("acme", job.id)


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


async def test_a_job_without_money_waits_says_so_and_starts_after_the_top_up_that_it_names() -> None:
    async with leading(MemoryCluster(), HOURLY) as services:
        site = await joined(services)
        await services.treasury.set_budget("acme", 0, None)
        job = await created(services, timed(), "a")
        assert job.state == job_pb2.JOB_STATE_PENDING
        assert not site.runs()
        assert job.shortage.month_top_up_microcny == job.shortage.needed_microcny > CNY
        assert "1 task waits for money" in job.state_message
        assert "CNY 1.002778 more for 2026-01 would do" in job.state_message
        await services.treasury.set_budget("acme", job.shortage.month_top_up_microcny - 1, None)
        await asyncio.sleep(MOMENT_S)
        assert not site.runs()
        await services.treasury.set_budget("acme", job.shortage.month_top_up_microcny, None)
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


async def test_a_limit_below_what_is_used_is_refused_and_so_are_refunds_of_what_was_not_charged() -> None:
    async with leading(MemoryCluster(), HOURLY) as services:
        site = await joined(services)
        await services.treasury.set_budget("acme", 2 * CNY, None)
        job = await created(services, timed(), "a")
        with pytest.raises(RequestRefusedError, match="spent or reserved already"):
            await services.treasury.set_budget("acme", CNY, None)
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


OWNERS = """
kind: registry
enterprises: [{id: acme, sector: ai, district: CN-GD-GZ}]
operators: [{id: op}]
"""
POLICY = """
kind: vouchers
policies:
  - id: city
    from: 2026-01-01
    until: 2026-12-31
    pool_cny_per_year: 3
    enterprise_cny_per_year: 2
    accelerators_only: false
    shares: [{percent: 50}]
"""


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["submit", "end", "end", "refund", "claw", "kill", "hour"]), st.integers(0, 9)
        ),
        max_size=25,
    ),
    st.booleans(),
    st.integers(0, 12),
)
def test_whatever_happens_the_ledger_replays_and_receipts_statements_and_report_are_the_same(
    steps: list[tuple[str, int]], vouchers: bool, budget_cny: int
) -> None:
    async def run() -> None:
        cluster = MemoryCluster()
        number = 0
        for stretch in split(steps):
            async with leading(cluster, HOURLY) as services:
                if number == 0:
                    await services.treasury.set_budget("acme", budget_cny * CNY, 2 * budget_cny * CNY)
                    if vouchers:
                        await services.treasury.apply(OWNERS)
                        await services.treasury.apply(POLICY)
                live = [a for _, a in services.table.live_allocations()]
                site = await joined(services, *live)
                for step, amount in stretch:
                    number += 1
                    await one(services, site, step, amount, number)
                await asyncio.sleep(MOMENT_S)
                await agree(services)
            number += 1
            await audited(cluster)

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(run())


def split(steps: list[tuple[str, int]]) -> list[list[tuple[str, int]]]:
    """Each leader's part."""
    parts: list[list[tuple[str, int]]] = [[]]
    for step in steps:
        if step[0] == "kill":
            parts.append([])
        else:
            parts[-1].append(step)
    return parts


async def one(services: Services, site: Site, step: str, amount: int, number: int) -> None:
    jobs = list(services.admission.list("acme", []))
    if step == "submit":
        spec = timed(1 + amount / 4) if amount % 3 else spec_of(kind=job_pb2.JOB_KIND_SERVICE)
        await services.admission.create("acme", f"r{number}", spec)
    elif step == "hour":
        await asyncio.sleep(HOUR_S / 4)
    elif step == "end":
        for _, allocation in list(services.table.live_allocations())[:1]:
            end, start = CLOCK.now(), CLOCK.now()
            start.seconds -= amount * 500
            site.status(
                allocation.id, SUCCEEDED, start_time=start, end_time=end, it_energy_uj=amount * 10**11
            )
    else:
        posted = [a for job in jobs for a in job.allocations if a.receipt.ledger_sequence]
        for allocation in posted[:1]:
            with contextlib.suppress(RequestRefusedError):
                await services.treasury.correct(
                    "acme", allocation.id, amount * CNY // 10, "x", f"c{number}", clawback=step == "claw"
                )
    await asyncio.sleep(MOMENT_S)


async def agree(services: Services) -> None:
    """Receipts with their corrections, the tenant's account, the operator's and the city's report."""
    receipts = [
        a.receipt
        for job in services.admission.list("acme", [])
        for a in job.allocations
        if a.HasField("receipt")
    ]
    statement = await services.treasury.tenant_statement("acme", "2026")
    operator = await services.treasury.operator_statement("op", "2026")
    report = await services.treasury.city_report("2026")
    told = {row.measure: row.value for row in report.rows if row.section == "money"}
    words = {"rent": "rent", "tenant": "paid by tenants", "voucher": "paid by vouchers"}
    for part in ("rent", "energy", "carbon"):
        field = f"{part}_microcny"
        assert sum(getattr(receipt, field) for receipt in receipts) == getattr(statement.total, field)
    for field in ("rent", "tenant", "voucher"):
        of_tenant = getattr(statement.total, f"{field}_microcny")
        assert of_tenant == getattr(operator.total, f"{field}_microcny")
        assert told[words[field]] == f"{of_tenant // CNY}.{of_tenant % CNY:06d}"
    posted = {line.ledger_sequence: line for line in statement.lines if not line.reason}
    assert len(posted) == len(receipts)
    for receipt in receipts:
        line = posted[receipt.ledger_sequence]
        assert line.tenant_microcny == receipt.tenant_microcny
        assert (
            receipt.total_microcny
            == receipt.tenant_microcny + receipt.voucher_microcny + receipt.forgone_microcny
        )
    by_sector = sum(
        int(row.value.replace(".", "")) for row in report.rows if row.section == "vouchers by sector"
    )
    assert by_sector == statement.total.voucher_microcny
    for fund_ in services.treasury.voucher_funds():
        assert fund_.granted_microcny <= 3 * CNY


async def test_a_changed_entry_a_dropped_page_and_a_forged_receipt_are_found() -> None:
    cluster = MemoryCluster()
    async with leading(cluster, HOURLY) as services:
        site = await joined(services)
        await services.treasury.set_budget("acme", 9 * CNY, None)
        for name in ("a", "b"):
            [allocation] = (await created(services, timed(), name)).allocations
            start = CLOCK.now()
            await asyncio.sleep(HOUR_S)
            site.status(allocation.id, SUCCEEDED, start_time=start, end_time=CLOCK.now())
        await asyncio.sleep(MOMENT_S)
    whole = await stored(cluster)
    audit_of(whole)
    pages = sorted(key for key in whole if key.startswith("log/ledger/"))
    for key in pages:
        with pytest.raises(LedgerError):
            audit_of({name: value for name, value in whole.items() if name != key})
        changed = whole[key].replace(b"acme", b"evil")
        if changed != whole[key]:
            with pytest.raises(LedgerError):
                audit_of({**whole, key: changed})
    for key in [key for key in whole if key.startswith("allocations/")]:
        forged = job_pb2.Allocation.FromString(whole[key])
        forged.receipt.tenant_microcny += 1
        with pytest.raises(LedgerError, match="not the one that was posted"):
            audit_of({**whole, key: forged.SerializeToString()})


def policy(name: str) -> str:
    """Vouchers for all that acme runs at operator op."""
    return f"""
kind: vouchers
policies:
  - {{id: {name}, from: 2000-01-01, until: 2099-12-31, pool_cny_per_year: 100, enterprise_cny_per_year: 3,
     accelerators_only: false, shares: [{{percent: 50}}]}}
"""


async def test_a_job_that_was_put_away_can_be_refunded_and_its_contract_has_had_its_vouchers() -> None:
    cluster = MemoryCluster()
    config = Config(unreachable_after_ms=10**9, archive_after_s=HOUR_S)
    async with leading(cluster, config) as services:
        site = await joined(services)
        await services.treasury.apply("kind: registry\nenterprises: [{id: acme}]\noperators: [{id: op}]")
        await services.treasury.apply(policy("first"))
        job = await created(services, timed(contract="C-1"), "a")
        start = CLOCK.now()
        site.status(job.allocations[0].id, RUNNING, start_time=start)
        await asyncio.sleep(60)
        site.status(job.allocations[0].id, SUCCEEDED, start_time=start, end_time=CLOCK.now())
        await asyncio.sleep(HOUR_S + 60)
        assert services.archive.count == 1
        await audited(cluster)
    async with leading(cluster, config) as services:
        await joined(services)
        await services.treasury.apply(policy("second"))
        for contract, reason in (
            ("C-1", "its contract has had vouchers of first"),
            ("C-2", "50 % of the rent"),
        ):
            _, quote = await services.admission.plan("acme", timed(contract=contract))
            assert quote.lines[0].voucher_reason == f"second: {reason}"
        with pytest.raises(RequestRefusedError, match="put away"):
            await services.treasury.correct("globex", job.allocations[0].id, 0, "no", "r", clawback=False)
        line = await services.treasury.correct("acme", job.allocations[0].id, 0, "slow", "r", clawback=False)
        whole = -(-CNY * 60 // HOUR_S) // 2
        assert abs(line.tenant_microcny + whole) <= 1
        assert abs(line.voucher_microcny + whole) <= 1
    await audited(cluster)


async def test_what_a_site_forges_is_not_paid() -> None:
    """An end of another's work, one that is told twice, and a time before the work was placed."""
    cluster = MemoryCluster()
    async with leading(cluster, HOURLY) as services:
        site = await joined(services)
        stranger = Site(services, "other", cpu_milli=1)
        await stranger.connect()
        job = await created(services, timed(), "a")
        [allocation] = job.allocations
        long_ago, now = CLOCK.now(), CLOCK.now()
        long_ago.seconds -= 1000 * HOUR_S
        now.seconds += 100 * HOUR_S
        stranger.status(allocation.id, SUCCEEDED, start_time=long_ago, end_time=now)
        await asyncio.sleep(MOMENT_S)
        assert services.admission.get("acme", job.id).state != job_pb2.JOB_STATE_SUCCEEDED
        for _ in range(2):
            site.status(allocation.id, SUCCEEDED, start_time=long_ago, end_time=now)
            await asyncio.sleep(MOMENT_S)
        [allocation] = services.admission.get("acme", job.id).allocations
        # What clocks may differ by, and the moment that it was there.
        assert 60_000 <= allocation.receipt.held_ms <= 62_000
        statement = await services.treasury.tenant_statement("acme", "")
        assert len(statement.lines) == 1
        assert statement.total.tenant_microcny == allocation.receipt.tenant_microcny <= 62 * CNY // 3600
    assert (await audited(cluster)).receipts == 1


async def test_the_examples_can_be_published_and_a_wrong_one_changes_nothing() -> None:
    async with leading(MemoryCluster(), HOURLY) as services:
        for text in EXAMPLES:
            assert (await services.treasury.apply(text)).version == 1
            assert (await services.treasury.apply(text)).version == 1
        names = [document.name for document in services.treasury.documents()]
        assert names == ["offers/pearl-river-compute", "pue", "registry", "vouchers"]
        with pytest.raises(RequestRefusedError, match="kind"):
            await services.treasury.apply("kind: vouchrs")
        assert [document.name for document in services.treasury.documents()] == names
