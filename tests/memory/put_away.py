"""Platforms whose logs have months, putting those away as the command does, and being killed at it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from mumian_orchestrator.adapters.disk import log_files
from mumian_orchestrator.adapters.disk.log_files import DiskLogFiles
from mumian_orchestrator.adapters.memory.key_value import MemoryCluster, MemoryKeyValue
from mumian_orchestrator.domain.chained_log import ChainedLog
from mumian_orchestrator.ports.key_value import KeyValue, Outcome
from mumian_orchestrator.ports.log_files import LogFileWriter, StoredPage
from mumian_orchestrator.services.store.put_away import put_away

from tests.memory.leader import KEY_PREFIX
from tests.memory.money import stored
from tests.memory.site import CLOCK

MONTH_S = 31 * 24 * 3600


class KilledError(Exception):
    """The command is killed here."""


class Fuse:
    """Lets so many calls through; with -1, all."""

    def __init__(self, calls: int) -> None:
        self.left = calls

    def burn(self) -> None:
        """One call."""
        if self.left == 0:
            raise KilledError
        self.left -= 1


class KilledStore:
    """A store whose caller is killed before, or behind, a transaction."""

    def __init__(self, kv: KeyValue, fuse: Fuse) -> None:
        self._kv, self._fuse = kv, fuse

    def __getattr__(self, name: str) -> Any:
        """As of the store."""
        return getattr(self._kv, name)

    async def transact(self, *args: Any, **named: Any) -> Outcome:
        """As of the store, with two moments to be killed at."""
        self._fuse.burn()
        done = await self._kv.transact(*args, **named)
        self._fuse.burn()
        return done


class KilledFiles(DiskLogFiles):
    """Whose writer is killed while it writes, before the file is in its place, or behind that."""

    def __init__(self, folder: Path, fuse: Fuse) -> None:
        super().__init__(folder)
        self._fuse = fuse

    def begin(self, log: str, month: str) -> LogFileWriter:
        """As on the disk."""
        return _KilledWriter(super().begin(log, month), self._fuse)


class _KilledWriter:
    def __init__(self, writer: LogFileWriter, fuse: Fuse) -> None:
        self._writer, self._fuse = writer, fuse

    def add(self, page: StoredPage) -> None:
        self._fuse.burn()
        self._writer.add(page)

    def finish(self) -> None:
        self._fuse.burn()
        self._writer.finish()
        self._fuse.burn()

    def give_up(self) -> None:
        """Nobody who is killed cleans up."""


async def put_away_months(
    kv: KeyValue, log: ChainedLog, folder: Path, fuse: Fuse | None = None, prefix: str = KEY_PREFIX
) -> list[str]:
    """The months of a log that were put away now. A fuse kills it."""
    fuse = fuse or Fuse(-1)
    store, files = cast(KeyValue, KilledStore(kv, fuse)), KilledFiles(folder, fuse)
    return [file.month for file in await put_away(store, prefix, log, files)]


class Platform:
    """A platform in memory one of whose logs has months, and the folder that they go to."""

    def __init__(self, log: ChainedLog, folder: Path) -> None:
        self.log, self.folder = log, folder
        self.cluster, self.files = MemoryCluster(), DiskLogFiles(folder)

    async def put_away(self, fuse: Fuse | None = None) -> list[str]:
        """As the command does; the months that were put away now. A fuse kills it."""
        return await put_away_months(MemoryKeyValue(self.cluster), self.log, self.folder, fuse)

    async def stored_months(self) -> list[str]:
        """Of which months the store has pages."""
        keys = (key for key in await stored(self.cluster) if key.startswith(self.log.pages))
        return sorted({key.removeprefix(self.log.pages).partition("/")[0] for key in keys})


def let_months_pass(patch: pytest.MonkeyPatch) -> None:
    """For one test: files have several blocks, and the clock may be set on."""
    patch.setattr(log_files, "_BLOCK_BYTES", 600)
    patch.setattr(CLOCK, "offset_s", CLOCK.offset_s)
