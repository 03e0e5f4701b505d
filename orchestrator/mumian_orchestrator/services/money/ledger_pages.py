"""The ledger's pages as accounts read them: from files what was put away, the rest from the store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

from mumian.api.v1 import error_pb2
from mumian.storage.v1.ledger_pb2 import LedgerPutAway

from mumian_orchestrator.domain.errors import RequestRefusedError
from mumian_orchestrator.domain.money.ledger_audit import PUT_AWAY
from mumian_orchestrator.ports.ledger_files import LedgerFiles, LedgerFilesError, StoredPage
from mumian_orchestrator.ports.store import Store
from mumian_orchestrator.services.money.ledger_book import PAGES, page_key

_PAGES_AT_ONCE = 100


class SomePages(NamedTuple):
    """Pages in a row."""

    end: str  # what to give as `after` to go on behind them
    pages: Sequence[bytes]


class LedgerPages:
    """Reads them in order, a few at a time."""

    def __init__(self, store: Store, files: LedgerFiles | None) -> None:
        """Without files, months that were put away cannot be read."""
        self._store, self._files = store, files

    async def of(self, period: str, after: str = "") -> AsyncIterator[SomePages]:
        """Those of a month or a year.

        Raises:
            RequestRefusedError: LEDGER_FILES_AWAY.
        """
        put_away = await self._months_put_away()
        for month in put_away:
            if month.startswith(period) and month >= after.partition("/")[0]:
                async for some in self._in_file(month, after):
                    yield some
        prefix = f"{PAGES}{period}{'-' if len(period) == 4 else '/'}"
        behind_files = f"{PAGES}{put_away[-1]}0" if put_away else ""  # "0" follows "/"
        key = max(prefix, f"{PAGES}{after}", behind_files)
        while True:
            found = await self._store.read_log_after(prefix, key, _PAGES_AT_ONCE)
            if await self._months_put_away() != put_away:
                # Some of what was to be read may have left the store before it was.
                async for some in self.of(period, max(after, key.removeprefix(PAGES))):
                    yield some
                return
            if not found:
                return
            key = found[-1][0]
            yield SomePages(key.removeprefix(PAGES), [page for _, page in found])

    async def _in_file(self, month: str, after: str) -> AsyncIterator[SomePages]:
        in_month, _, sequence = after.partition("/")
        last = int(sequence) if in_month == month and sequence.isdecimal() else 0
        while found := await asyncio.to_thread(self._read, month, last):
            last = found[-1].sequence
            yield SomePages(page_key(month, last).removeprefix(PAGES), [page.data for page in found])

    def _read(self, month: str, after: int) -> Sequence[StoredPage]:
        try:
            if self._files is None:
                raise LedgerFilesError("this coordinator has no ledger_dir")
            return self._files.read(month, after)
        except LedgerFilesError as error:
            raise RequestRefusedError(
                error_pb2.ERROR_REASON_LEDGER_FILES_AWAY,
                f"{month} of the ledger was put away, and its file cannot be read: {error}; an operator can "
                "put that right",
            ) from None

    async def _months_put_away(self) -> list[str]:
        """Oldest first."""
        return [
            file.month
            for note in await self._store.read_log(PUT_AWAY)
            for file in LedgerPutAway.FromString(note).files
        ]
