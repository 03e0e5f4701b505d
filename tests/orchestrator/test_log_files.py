"""A month's file of a log: what is written is read, and each byte of it once."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from mumian.storage.v1.put_away_pb2 import MonthFile, PutAway
from mumian_orchestrator.adapters.disk import log_files
from mumian_orchestrator.adapters.disk.log_files import DiskLogFiles
from mumian_orchestrator.adapters.memory.key_value import MemoryCluster, MemoryKeyValue
from mumian_orchestrator.domain.audit import AUDIT
from mumian_orchestrator.ports.key_value import Put
from mumian_orchestrator.ports.log_files import StoredPage
from mumian_orchestrator.services.store.log_pages import LogPages
from mumian_orchestrator.services.store.put_away import pages_in
from mumian_orchestrator.services.store.reader import StoreReader

_MONTH, _PAGES = "2026-01", [StoredPage(number, b"%d" % number * 40) for number in range(1, 400)]
_PREFIX = "/test/"


class _Disk:
    """Counts what is read of it."""

    def __init__(self) -> None:
        self.read_bytes = 0

    def open(self, path: Path, mode: str) -> io.BufferedReader:
        """In place of `Path.open`."""
        disk = self

        class Counted(io.FileIO):
            def readinto(self, buffer: object) -> int | None:
                count = super().readinto(buffer)  # type: ignore[arg-type]
                disk.read_bytes += count or 0
                return count

        return io.BufferedReader(Counted(path, mode.replace("b", "")))


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DiskLogFiles:
    """With a month of many blocks."""
    monkeypatch.setattr(log_files, "_BLOCK_BYTES", 600)
    files = DiskLogFiles(tmp_path)
    writer = files.begin(AUDIT.name, _MONTH)
    for page in _PAGES:
        writer.add(page)
    writer.finish()
    return files


@pytest.fixture
def disk(files: DiskLogFiles, monkeypatch: pytest.MonkeyPatch) -> _Disk:
    """Under the files that are written already."""
    disk = _Disk()
    monkeypatch.setattr(Path, "open", lambda path, mode: disk.open(path, mode))
    return disk


def _size_bytes(folder: Path) -> int:
    return (folder / f"{AUDIT.name}-{_MONTH}").stat().st_size


def test_a_whole_month_is_read_at_the_cost_of_its_size(
    files: DiskLogFiles, disk: _Disk, tmp_path: Path
) -> None:
    """Each block used to be looked for from the beginning: a month of 300,000 entries took twice its time."""
    assert list(pages_in(files, AUDIT, _MONTH)) == [page.data for page in _PAGES]
    assert disk.read_bytes == _size_bytes(tmp_path)


async def test_a_month_that_callers_ask_for_is_read_at_the_cost_of_its_size(
    files: DiskLogFiles, disk: _Disk, tmp_path: Path
) -> None:
    kv = MemoryKeyValue(MemoryCluster())
    note = PutAway(files=[MonthFile(month=_MONTH)]).SerializeToString()
    await kv.transact([], [Put(_PREFIX + AUDIT.note, note)])
    pages = LogPages(StoreReader(kv, _PREFIX), AUDIT, files)
    read = [page async for some in pages.of(_MONTH) for page in some.pages]
    assert read == [page.data for page in _PAGES]
    assert disk.read_bytes == _size_bytes(tmp_path)


def test_reading_begins_behind_any_page(files: DiskLogFiles) -> None:
    for after in (0, 1, 7, 200, 398, 399, 1000):
        read = [page for some in files.read(AUDIT.name, _MONTH, after) for page in some]
        assert read == [page for page in _PAGES if page.sequence > after]
