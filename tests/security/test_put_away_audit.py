"""Months of the audit log on a real etcd: put away, killed at every step, verified by the same commands."""

from __future__ import annotations

import itertools
import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from mumian_orchestrator.adapters.disk.log_files import DiskLogFiles
from mumian_orchestrator.adapters.etcd.client import EtcdClient
from mumian_orchestrator.adapters.etcd.key_value import EtcdKeyValue
from mumian_orchestrator.domain.audit import AUDIT, Head, entry_after, verify
from mumian_orchestrator.main.free_ports import free_port
from mumian_orchestrator.ports.key_value import Put
from mumian_orchestrator.services.store.log_pages import LogPages
from mumian_orchestrator.services.store.reader import DATA, StoreReader

from tests.memory.put_away import Fuse, KilledError, put_away_months
from tests.orchestrator.conftest import Coordinator
from tests.orchestrator.conftest import etcd_endpoint as etcd_endpoint
from tests.processes import SCRIPTS

pytestmark = pytest.mark.etcd

MONTHS = ("2026-08", "2026-09", "2026-10")


class Platform:
    """One platform's part of an etcd, whose audit log has entries in three months."""

    def __init__(self, kv: EtcdKeyValue, prefix: str, folder: Path) -> None:
        self.kv, self.prefix, self.folder = kv, prefix, folder
        self.head = Head()

    async def fill(self, entries_a_month: int) -> None:
        """As a coordinator stores them."""
        puts = []
        for month in MONTHS:
            for _ in range(entries_a_month):
                line, self.head = entry_after(self.head, {"action": "test"})
                puts.append(Put(self.prefix + AUDIT.key(month, self.head.number), line))
        stored = json.dumps({**asdict(self.head), "month": MONTHS[-1]}).encode()
        puts.append(Put(f"{self.prefix}{DATA}access/audit_head", stored))
        for begin in range(0, len(puts), 100):
            await self.kv.transact([], puts[begin : begin + 100])

    async def is_whole(self) -> bool:
        """Whether a coordinator reads all entries, from files and store."""
        pages = LogPages(StoreReader(self.kv, self.prefix), AUDIT, DiskLogFiles(self.folder))
        lines = [line async for some in pages.of("") for line in some.pages]
        return verify(lines, self.head) == self.head

    async def put_away(self, fuse: Fuse | None = None) -> None:
        """As the command does."""
        await put_away_months(self.kv, AUDIT, self.folder, fuse, self.prefix)

    async def months(self) -> set[str]:
        """Of which the store has entries."""
        found = (await self.kv.list(self.prefix + AUDIT.pages)).entries
        return {entry.key.split("/")[-2] for entry in found}


@asynccontextmanager
async def etcd(endpoint: str) -> AsyncIterator[EtcdKeyValue]:
    """A client of it."""
    client = EtcdClient([endpoint], attempt_s=30)
    try:
        yield EtcdKeyValue(client)
    finally:
        await client.close()


async def test_wherever_it_is_killed_the_log_is_whole_and_the_next_time_does_the_rest(
    tmp_path: Path, etcd_endpoint: str
) -> None:
    async with etcd(etcd_endpoint) as kv:
        for calls in itertools.count():
            folder = tmp_path / str(calls)
            platform = Platform(kv, f"/{folder}/", folder)
            await platform.fill(3)
            try:
                await platform.put_away(Fuse(calls))
            except KilledError:
                assert await platform.is_whole(), calls
                await platform.put_away()
                assert await platform.is_whole(), calls
                assert await platform.months() == {MONTHS[-1]}, calls
            else:
                break
        assert calls > 10


async def test_what_is_put_away_is_exported_and_verified_by_the_same_commands(
    tmp_path: Path, etcd_endpoint: str
) -> None:
    prefix = f"/{tmp_path}/"
    fields: dict[str, Any] = {
        "key_prefix": prefix,
        "state_dir": str(tmp_path / "state"),
        "listen_agents": f"127.0.0.1:{free_port()}",
        "records_dir": str(tmp_path / "records"),
    }
    async with etcd(etcd_endpoint) as kv:
        platform = Platform(kv, prefix, tmp_path / "records")
        await platform.fill(1100)  # more than one range of keys that is deleted at once
        coordinator = Coordinator(tmp_path, etcd_endpoint, **fields)
        try:

            def command(*arguments: str) -> str:
                argv = [str(SCRIPTS / "mumian-coordinator"), "--config", str(coordinator.config), *arguments]
                done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
                assert done.returncode == 0, done.stderr
                return done.stdout

            log = tmp_path / "audit.log"
            told = command("audit", "export", str(log))
            before = log.read_bytes()
            assert command("audit", "put-away").startswith(
                "put away 2026-08, 2026-09: entries up to 2200 lie in"
            )
            assert len((await kv.list(prefix + AUDIT.pages)).entries) == 1100
            assert command("audit", "export", str(log)) == told
            assert log.read_bytes() == before
            assert command("audit", "verify", "--head", told.split()[-1]).startswith("3300 entries, none")
        finally:
            coordinator.running.sweep()
