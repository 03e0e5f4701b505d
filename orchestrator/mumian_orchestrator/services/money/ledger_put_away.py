"""Months of the ledger that are over go from the store to files, and stay a part of the ledger there.

For each month, oldest first: its file is written, synced and read again with the chain of hashes checked; one
transaction notes that it is there (`PUT_AWAY`), and from then on readers go to the file; then its pages leave
the store. Whoever is killed in between has lost nothing, and does the rest the next time: a file without a
note is made again, pages behind a note are not read.

A month is over once the ledger has an entry of a later one: time that is booked never goes back. So no leader
writes what is put away, and leaders need not stop for it.
"""

from __future__ import annotations

from collections.abc import Iterator

from mumian.storage.v1.ledger_pb2 import LedgerFile, LedgerHead, LedgerPage, LedgerPutAway

from mumian_orchestrator.domain.money.ledger import LedgerError, page_hash
from mumian_orchestrator.domain.money.ledger_audit import HEAD, PAGES, PUT_AWAY
from mumian_orchestrator.domain.money.periods import month_of
from mumian_orchestrator.ports.key_value import CreatedAt, Delete, KeyValue, ModifiedAt, Put
from mumian_orchestrator.ports.ledger_files import LedgerFiles, StoredPage
from mumian_orchestrator.services.store.fenced import restoring_key
from mumian_orchestrator.services.store.reader import DATA

# Pages are deleted by what their keys begin with: a thousand entries each, so many in a transaction.
_DIGITS_LEFT_OUT, _RANGES_AT_ONCE = 3, 10


class PutAwayRefusedError(Exception):
    """Somebody else does the same, or the store is being restored."""


async def put_away(kv: KeyValue, prefix: str, files: LedgerFiles) -> list[LedgerFile]:
    """Put away every month that is over; what has been now.

    Raises:
        LedgerError: the ledger is wrong; the month at fault stays where it is.
        LedgerFilesError, OSError: a file cannot be written, or is not what was written.
        PutAwayRefusedError: somebody else does it.
        NoAnswerError: the store is away. What was begun goes on the next time.
    """
    return await _PutAway(kv, prefix, files).run()


def pages_in(files: LedgerFiles, month: str) -> Iterator[LedgerPage]:
    """All pages of a month that lies in a file. Raises LedgerFilesError."""
    after = 0
    while found := files.read(month, after):
        after = found[-1].sequence
        for page in found:
            yield LedgerPage.FromString(page.data)


class _PutAway:
    def __init__(self, kv: KeyValue, prefix: str, files: LedgerFiles) -> None:
        self._kv, self._prefix, self._files = kv, prefix, files
        self._note, self._note_revision = LedgerPutAway(), 0

    async def run(self) -> list[LedgerFile]:
        """Until none is left that is over."""
        await self._read_note()
        head = LedgerHead.FromString(await self._value(DATA + HEAD))
        present, made = month_of(head.time.ToMilliseconds()), []
        while (month := await self._oldest_month()) and month < present:
            if not any(file.month == month for file in self._note.files):
                made.append(await self._write(month))
                await self._note_it(made[-1])
            await self._clear(month)
        return made

    async def _write(self, month: str) -> LedgerFile:
        writer = self._files.begin(month)
        try:
            async for listing in self._kv.pages(f"{self._prefix}{PAGES}{month}/"):
                for entry in listing.entries:
                    writer.add(StoredPage(int(entry.key.rpartition("/")[2]), entry.value))
            writer.finish()
        finally:
            writer.give_up()
        return self._checked(month)

    def _checked(self, month: str) -> LedgerFile:
        """The end of a file that follows those before it."""
        before = self._note.files[-1] if self._note.files else LedgerFile()
        made = LedgerFile(month=month, sequence=before.sequence, hash=before.hash)
        for page in pages_in(self._files, month):
            made.hash = page_hash(made.hash, [entry.SerializeToString() for entry in page.entries])
            if page.entries[0].sequence != made.sequence + 1 or made.hash != page.hash:
                raise LedgerError(
                    f"the page of entry {page.entries[0].sequence} does not follow the one before"
                )
            made.sequence = page.entries[-1].sequence
        return made

    async def _note_it(self, made: LedgerFile) -> None:
        self._note.files.append(made)
        noted = Put(self._prefix + PUT_AWAY, self._note.SerializeToString())
        self._note_revision = await self._transact(noted)

    async def _clear(self, month: str) -> None:
        """Delete a month's pages; where keys are few, many may fall into one transaction."""
        while key := await self._first_key(f"{self._prefix}{PAGES}{month}/"):
            digits = len(key) - key.rindex("/") - 1 - _DIGITS_LEFT_OUT
            begin = int(key[:-_DIGITS_LEFT_OUT].rpartition("/")[2])
            await self._transact(
                *(
                    Delete(f"{self._prefix}{PAGES}{month}/{begin + number:0{digits}d}", is_prefix=True)
                    for number in range(_RANGES_AT_ONCE)
                )
            )

    async def _transact(self, *operations: Put | Delete) -> int:
        """Only as long as nobody else puts away or restores."""
        alone = ModifiedAt(self._prefix + PUT_AWAY, self._note_revision)
        idle = CreatedAt(restoring_key(self._prefix), 0)
        outcome = await self._kv.transact([alone, idle], operations)
        if not outcome.succeeded:
            raise PutAwayRefusedError(
                "somebody else puts the ledger away, or restores a backup; try again then"
            )
        return outcome.revision

    async def _read_note(self) -> None:
        for entry in (await self._kv.list(self._prefix + PUT_AWAY)).entries:
            self._note, self._note_revision = LedgerPutAway.FromString(entry.value), entry.mod_revision

    async def _value(self, key: str) -> bytes:
        found = (await self._kv.list(self._prefix + key)).entries
        return found[0].value if found else b""

    async def _oldest_month(self) -> str:
        key = await self._first_key(f"{self._prefix}{PAGES}")
        return key.removeprefix(f"{self._prefix}{PAGES}").partition("/")[0]

    async def _first_key(self, prefix: str) -> str:
        found = (await self._kv.first(prefix, prefix, 1)).entries
        return found[0].key if found else ""
