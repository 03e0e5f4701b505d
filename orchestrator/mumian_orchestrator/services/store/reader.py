"""Reading the store, for leaders and followers: patient loads, and a watch that loses nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing

from mumian_orchestrator.ports.key_value import CompactedError, KeyEvent, KeyValue, Listing, NoAnswerError
from mumian_orchestrator.ports.store import LOG, Change, Event, Snapshot

log = logging.getLogger(__name__)

FIRST_RETRY_S, LAST_RETRY_S = 0.05, 1.0

# What all but the log lies below, in the store and in a backup of it.
DATA = "data/"


class StoreReader:
    """Data live under `{prefix}data/`; the log, the leader's key and the commit mark beside it, where no
    watch sees them.
    """

    def __init__(self, kv: KeyValue, prefix: str) -> None:
        self._kv, self._prefix, self._data = kv, prefix, f"{prefix}{DATA}"

    async def load(self) -> Snapshot:
        """Everything that is stored at one revision but the log; waits for as long as the store is away."""
        listing = await self._patiently(self._kv.list, self._data)
        entries = {entry.key.removeprefix(self._data): entry.value for entry in listing.entries}
        return Snapshot(listing.revision, entries)

    async def read_log(self, prefix: str) -> Sequence[bytes]:
        """The values below a prefix of the log, in order of their keys; waits as `load` does."""
        return [
            entry.value for entry in (await self._patiently(self._kv.list, self._absolute(prefix))).entries
        ]

    async def read_log_after(self, prefix: str, after: str, count: int) -> Sequence[tuple[str, bytes]]:
        """At most so many keys below a prefix of the log, the first of those behind a key, with their values;
        waits as `load` does.
        """
        listing = await self._patiently(self._kv.first, self._absolute(prefix), self._absolute(after), count)
        return [(entry.key.removeprefix(self._prefix), entry.value) for entry in listing.entries]

    async def watch(self, prefix: str, from_revision: int) -> AsyncGenerator[Change, None]:
        """Every write below the prefix from a revision on, each exactly once, without end.

        After a break it goes on behind the last event that it told, not behind the revision of the last
        answer: etcd may answer with a revision whose events are still to come. And it asks for one revision
        more than it needs: a watch from the very revision of a compaction misses what that one deleted
        (etcd before 3.4.34 and 3.5.15).
        """
        next_revision, retry_s = from_revision, FIRST_RETRY_S
        while True:
            watched = self._kv.watch(self._data + prefix, max(1, next_revision - 1))
            try:
                async with aclosing(watched) as answers:
                    async for events in answers:
                        retry_s = FIRST_RETRY_S
                        if new := [event for event in events if event.revision >= next_revision]:
                            next_revision = new[-1].revision + 1
                            yield Change(self._relative(new))
            except CompactedError:
                try:
                    change, next_revision = await self._relist(prefix, next_revision)
                except NoAnswerError as error:
                    log.warning("store not listed after a gap: %s; trying again", error)
                else:
                    yield change
                    continue
            except NoAnswerError as error:
                log.warning("watch broken off: %s; going on from revision %d", error, next_revision)
            await asyncio.sleep(retry_s)
            retry_s = min(2 * retry_s, LAST_RETRY_S)

    async def _relist(self, prefix: str, from_revision: int) -> tuple[Change, int]:
        """What a listing tells of a gap in history, and the revision behind it."""
        listing = await self._kv.list(self._data + prefix)
        log.info("history before revision %d is gone: listed %s anew", listing.revision, self._data + prefix)
        missed = sorted(
            (entry for entry in listing.entries if entry.mod_revision >= from_revision),
            key=lambda entry: entry.mod_revision,
        )
        events = self._relative([KeyEvent(e.key, e.value, e.mod_revision) for e in missed])
        present = frozenset(entry.key.removeprefix(self._data) for entry in listing.entries)
        return Change(events, present), listing.revision + 1

    async def _patiently(self, read: Callable[..., Awaitable[Listing]], *what: object) -> Listing:
        retry_s = FIRST_RETRY_S
        while True:
            try:
                return await read(*what)
            except NoAnswerError as error:
                log.warning("store not read: %s; trying again", error)
                await asyncio.sleep(retry_s)
                retry_s = min(2 * retry_s, LAST_RETRY_S)

    def _absolute(self, key: str) -> str:
        return (self._prefix if key.startswith(LOG) else self._data) + key

    def _relative(self, events: Sequence[KeyEvent]) -> list[Event]:
        return [Event(event.key.removeprefix(self._data), event.value, event.revision) for event in events]


async def read_whole(kv: KeyValue, prefix: str) -> dict[str, bytes]:
    """Everything that is stored at one revision, the log too, by relative key. For whom a wait is no matter.

    Raises:
        NoAnswerError: the store is away.
    """
    data = f"{prefix}data/"
    return {
        entry.key.removeprefix(data if entry.key.startswith(data) else prefix): entry.value
        for entry in (await kv.list(prefix)).entries
    }
