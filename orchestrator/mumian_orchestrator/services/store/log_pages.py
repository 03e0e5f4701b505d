"""A log's pages as they are read: from files what was put away, the rest from the store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import NamedTuple

from mumian.api.v1 import error_pb2
from mumian.storage.v1.put_away_pb2 import PutAway

from mumian_orchestrator.domain.chained_log import ChainedLog
from mumian_orchestrator.domain.errors import RequestRefusedError
from mumian_orchestrator.ports.log_files import LogFiles, LogFilesError, StoredPage
from mumian_orchestrator.ports.store import Store

_PAGES_AT_ONCE = 100
# What the keys of a period's months go on with, by how long its name is: all there are, a year, a month.
_GOES_ON = {0: "", 4: "-", 7: "/"}


class SomePages(NamedTuple):
    """Pages in a row."""

    end: str  # what to give as `after` to go on behind them
    pages: Sequence[bytes]


class LogPages:
    """Reads them in order, a few at a time."""

    def __init__(self, store: Store, log: ChainedLog, files: LogFiles | None) -> None:
        """Without files, months that were put away cannot be read."""
        self._store, self._log, self._files = store, log, files

    async def of(self, period: str, after: str = "") -> AsyncGenerator[SomePages, None]:
        """Those of a month or a year; of an empty period, all.

        Raises:
            RequestRefusedError: LOG_FILES_AWAY.
        """
        put_away = await self._months_put_away()
        for month in put_away:
            if month.startswith(period) and month >= after.partition("/")[0]:
                async for some in self._in_file(month, after):
                    yield some
        prefix = f"{self._log.pages}{period}{_GOES_ON[len(period)]}"
        behind_files = f"{self._log.pages}{put_away[-1]}0" if put_away else ""  # "0" follows "/"
        key = max(prefix, self._log.pages + after, behind_files)
        while True:
            found = await self._store.read_log_after(prefix, key, _PAGES_AT_ONCE)
            if await self._months_put_away() != put_away:
                # Some of what was to be read may have left the store before it was.
                async for some in self.of(period, max(after, key.removeprefix(self._log.pages))):
                    yield some
                return
            if not found:
                return
            key = found[-1][0]
            yield SomePages(key.removeprefix(self._log.pages), [page for _, page in found])

    async def _in_file(self, month: str, after: str) -> AsyncGenerator[SomePages, None]:
        in_month, _, sequence = after.partition("/")
        last = int(sequence) if in_month == month and sequence.isdecimal() else 0
        parts = self._read(month, last)
        while found := await asyncio.to_thread(next, parts, None):
            end = self._log.key(month, found[-1].sequence).removeprefix(self._log.pages)
            yield SomePages(end, [page.data for page in found])

    def _read(self, month: str, after: int) -> Iterator[Sequence[StoredPage]]:
        try:
            if self._files is None:
                raise LogFilesError("this coordinator has no records_dir")
            yield from self._files.read(self._log.name, month, after)
        except LogFilesError as error:
            raise RequestRefusedError(
                error_pb2.ERROR_REASON_LOG_FILES_AWAY,
                f"{month} of the {self._log.title} was put away, and its file cannot be read: {error}; an "
                "operator can put that right",
            ) from None

    async def _months_put_away(self) -> list[str]:
        """Oldest first."""
        return [
            file.month
            for note in await self._store.read_log(self._log.note)
            for file in PutAway.FromString(note).files
        ]
