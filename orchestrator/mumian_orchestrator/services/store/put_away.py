"""Months of a log that are over go from the store to files, and stay a part of the log there.

For each month, oldest first: its file is written, synced and read again with the chain of hashes checked; one
transaction notes that it is there, and from then on readers go to the file; then its pages leave the store.
Whoever is killed in between has lost nothing, and does the rest the next time: a file without a note is made
again, pages behind a note are not read.

A month is over once the log has a page of a later one: the month under which pages are stored never goes
back. So no leader writes what is put away, and leaders need not stop for it.
"""

from __future__ import annotations

from collections.abc import Iterator

from mumian.storage.v1.put_away_pb2 import MonthFile, PutAway

from mumian_orchestrator.domain.chained_log import ChainedLog, ChainEnd
from mumian_orchestrator.domain.periods import is_period
from mumian_orchestrator.ports.key_value import CreatedAt, Delete, KeyValue, ModifiedAt, Put
from mumian_orchestrator.ports.log_files import LogFiles, StoredPage
from mumian_orchestrator.services.store.fenced import restoring_key

# Pages are deleted by what their keys begin with: a thousand entries each, so many in a transaction.
_DIGITS_LEFT_OUT, _RANGES_AT_ONCE = 3, 10


class PutAwayRefusedError(Exception):
    """Somebody else does the same, or the store is being restored."""


async def put_away(kv: KeyValue, prefix: str, log: ChainedLog, files: LogFiles) -> list[MonthFile]:
    """Put away every month of a log that is over; what has been now.

    Raises:
        ChainBrokenError: the log is wrong; the month at fault stays where it is.
        LogFilesError, OSError: a file cannot be written, or is not what was written.
        PutAwayRefusedError: somebody else does it.
        NoAnswerError: the store is away. What was begun goes on the next time.
    """
    return await _PutAway(kv, prefix, log, files).run()


def pages_in(files: LogFiles, log: ChainedLog, month: str) -> Iterator[bytes]:
    """All pages of a month that lies in a file. Raises LogFilesError."""
    for some in files.read(log.name, month):
        for page in some:
            yield page.data


class _PutAway:
    def __init__(self, kv: KeyValue, prefix: str, log: ChainedLog, files: LogFiles) -> None:
        self._kv, self._log, self._files = kv, log, files
        self._pages, self._note_key = prefix + log.pages, prefix + log.note
        self._restoring = restoring_key(prefix)
        self._note, self._note_revision = PutAway(), 0

    async def run(self) -> list[MonthFile]:
        """Until none is left that is over."""
        await self._read_note()
        made = []
        while (month := await self._oldest_month()) and await self._first_key(f"{month}0"):  # "0" follows "/"
            if not any(file.month == month for file in self._note.files):
                made.append(await self._write(month))
                await self._note_it(made[-1])
            await self._clear(month)
        return made

    async def _write(self, month: str) -> MonthFile:
        writer = self._files.begin(self._log.name, month)
        try:
            async for listing in self._kv.pages(f"{self._pages}{month}/"):
                for entry in listing.entries:
                    writer.add(StoredPage(int(entry.key.rpartition("/")[2]), entry.value))
            writer.finish()
        finally:
            writer.give_up()
        return self._checked(month)

    def _checked(self, month: str) -> MonthFile:
        """The end of a file that follows those before it."""
        before = self._note.files[-1] if self._note.files else MonthFile()
        end = ChainEnd(before.sequence, before.hash)
        for page in pages_in(self._files, self._log, month):
            end = self._log.behind(end, page)
        return MonthFile(month=month, sequence=end.sequence, hash=end.hash)

    async def _note_it(self, made: MonthFile) -> None:
        self._note.files.append(made)
        self._note_revision = await self._transact(Put(self._note_key, self._note.SerializeToString()))

    async def _clear(self, month: str) -> None:
        """Delete a month's pages; where keys are few, many may fall into one transaction."""
        while key := await self._first_key(f"{month}/", f"{month}/"):
            digits = len(key) - len(month) - 1 - _DIGITS_LEFT_OUT
            begin = int(key[:-_DIGITS_LEFT_OUT].rpartition("/")[2])
            await self._transact(
                *(
                    Delete(f"{self._pages}{month}/{begin + number:0{digits}d}", is_prefix=True)
                    for number in range(_RANGES_AT_ONCE)
                )
            )

    async def _transact(self, *operations: Put | Delete) -> int:
        """Only as long as nobody else puts away or restores."""
        alone, idle = ModifiedAt(self._note_key, self._note_revision), CreatedAt(self._restoring, 0)
        outcome = await self._kv.transact([alone, idle], operations)
        if not outcome.succeeded:
            raise PutAwayRefusedError(
                f"somebody else puts the {self._log.title} away, or restores a backup; try again then"
            )
        return outcome.revision

    async def _read_note(self) -> None:
        for entry in (await self._kv.list(self._note_key)).entries:
            self._note, self._note_revision = PutAway.FromString(entry.value), entry.mod_revision

    async def _oldest_month(self) -> str:
        month = (await self._first_key("")).partition("/")[0]
        if month and not is_period(month):
            raise PutAwayRefusedError(f"{self._pages}{month} is of no month; another release has stored it")
        return month

    async def _first_key(self, after: str, prefix: str = "") -> str:
        """Of its pages, below the log's key; empty: there is none."""
        found = (await self._kv.first(self._pages + prefix, self._pages + after, 1)).entries
        return found[0].key.removeprefix(self._pages) if found else ""
