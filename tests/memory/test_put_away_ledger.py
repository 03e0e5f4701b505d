"""Months of the ledger that were put away: nothing is lost or told twice, wherever that is broken off."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from mumian.api.v1.money_pb2 import StatementLine
from mumian.storage.v1.ledger_pb2 import LedgerPage
from mumian_orchestrator.adapters.memory.key_value import MemoryKeyValue
from mumian_orchestrator.domain.errors import RequestRefusedError
from mumian_orchestrator.domain.money.ledger import LEDGER, LedgerError
from mumian_orchestrator.domain.money.ledger_audit import Audit, audit_of
from mumian_orchestrator.main.composition import Services
from mumian_orchestrator.ports.log_files import LogFilesError
from mumian_orchestrator.services.money import treasury
from mumian_orchestrator.services.store import log_pages
from mumian_orchestrator.services.store.log_pages import LogPages
from mumian_orchestrator.services.store.put_away import PutAwayRefusedError, pages_in
from mumian_orchestrator.services.store.reader import StoreReader

from tests.memory.leader import KEY_PREFIX, leading
from tests.memory.money import CNY, HOURLY, MOMENT_S, SUCCEEDED, created, joined, stored, timed
from tests.memory.put_away import MONTH_S, Fuse, KilledError, Platform, let_months_pass
from tests.memory.site import CLOCK


class _World(Platform):
    """Its ledger has entries in three months, of which the last is not over."""

    @asynccontextmanager
    async def leading(self) -> AsyncIterator[Services]:
        """A leader, at the newest time."""
        async with leading(self.cluster, HOURLY, log_files=self.files, clock=CLOCK) as services:
            yield services

    async def fill(self, services: Services) -> None:
        """Two jobs a month, and a refund in the next month of one of the first."""
        await services.treasury.set_budget("acme", 9 * CNY, None)
        site = await joined(services)
        for month in range(3):
            CLOCK.offset_s += MONTH_S if month else 0
            for name in ("a", "b"):
                [allocation] = (await created(services, timed(), f"{name}{month}")).allocations
                start = CLOCK.now()
                await asyncio.sleep(60)
                site.status(allocation.id, SUCCEEDED, start_time=start, end_time=CLOCK.now())
                await asyncio.sleep(MOMENT_S)
            await services.treasury.correct("acme", allocation.id, 1000, "late", f"c{month}", clawback=False)

    async def audited(self) -> Audit:
        """What the check of the ledger finds."""
        return audit_of(await stored(self.cluster), partial(pages_in, self.files, LEDGER))


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> _World:
    """Whose months are still to pass."""
    let_months_pass(monkeypatch)
    return _World(LEDGER, tmp_path / "ledger")


async def _accounts(services: Services) -> list[object]:
    """Everything that is worked out from the ledger, and a long statement page by page."""
    money, made = services.treasury, []
    for period in ("2026-01", "2026-02", "2026-03", "2026"):
        made += [await money.tenant_statement("acme", period), await money.operator_statement("op", period)]
    report = await money.city_report("2026")
    return [*made, await _lines(services), [row for row in report.rows if row.section == "money"]]


async def _lines(services: Services) -> list[StatementLine]:
    """A year's lines, by the tokens of the pages."""
    lines: list[StatementLine] = []
    token = ""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(treasury, "LINES_MAX", 1)
        while True:
            page = await services.treasury.tenant_statement("acme", "2026", token)
            lines += page.lines
            if not (token := page.next_page_token):
                return lines


async def test_months_that_are_over_leave_the_store_and_every_account_stays_the_same(world: _World) -> None:
    async with world.leading() as services:
        await world.fill(services)
        before, audit = await _accounts(services), await world.audited()
        assert await world.put_away() == ["2026-01", "2026-02"]
        assert await world.stored_months() == ["2026-03"]
        assert await _accounts(services) == before
        assert await world.put_away() == []
    assert await world.audited() == audit
    async with world.leading() as services:
        assert await _accounts(services) == before
        # What it was put away for is still given back, in the month that it is now.
        [*_, line] = before[0].lines  # type: ignore[attr-defined]
        await services.treasury.correct("acme", line.allocation_id, 1000, "later", "d", clawback=False)
    assert (await world.audited()).entries == audit.entries + 1


