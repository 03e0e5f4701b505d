"""Writing the store: every commit is one transaction that only this term's leader can make, and only once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from mumian_orchestrator.ports.key_value import (
    Delete,
    Get,
    KeyValue,
    ModifiedAt,
    NoAnswerError,
    NoSpaceError,
    Operation,
    Put,
)
from mumian_orchestrator.ports.store import (
    COMMIT_BYTES_MAX,
    COMMIT_WRITES_MAX,
    HalfRestoredError,
    Snapshot,
    SupersededError,
    Write,
)
from mumian_orchestrator.services.leadership import Term
from mumian_orchestrator.services.store.reader import FIRST_RETRY_S, LAST_RETRY_S, StoreReader

log = logging.getLogger(__name__)


def restoring_key(prefix: str) -> str:
    """What exists while a restore is under way."""
    return f"{prefix}restoring"


class FencedStore(StoreReader):
    """The store of one term's leader.

    The commit mark holds the id of the newest commit (its term and number, so no two have the same). Each
    transaction demands that the mark is the one that the previous commit left, so an attempt that got no
    answer and happens later cannot happen twice, and two commits cannot change places.
    """

    def __init__(self, kv: KeyValue, prefix: str, term: Term) -> None:
        super().__init__(kv, prefix)
        self._term = term
        self._mark = f"{prefix}commit"
        self._restoring = restoring_key(prefix)
        self._mark_revision = 0
        self._commits = 0
        self.is_full = False

    async def load(self) -> Snapshot:
        """Everything that is stored, read after the term began.

        Raises:
            SupersededError: this leader's term is over.
            HalfRestoredError: what is stored is not the whole.
        """
        self._mark_revision = await self._read_mark()
        return await super().load()

    async def commit(self, writes: Sequence[Write]) -> int:
        """Store all writes in one transaction; returns its revision. One at a time; whoever cancels one does
        not know whether it happened, and cannot commit another.

        Raises:
            SupersededError: this leader's term is over.
            ValueError: more than a commit takes.
        """
        size_bytes = sum(write.size_bytes for write in writes)
        if len(writes) > COMMIT_WRITES_MAX or size_bytes > COMMIT_BYTES_MAX:
            raise ValueError(
                f"writes ({len(writes)}, {size_bytes} bytes) of one commit must be at most "
                f"{COMMIT_WRITES_MAX} and {COMMIT_BYTES_MAX} bytes"
            )
        self._commits += 1
        commit_id = f"{self._term.number}/{self._commits}".encode()
        operations = [*(self._operation(write) for write in writes), Put(self._mark, commit_id)]
        retry_s = FIRST_RETRY_S
        while not self._term.over.is_set():
            try:
                outcome = await self._kv.transact(
                    [self._term.in_office, ModifiedAt(self._mark, self._mark_revision)],
                    operations,
                    [Get(self._mark)],
                )
            except (NoAnswerError, NoSpaceError) as error:
                self.is_full = isinstance(error, NoSpaceError)
                log.warning("commit not confirmed: %s; trying again", error)
                await asyncio.sleep(retry_s)
                retry_s = min(2 * retry_s, LAST_RETRY_S)
                continue
            self.is_full = False
            if outcome.succeeded:
                self._mark_revision = outcome.revision
                return outcome.revision
            # Either an earlier attempt of this very commit did happen, or another leader writes.
            for mark in outcome.found:
                if mark.value == commit_id:
                    self._mark_revision = mark.mod_revision
                    return mark.mod_revision
            break
        raise SupersededError(f"term {self._term.number} is over")

    @property
    def revision(self) -> int:
        """Of the newest commit."""
        return self._mark_revision

    @property
    def lease_left_s(self) -> float:
        """How long the term lasts if its lease is not renewed any more."""
        return self._term.lease_left_s

    async def compact(self, revision: int) -> None:
        """Forget history before a revision. Nobody is harmed if another leader has compacted further."""
        if revision <= 0:
            return
        try:
            await self._kv.compact(revision)
        except NoAnswerError as error:
            log.warning("history before revision %d not compacted: %s", revision, error)

    def _operation(self, write: Write) -> Operation:
        key = self._absolute(write.key)
        return Delete(key, write.is_prefix) if write.value is None else Put(key, write.value)

    async def _read_mark(self) -> int:
        while not self._term.over.is_set():
            try:
                outcome = await self._kv.transact(
                    [self._term.in_office], [Get(self._mark), Get(self._restoring)]
                )
            except NoAnswerError as error:
                log.warning("commit mark not read: %s; trying again", error)
                await asyncio.sleep(FIRST_RETRY_S)
            else:
                if not outcome.succeeded:
                    break
                revisions = {entry.key: entry.mod_revision for entry in outcome.found}
                if self._restoring in revisions:
                    raise HalfRestoredError(
                        "the store is half restored: a restore was broken off; `mumian-coordinator restore "
                        "--replace` does it again"
                    )
                return revisions.get(self._mark, 0)
        raise SupersededError(f"term {self._term.number} is over")
