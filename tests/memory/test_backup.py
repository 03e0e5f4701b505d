"""Backing up and restoring: what a file says, and that a store is never half restored without being told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
from mumian_orchestrator.adapters.disk.backup_file import DiskBackupReader, DiskBackupWriter
from mumian_orchestrator.adapters.memory.key_value import MemoryCluster, MemoryKeyValue
from mumian_orchestrator.adapters.memory.virtual_time import VirtualClock
from mumian_orchestrator.ports.key_value import KeyValue, NoSpaceError, Put
from mumian_orchestrator.ports.store import HalfRestoredError, Write
from mumian_orchestrator.services.leadership import campaign, leader_key
from mumian_orchestrator.services.store.backup import RestoreRefusedError, back_up, restore
from mumian_orchestrator.services.store.fenced import FencedStore

T = TypeVar("T")

PREFIX = "/mumian/"
CLOCK = VirtualClock()


async def filled(count: int = 300) -> tuple[MemoryKeyValue, int]:
    """A store with something in it, and the number of the term that wrote it."""
    kv = MemoryKeyValue(MemoryCluster())
    term = await campaign(kv, leader_key(PREFIX), "test", 60)
    store = FencedStore(kv, PREFIX, term)
    await store.load()
    for start in range(0, count, 100):
        await store.commit([Write(f"jobs/{start + n}", bytes(n)) for n in range(100)])
    await store.commit([Write("log/job-1/1", b"event"), Write("jobs/0", None)])
    await term.resign()
    return kv, term.number


async def stored(kv: KeyValue, prefix: str = PREFIX) -> dict[str, bytes]:
    """Everything that a platform would find."""
    entries = {e.key.removeprefix(prefix): e.value for e in (await kv.list(prefix)).entries}
    return {key: value for key, value in entries.items() if key not in ("commit", "leader/term_base")}


async def test_a_restored_store_has_the_same_keys_and_its_terms_go_on(tmp_path: Path) -> None:
    kv, number = await filled()
    facts = await back_up(kv, PREFIX, DiskBackupWriter(tmp_path / "backup"), CLOCK)
    assert facts.keys == 300
    for other_prefix in (PREFIX, "/other/"):
        new = MemoryKeyValue(MemoryCluster())
        assert await restore(new, other_prefix, DiskBackupReader(tmp_path / "backup"), CLOCK) == facts
        assert await stored(new, other_prefix) == await stored(kv)
        term = await campaign(new, leader_key(other_prefix), "test", 60)
        assert term.number > number
        # Lost a second time, and restored from the same backup: agents have heard of that term too.
        again = MemoryKeyValue(MemoryCluster())
        CLOCK.offset_s += 60
        await restore(again, other_prefix, DiskBackupReader(tmp_path / "backup"), CLOCK)
        newest = await campaign(again, leader_key(other_prefix), "test", 60)
        assert newest.number > term.number + 10_000_000
        await term.resign()
        await newest.resign()


async def test_a_restore_refuses_a_store_that_is_not_empty_unless_told(tmp_path: Path) -> None:
    kv, _ = await filled()
    await back_up(kv, PREFIX, DiskBackupWriter(tmp_path / "backup"), CLOCK)
    before = await stored(kv)
    await kv.transact([], [Put(f"{PREFIX}data/jobs/newer", b""), Put(f"{PREFIX}data/jobs/1", b"newer")])
    with pytest.raises(RestoreRefusedError, match="--replace"):
        await restore(kv, PREFIX, DiskBackupReader(tmp_path / "backup"), CLOCK)
    assert f"{PREFIX}data/jobs/newer" in {e.key for e in (await kv.list(PREFIX)).entries}
    await restore(kv, PREFIX, DiskBackupReader(tmp_path / "backup"), CLOCK, replace=True)
    assert await stored(kv) == before


async def test_a_restore_refuses_while_somebody_leads(tmp_path: Path) -> None:
    kv, _ = await filled()
    await back_up(kv, PREFIX, DiskBackupWriter(tmp_path / "backup"), CLOCK)
    term = await campaign(kv, leader_key(PREFIX), "coordinator-1", 60)
    with pytest.raises(RestoreRefusedError, match="coordinator-1 leads"):
        await restore(kv, PREFIX, DiskBackupReader(tmp_path / "backup"), CLOCK, replace=True)
    await term.resign()


async def test_nobody_can_lead_with_a_store_that_is_half_restored(tmp_path: Path) -> None:
    kv, _ = await filled()
    await back_up(kv, PREFIX, DiskBackupWriter(tmp_path / "backup"), CLOCK)
    cluster = MemoryCluster()
    new = MemoryKeyValue(cluster, FullAfter(cluster, 4))
    with pytest.raises(NoSpaceError):
        await restore(new, PREFIX, DiskBackupReader(tmp_path / "backup"), CLOCK)
    cluster.is_full = False
    healthy = MemoryKeyValue(cluster)
    assert 0 < len(await stored(healthy)) < 300
    term = await campaign(healthy, leader_key(PREFIX), "test", 60)
    with pytest.raises(HalfRestoredError, match="--replace"):
        await FencedStore(healthy, PREFIX, term).load()
    await term.resign()
    await restore(healthy, PREFIX, DiskBackupReader(tmp_path / "backup"), CLOCK, replace=True)
    assert await stored(healthy) == await stored(kv)


class FullAfter:
    """The way to a store that is full after so many transactions that put something."""

    def __init__(self, cluster: MemoryCluster, transactions: int) -> None:
        self._cluster, self._left = cluster, transactions

    async def call(self, method: str, apply: Callable[[], T]) -> T:
        self._left -= method == "transact"
        self._cluster.is_full = self._left < 0
        return apply()
