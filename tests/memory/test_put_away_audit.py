"""Months of the audit log that were put away are a part of it: read in order, chained, and never lost."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from mumian_orchestrator.adapters.memory.key_value import MemoryKeyValue
from mumian_orchestrator.domain.audit import AUDIT, AuditBrokenError, Head, entry_after, verify
from mumian_orchestrator.domain.errors import RequestRefusedError
from mumian_orchestrator.domain.money.ledger import LEDGER
from mumian_orchestrator.ports.key_value import Put
from mumian_orchestrator.services.access.audit_log import AuditLog
from mumian_orchestrator.services.store import log_pages
from mumian_orchestrator.services.store.put_away import PutAwayRefusedError

from tests.memory.leader import KEY_PREFIX, leading
from tests.memory.put_away import (
    MONTH_S,
    Fuse,
    KilledError,
    Platform,
    let_months_pass,
    put_away_months,
)
from tests.memory.site import CLOCK

_A_MONTH = 12  # entries


class _World(Platform):
    """Its audit log has entries in three months, of which the last is not over."""

    @asynccontextmanager
    async def leading(self) -> AsyncIterator[AuditLog]:
        """A leader's audit log."""
        async with leading(self.cluster, log_files=self.files, clock=CLOCK) as services:
            yield services.access.audit

    async def fill(self, audit: AuditLog) -> None:
        """Some entries a month."""
        for month in range(3):
            CLOCK.offset_s += MONTH_S if month else 0
            for number in range(_A_MONTH):
                about = {"number": f"{month}.{number}"}
                await audit.note("somebody", "here", "test", "done", about)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> _World:
    """Whose log is read in small parts."""
    let_months_pass(monkeypatch)
    monkeypatch.setattr(log_pages, "_PAGES_AT_ONCE", 5)
    return _World(AUDIT, tmp_path / "records")


async def _exported(audit: AuditLog) -> list[bytes]:
    """Its lines as `audit export` writes them, checked against the head that is stored beside them."""
    head = await audit.stored_head()
    lines = [line async for part in audit.stored_entries(head) for line in part]
    verify(lines, head)
    return lines


async def test_months_that_are_over_leave_the_store_and_the_export_stays_the_same(world: _World) -> None:
    async with world.leading() as audit:
        await world.fill(audit)
        before = await _exported(audit)
        assert len(before) == 3 * _A_MONTH
        assert await world.put_away() == ["2026-01", "2026-02"]
        assert await world.stored_months() == ["2026-03"]
        assert await _exported(audit) == before
        assert await world.put_away() == []
    async with world.leading() as audit:
        assert await _exported(audit) == before
        await audit.note("somebody", "here", "test", "done", {})
        after = await _exported(audit)
        assert after[:-1] == before
        assert json.loads(after[-1])["number"] == len(after)
        # The month goes on in the store, and the ledger has nothing to do with it.
        assert await put_away_months(MemoryKeyValue(world.cluster), LEDGER, world.folder) == []


async def test_wherever_it_is_killed_nothing_is_lost_or_told_twice_and_the_next_time_does_the_rest(
    world: _World,
) -> None:
    async with world.leading() as audit:
        await world.fill(audit)
        before = await _exported(audit)
        whole = dict(world.cluster.entries)
        for calls in itertools.count():
            # Each time from the start: the same store, and files that an earlier one may have left.
            world.cluster.entries = dict(whole)
            try:
                await world.put_away(Fuse(calls))
            except KilledError:
                assert await _exported(audit) == before, calls
                await world.put_away()
                assert await world.stored_months() == ["2026-03"], calls
                assert await _exported(audit) == before, calls
            else:
                break
        assert calls > 10


async def test_entries_that_are_put_away_while_they_are_read_are_read_once(world: _World) -> None:
    async with world.leading() as audit:
        await world.fill(audit)
        before, head = await _exported(audit), await audit.stored_head()
        whole = dict(world.cluster.entries)
        for parts_first in range(len(before) // 5 + 1):
            world.cluster.entries = dict(whole)
            lines: list[bytes] = []
            parts = 0
            async for part in audit.stored_entries(head):
                lines += part
                parts += 1
                if parts == parts_first:
                    await world.put_away()
            assert lines == before, parts_first


async def test_a_file_that_is_changed_or_gone_is_found_and_told(world: _World) -> None:
    async with world.leading() as audit:
        await world.fill(audit)
        await world.put_away()
        path = world.folder / "audit-2026-01"
        content, other = path.read_bytes(), (world.folder / "audit-2026-02").read_bytes()
        path.chmod(0o600)
        for wrong in (content[:-1], b"", other, content + other):
            path.write_bytes(wrong)
            with pytest.raises((AuditBrokenError, RequestRefusedError)):
                await _exported(audit)
        path.unlink()
        with pytest.raises(RequestRefusedError, match="2026-01 of the audit log was put away"):
            await _exported(audit)


async def test_a_month_whose_entries_do_not_follow_stays_where_it_is(world: _World) -> None:
    async with world.leading() as audit:
        await world.fill(audit)
        key = KEY_PREFIX + AUDIT.key("2026-01", 7)
        await MemoryKeyValue(world.cluster).transact([], [Put(key, b'{"number":7,"previous":"forged"}')])
        with pytest.raises(AuditBrokenError, match="entry 7"):
            await world.put_away()
        assert await world.stored_months() == ["2026-01", "2026-02", "2026-03"]


async def test_a_clock_that_is_set_back_writes_into_no_month_that_is_over(world: _World) -> None:
    async with world.leading() as audit:
        await world.fill(audit)
        await world.put_away()
        CLOCK.offset_s -= 2 * MONTH_S
        await audit.note("somebody", "here", "test", "done", {})
    async with world.leading() as audit:
        await audit.note("somebody", "here", "test", "done", {})
        assert await world.stored_months() == ["2026-03"]
        assert len(await _exported(audit)) == 3 * _A_MONTH + 2


async def test_entries_of_a_release_that_knew_no_months_are_read_and_left_where_they_are(
    world: _World,
) -> None:
    async with world.leading() as audit:
        await world.fill(audit)
        before = await _exported(audit)
        for number in range(1, _A_MONTH + 1):
            entry = world.cluster.entries.pop(KEY_PREFIX + AUDIT.key("2026-01", number))
            await MemoryKeyValue(world.cluster).transact(
                [], [Put(f"{KEY_PREFIX}{AUDIT.pages}{number:020d}", entry.value)]
            )
        assert await _exported(audit) == before
        with pytest.raises(PutAwayRefusedError, match="of no month"):
            await world.put_away()


def test_a_head_that_was_noted_before_a_log_grew_is_still_found_in_it() -> None:
    lines, head = list[bytes](), Head()
    for number in range(3):
        line, head = entry_after(head, {"n": number})
        lines.append(line)
    noted = verify(lines[:2])
    assert verify(lines, noted=noted) == head
    with pytest.raises(AuditBrokenError, match="entry 2 has the hash"):
        verify(lines, noted=Head(2, head.sha256))
    with pytest.raises(AuditBrokenError, match="the log ends with entry 1"):
        verify(lines[:1], noted=noted)
