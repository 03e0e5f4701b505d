"""Backing the store up and restoring it: all of a platform's keys, at one revision."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from mumian_orchestrator.ports.backup_file import BackupFileError, BackupReader, BackupWriter
from mumian_orchestrator.ports.clock import Clock
from mumian_orchestrator.ports.key_value import (
    OPERATIONS_MAX,
    TRANSACTION_BYTES_MAX,
    Delete,
    KeyValue,
    NoAnswerError,
    Operation,
    Put,
)
from mumian_orchestrator.services.leadership import Term, campaign, leader_key, leader_name, term_base_key
from mumian_orchestrator.services.store.fenced import restoring_key
from mumian_orchestrator.services.store.reader import FIRST_RETRY_S, LAST_RETRY_S

log = logging.getLogger(__name__)

# Agents obey growing terms only, the lost platform went on after the backup, and the same backup may be
# restored again: so terms go on from the time of the restore. No store makes more revisions a second.
_REVISIONS_A_SECOND_BITS = 20
_RESTORE_LEASE_S, _LEADING_WITHIN_S = 30, 10
_NAME = leader_name("", "a restore")  # with no address, so that nobody follows it


class RestoreRefusedError(Exception):
    """The store is not as a restore wants it; nothing has changed."""


@dataclass(frozen=True, slots=True)
class BackupFacts:
    """What a backup holds."""

    keys: int
    revision: int
    created: str  # RFC 3339


async def back_up(kv: KeyValue, prefix: str, writer: BackupWriter, clock: Clock) -> BackupFacts:
    """Write everything below the prefix to a file, whole or not at all. Work goes on meanwhile.

    Raises:
        NoAnswerError: the store does not answer, or has forgotten the revision meanwhile.
        OSError: the file cannot be written.
    """
    base = await _term_base(kv, prefix)
    created, revision = clock.now().ToJsonString(), 0
    with writer as file:
        async with aclosing(kv.pages(prefix)) as pages:
            async for page in pages:
                if not revision:
                    revision = page.revision
                    file.header({"created": created, "revision": revision, "term_base": base})
                for entry in page.entries:
                    # Leadership is of the living; and a commit's mark means nothing to another store.
                    if not entry.lease_id and entry.key not in _own_keys(prefix):
                        file.record(entry.key.removeprefix(prefix), entry.value)
        file.finish()
        return BackupFacts(file.keys, revision, created)


async def restore(
    kv: KeyValue, prefix: str, file: BackupReader, clock: Clock, *, replace: bool = False
) -> BackupFacts:
    """Put a backup below the prefix. Nobody can lead meanwhile, nor if it is broken off.

    Args:
        replace: remove what is below the prefix first.

    Raises:
        BackupFileError: the file is no whole backup; nothing has changed.
        RestoreRefusedError: somebody leads, or the store is not empty; nothing has changed.
        NoAnswerError: the store does not answer; what was begun is half done, and nobody can lead with it.
        NoSpaceError: the store is full; likewise.
    """
    header, keys = await asyncio.to_thread(file.check)
    revision, base = header.get("revision"), header.get("term_base")
    if not isinstance(revision, int) or not isinstance(base, int):
        raise BackupFileError(f"{file.name} does not say its revision and term_base; use another backup")
    await _refuse_unless_idle_and_empty(kv, prefix, replace)
    try:
        async with asyncio.timeout(_LEADING_WITHIN_S):
            term = await campaign(kv, leader_key(prefix), _NAME, _RESTORE_LEASE_S)
    except TimeoutError:
        raise RestoreRefusedError("somebody else leads; stop every coordinator first") from None
    stored_base = await _term_base(kv, prefix)
    now_base = clock.now().seconds << _REVISIONS_A_SECOND_BITS
    try:
        writer = _Writer(kv, term)
        await writer.write([Put(restoring_key(prefix), file.name.encode())])
        if replace:
            kept = {restoring_key(prefix), term.key}
            stored = [entry.key for entry in (await kv.list(prefix)).entries if entry.key not in kept]
            await writer.write_all(iter([Delete(key) for key in stored]))
        await writer.write_all(Put(prefix + key, value) for key, value in file.records())
        base_key = term_base_key(leader_key(prefix))
        new_base = max(now_base, base + revision, stored_base + 1)
        await writer.write([Put(base_key, b"%d" % new_base), Delete(restoring_key(prefix))])
    finally:
        await term.resign()
    return BackupFacts(keys, revision, str(header.get("created", "")))


async def _term_base(kv: KeyValue, prefix: str) -> int:
    stored = await kv.list(term_base_key(leader_key(prefix)))
    return max((int(entry.value) for entry in stored.entries), default=0)


def _own_keys(prefix: str) -> Sequence[str]:
    return f"{prefix}commit", restoring_key(prefix), leader_key(prefix), term_base_key(leader_key(prefix))


async def _refuse_unless_idle_and_empty(kv: KeyValue, prefix: str, replace: bool) -> None:
    stored = {entry.key: entry.value for entry in (await kv.list(prefix)).entries}
    leader = stored.get(leader_key(prefix))
    if leader is not None:
        raise RestoreRefusedError(
            f"{leader.decode(errors='replace').strip()} leads below {prefix}; stop every coordinator first"
        )
    if stored and not replace:
        raise RestoreRefusedError(
            f"{len(stored)} keys are below {prefix}; restore to an empty store, or say --replace to lose them"
        )


class _Writer:
    """Writes as many operations as a transaction takes, as long as the term lasts, and again until they are
    there: every operation says what a key is to be, so doing it twice does no harm.
    """

    def __init__(self, kv: KeyValue, term: Term) -> None:
        self._kv, self._term = kv, term

    async def write_all(self, operations: Iterator[Operation]) -> None:
        batch: list[Operation] = []
        size_bytes = 0
        for operation in operations:
            size = len(operation.key) + (len(operation.value) if isinstance(operation, Put) else 0)
            if len(batch) == OPERATIONS_MAX or size_bytes + size > TRANSACTION_BYTES_MAX:
                await self.write(batch)
                batch, size_bytes = [], 0
            batch.append(operation)
            size_bytes += size
        if batch:
            await self.write(batch)

    async def write(self, operations: Sequence[Operation]) -> None:
        retry_s = FIRST_RETRY_S
        while not self._term.over.is_set():
            try:
                outcome = await self._kv.transact([self._term.in_office], operations)
            except NoAnswerError as error:
                log.warning("restore: %s; trying again", error)
                await asyncio.sleep(retry_s)
                retry_s = min(2 * retry_s, LAST_RETRY_S)
            else:
                if outcome.succeeded:
                    return
                break
        raise NoAnswerError("the restore was broken off: its lease ended; do it again with --replace")
