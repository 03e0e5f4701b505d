"""Every account adds up, and what was changed or forged in one is found. In virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mumian.api.v1 import job_pb2
from mumian_orchestrator.adapters.memory.key_value import MemoryCluster
from mumian_orchestrator.adapters.memory.virtual_time import VirtualTimeLoop
from mumian_orchestrator.domain.errors import RequestRefusedError
from mumian_orchestrator.domain.money.ledger import LedgerError
from mumian_orchestrator.domain.money.ledger_audit import audit_of
from mumian_orchestrator.main.composition import Services
from mumian_orchestrator.main.config import Config
from mumian_orchestrator.services.money import treasury
from mumian_orchestrator.services.store import log_pages

from tests.memory.leader import leading
from tests.memory.money import (
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
from tests.memory.site import CLOCK, Site
from tests.orchestrator.tenant import spec_of

EXAMPLES = [file.read_text() for file in sorted(Path("examples/money").glob("*.yaml"))]


@settings(max_examples=40)
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
        if amount % 2:
            spec.task_groups[0].zone_traffic.add(zone_id="users", bandwidth_kbps=1000)
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
    words = {"rent": "rent", "egress": "egress", "tenant": "paid by tenants", "voucher": "paid by vouchers"}
    for part in ("rent", "energy", "carbon", "egress"):
        field = f"{part}_microcny"
        assert sum(getattr(receipt, field) for receipt in receipts) == getattr(statement.total, field)
    for field in ("rent", "egress", "tenant", "voucher"):
        of_tenant = getattr(statement.total, f"{field}_microcny")
        assert of_tenant == getattr(operator.total, f"{field}_microcny")
        assert told[words[field]] == f"{of_tenant // CNY}.{of_tenant % CNY:06d}"
    owed = Counter[str]()
    for line in statement.lines:
        owed[line.allocation_id] += line.tenant_microcny
    assert min(owed.values(), default=0) >= 0
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


async def test_what_a_tenant_owes_in_place_of_vouchers_can_be_given_back_as_well() -> None:
    cluster = MemoryCluster()
    async with leading(cluster, HOURLY) as services:
        site = await joined(services)
        for document in (OWNERS, POLICY):
            await services.treasury.apply(document)
        await services.treasury.set_budget("acme", 5 * CNY, None)
        [allocation] = (await created(services, timed(), "a")).allocations
        start = CLOCK.now()
        await asyncio.sleep(HOUR_S)
        site.status(allocation.id, SUCCEEDED, start_time=start, end_time=CLOCK.now())
        await asyncio.sleep(MOMENT_S)
        correct = functools.partial(services.treasury.correct, "acme", allocation.id)
        await correct(0, "no voucher was due", "claw", clawback=True)
        owed = (await services.treasury.tenant_statement("acme", "2026")).total
        assert (owed.voucher_microcny, owed.tenant_microcny) == (0, CNY)
        line = await correct(0, "the node was broken", "refund", clawback=False)
        assert line.tenant_microcny == -CNY
        assert (await services.treasury.tenant_statement("acme", "2026")).total.tenant_microcny == 0
        assert fund(services) == {"available": 5 * CNY, "reserved": 0, "spent": 0}
        with pytest.raises(RequestRefusedError, match="CNY 0 of it is left"):
            await correct(1, "more", "again", clawback=False)
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


async def test_a_long_account_comes_in_pages_and_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the size of a page; the first has the total of all."""
    async with leading(MemoryCluster(), HOURLY) as services:
        site = await joined(services)
        for number in range(13):
            job = await services.admission.create("acme", f"r{number}", spec_of(count=1 + number % 3))
            await asyncio.sleep(MOMENT_S)
            start = CLOCK.now()
            for allocation in services.admission.get("acme", job.id).allocations:
                site.status(allocation.id, SUCCEEDED, start_time=start, end_time=CLOCK.now())
            await asyncio.sleep(MOMENT_S)
        whole = await services.treasury.tenant_statement("acme", "2026")
        assert (len(whole.lines), whole.next_page_token) == (25, "")
        monkeypatch.setattr(log_pages, "_PAGES_AT_ONCE", 2)
        for size in (1, 3, 25, 26):
            monkeypatch.setattr(treasury, "LINES_MAX", size)
            page = await services.treasury.tenant_statement("acme", "2026")
            assert page.total == whole.total
            lines = list(page.lines)
            while page.next_page_token:
                assert len(page.lines) <= size + 6
                page = await services.treasury.tenant_statement("acme", "2026", page.next_page_token)
                assert page.total.rent_microcny == 0
                lines += page.lines
            assert lines == list(whole.lines)


@pytest.mark.parametrize("year", ["99", "1999", "2026-11", "next"])
async def test_a_report_on_no_year_is_refused_by_its_field(year: str) -> None:
    async with leading(MemoryCluster(), HOURLY) as services:
        with pytest.raises(RequestRefusedError, match=rf"year \('{year}'\) must be a year"):
            await services.treasury.city_report(year)


@pytest.mark.parametrize(("token", "is_refused"), [("zzz?", True), ("", False), ("MA==", False)])
async def test_no_token_shows_lines_of_another_period(token: str, is_refused: bool) -> None:
    """`MA==` is a key before all months: what stood between it and the month was listed once."""
    async with leading(MemoryCluster(), HOURLY) as services:
        site = await joined(services)
        [allocation] = (await created(services, timed(), "a")).allocations
        start = CLOCK.now()
        site.status(allocation.id, SUCCEEDED, start_time=start, end_time=CLOCK.now())
        await asyncio.sleep(MOMENT_S)
        asked = services.treasury.tenant_statement("acme", "2027-03", token)
        if is_refused:
            with pytest.raises(RequestRefusedError, match="page_token"):
                await asked
        else:
            assert not (await asked).lines