async def test_wherever_it_is_killed_nothing_is_lost_or_told_twice_and_the_next_time_does_the_rest(
    world: _World,
) -> None:
    async with world.leading() as services:
        await world.fill(services)
        before, audit = await _accounts(services), await world.audited()
        whole = dict(world.cluster.entries)
        for calls in itertools.count():
            # Each time from the start: the same store, and files that an earlier one may have left.
            world.cluster.entries = dict(whole)
            try:
                await world.put_away(Fuse(calls))
            except KilledError:
                assert await _accounts(services) == before, calls
                assert await world.audited() == audit, calls
                await world.put_away()
                assert await world.stored_months() == ["2026-03"], calls
                assert await _accounts(services) == before, calls
                assert await world.audited() == audit, calls
            else:
                break
        assert calls > 10


async def test_a_month_that_is_put_away_while_its_statement_is_read_is_read_to_its_end(
    world: _World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_pages, "_PAGES_AT_ONCE", 1)
    async with world.leading() as services:
        await world.fill(services)
        before = await services.treasury.tenant_statement("acme", "2026")
        whole = dict(world.cluster.entries)
        pages = sum(1 for key in whole if LEDGER.pages in key)
        for reads in range(pages + 1):
            world.cluster.entries = dict(whole)
            reader = StoreReader(MemoryKeyValue(world.cluster), KEY_PREFIX)
            seen: list[bytes] = []
            async for some in LogPages(reader, LEDGER, world.files).of("2026"):
                seen += some.pages
                if len(seen) == reads:
                    await world.put_away()
            entries = [entry for page in seen for entry in LedgerPage.FromString(page).entries]
            assert [entry.sequence for entry in entries] == list(range(1, len(entries) + 1)), reads
            assert len(seen) == pages
        assert await services.treasury.tenant_statement("acme", "2026") == before


async def test_a_file_that_is_changed_or_gone_is_found_and_told(world: _World) -> None:
    async with world.leading() as services:
        await world.fill(services)
        await world.put_away()
        path = world.folder / "ledger-2026-01"
        content = path.read_bytes()
        other = (world.folder / "ledger-2026-02").read_bytes()
        for wrong in (content[:-1], content[:-9], b"", other, content + other):
            path.chmod(0o600)
            path.write_bytes(wrong)
            with pytest.raises((LedgerError, LogFilesError)):
                await world.audited()
        path.unlink()
        with pytest.raises(RequestRefusedError, match="2026-01 of the ledger was put away"):
            await services.treasury.tenant_statement("acme", "2026")
        with pytest.raises(LogFilesError, match="No such file"):
            await world.audited()
        assert (await services.treasury.tenant_statement("acme", "2026-02")).lines


async def test_what_another_store_has_put_away_is_never_replaced(world: _World) -> None:
    async with world.leading() as services:
        await world.fill(services)
        world.folder.mkdir()
        path = world.folder / "ledger-2026-01"
        path.write_bytes(b"of another store")
        with pytest.raises(LogFilesError, match="with other pages"):
            await world.put_away()
        assert path.read_bytes() == b"of another store"
        assert await world.stored_months() == ["2026-01", "2026-02", "2026-03"]


async def test_of_two_who_put_away_at_once_one_is_refused_and_both_may_try_again(world: _World) -> None:
    async with world.leading() as services:
        await world.fill(services)
        before = await _accounts(services)
        first, second = await asyncio.gather(world.put_away(), world.put_away(), return_exceptions=True)
        assert any(isinstance(each, PutAwayRefusedError) for each in (first, second))
        await world.put_away()
        assert await world.stored_months() == ["2026-03"]
        assert await _accounts(services) == before
